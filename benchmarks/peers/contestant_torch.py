"""PyTorch, eager; variant ``compile``: ``torch.compile`` (Inductor) of the whole row, gradient and update included."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from references import ADAM, DATA, EPS, HEADS, LEARNING_RATE, MOMENTUM, PARAMETERS, UPDATE_RATE, A, B, C, D
from torch.nn import functional
from worker import Arrays, Builders, Built, quickest

BUILDERS = Builders()
OPTIONS = {"compile": False}


def start(variant: str, threads: int) -> dict[str, str]:
    OPTIONS["compile"] = variant == "compile"
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    return {"torch": torch.__version__, "threads": str(torch.get_num_threads())}


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    torch.compiler.reset()  # each row is a program of its own: no limit on recompilations, no guards of other sizes before its own
    return torch.compile(f, fullgraph=True, dynamic=False)  # type: ignore[no-any-return]


def chain(x: Any) -> Any:
    return torch.tanh(A * x + B) * torch.sigmoid(C * x) + D * x * x


def density(beta: Any, x: Any, y: Any) -> Any:
    eta = x @ beta
    return (y * eta - functional.softplus(eta)).sum() - 0.5 * (beta * beta).sum()


def attention(q: Any, k: Any, v: Any, causal: bool = False) -> Any:
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return torch.softmax(scores, -1) @ v


def library_attention(q: Any, k: Any, v: Any, causal: bool = False) -> Any:
    """PyTorch's own, whose blockwise kernel takes arrays of four axes only."""
    return functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal)[0]


def dense(x: Any, w: Any, b: Any) -> Any:
    return torch.relu(torch.addmm(b, x, w))


def product_chain(x: Any, w: Any, links: int) -> Any:
    for _ in range(links):
        x = x @ w
    return x


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": torch.exp, "log": torch.log, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "erf": torch.erf, "sin": torch.sin, "sqrt": torch.sqrt}

#: kind -> the function of its inputs
FORMULAS: dict[str, Callable[..., Any]] = {
    "chain": chain,
    "layernorm_gelu": lambda x, w, b: functional.gelu(functional.layer_norm(x, x.shape[-1:], w, b, EPS), approximate="tanh"),
    "softmax": lambda x: torch.softmax(x, -1),
    "layernorm": lambda x, w, b: functional.layer_norm(x, x.shape[-1:], w, b, EPS),
    "variance": lambda x: torch.var(x, -1, correction=0),
    "add": lambda x, y: x + y,
    "copy": lambda x: x.clone(),
    "transpose": lambda x: x.t().contiguous(),
    "reverse": lambda x: x.flip(0),
    "concat0": lambda x, y: torch.cat([x, y], 0),
    "concat1": lambda x, y: torch.cat([x, y], 1),
    "pairwise": lambda a, b: ((a[:, None] - b[None]) ** 2).sum(-1),
    "colsum": lambda x: x.sum(0),
    "colmean": lambda x: x.mean(0),
    "sum": lambda x: x.sum(),
    "max": lambda x: x.max(),
    "matmul": lambda a, b, form: (a.mT if form == "atb" else a) @ (b.mT if form == "abt" else b),
    "dense": dense,
    "layer": lambda x, w, b: torch.relu(functional.linear(x, w, b)),
    "dense_gelu": lambda x, w, b, residual: functional.gelu(torch.addmm(b, x, w)) + residual,
    "product_chain": product_chain,
}

#: kind -> (scalar function of the inputs, how many of them it is derived by, is its value wanted too)
GRADIENTS: dict[str, tuple[Callable[..., Any], int, bool]] = {
    "scalar_grad": (lambda x, y: x * x / 20 + y * y, 2, False),
    "chain_grad": (lambda x: chain(x).sum(), 1, False),
    "xent": (functional.cross_entropy, 1, True),
    "logistic": (density, 1, True),
}


def tensors(inputs: Arrays) -> list[Any]:
    return [torch.from_numpy(v) for v in inputs.values()]


def fetch(result: Any) -> list[Any]:
    return [v.detach().numpy() for v in (result if isinstance(result, tuple) else (result,))]


@BUILDERS.row(*FORMULAS, "unary")
def formula(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    f = FUNCTIONS[params["function"]] if kind == "unary" else functools.partial(FORMULAS[kind], **params)
    return Built(compiled(f) if OPTIONS["compile"] else f, tensors(inputs), fetch)


@BUILDERS.row(*GRADIENTS)
def gradient(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    f, wrt, with_value = GRADIENTS[kind]
    args = tensors(inputs)
    if OPTIONS["compile"]:  # one graph without autograd at run time: faster than the gradient of a compiled forward
        if with_value:
            pair = torch.func.grad_and_value(f)
            return Built(compiled(lambda *a: pair(*a)[::-1]), args, fetch)
        return Built(compiled(torch.func.grad(f, argnums=tuple(range(wrt)))), args, fetch)
    leaves = [a.requires_grad_() for a in args[:wrt]]

    def call(*args: Any) -> Any:
        value = f(*args)
        grads = torch.autograd.grad(value, leaves)
        return (value, *grads) if with_value else grads

    return Built(call, args, fetch)


@BUILDERS.row("conv_step")
def conv_step(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    x, w, g = tensors(inputs)
    op = functional.conv1d if x.ndim == 3 else functional.conv2d
    leaves = [x.requires_grad_(), w.requires_grad_()]

    def step(x: Any, w: Any) -> Any:
        return op(x, w, **params)
    f = compiled(step) if OPTIONS["compile"] else step

    def call(x: Any, w: Any, g: Any) -> Any:
        y = f(x, w)
        return (y, *torch.autograd.grad(y, leaves, g))
    return Built(call, (x, w, g), fetch, any_order=True)  # torch.compile puts channels last


def with_gradients(f: Callable[..., Any], inputs: Arrays) -> Built:
    """The value of a function of all inputs but the last, and the gradients of its product with that one."""
    args = tensors(inputs)
    if OPTIONS["compile"]:
        def step(*args: Any) -> Any:
            y, back = torch.func.vjp(f, *args[:-1])
            return (y, *back(args[-1]))
        return Built(compiled(step), args, fetch, any_order=True)
    leaves = [a.requires_grad_() for a in args[:-1]]

    def call(*args: Any) -> Any:
        y = f(*args[:-1])
        return (y, *torch.autograd.grad(y, leaves, args[-1]))
    return Built(call, args, fetch, any_order=True)


@BUILDERS.row("dense_step")
def dense_step(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    return with_gradients(dense, inputs)


@BUILDERS.row("attention", "attention_step")
def attentions(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    forms = {"composed": attention, "scaled_dot_product_attention": library_attention}

    def make(f: Callable[..., Any]) -> Built:
        f = functools.partial(f, **params)
        if kind == "attention_step":
            return with_gradients(f, inputs)
        return Built(compiled(f) if OPTIONS["compile"] else f, tensors(inputs), fetch, any_order=True)
    return quickest({name: functools.partial(make, f) for name, f in forms.items()})


@BUILDERS.row("matmul_bfloat16")
def matmul_bfloat16(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    args = [a.bfloat16() for a in tensors(inputs)]
    return Built(compiled(torch.matmul) if OPTIONS["compile"] else torch.matmul, args, lambda r: [r.float().numpy()])


@BUILDERS.row("mlp")
def mlp(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    p = [torch.from_numpy(inputs[k].copy()) for k in PARAMETERS]
    velocity = [torch.zeros_like(a) for a in p]
    args = tensors({k: inputs[k] for k in ("x", "labels")})

    def loss_of(p: Any, x: Any, labels: Any) -> Any:
        w1, b1, w2, b2 = p
        return functional.cross_entropy(torch.addmm(b2, torch.relu(torch.addmm(b1, x, w1)), w2), labels)

    if OPTIONS["compile"]:
        grad_and_value = torch.func.grad_and_value(loss_of)

        def step(p: Any, velocity: Any, x: Any, labels: Any) -> Any:
            grads, loss = grad_and_value(p, x, labels)
            for a, v, g in zip(p, velocity, grads, strict=True):
                v.mul_(MOMENTUM).sub_(g, alpha=LEARNING_RATE)
                a.add_(v)
            return loss
        return Built(compiled(step), (p, velocity, *args), fetch, lambda: [a.numpy().copy() for a in p])

    for a in p:
        a.requires_grad_()

    def eager(x: Any, labels: Any) -> Any:
        loss = loss_of(p, x, labels)
        grads = torch.autograd.grad(loss, p)
        with torch.no_grad():  # what torch.optim.SGD(foreach=True) does, without its bookkeeping, which takes longer than the step
            torch._foreach_mul_(velocity, MOMENTUM)
            torch._foreach_add_(velocity, grads, alpha=-LEARNING_RATE)
            torch._foreach_add_(p, velocity)
        return loss

    return Built(eager, args, fetch, lambda: [a.detach().numpy().copy() for a in p])


def classifier(p: Any, x: Any, labels: Any) -> Any:
    h = dense(dense(x, p["w1"], p["b1"]), p["w2"], p["b2"])
    return functional.cross_entropy(torch.addmm(p["b3"], h, p["w3"]), labels)


def lenet(p: Any, x: Any, labels: Any) -> Any:
    h = functional.max_pool2d(torch.relu(functional.conv2d(x, p["k1"], p["c1"], padding=2)), 2)
    h = functional.max_pool2d(torch.relu(functional.conv2d(h, p["k2"], p["c2"])), 2)
    return classifier(p, h.flatten(1), labels)


def transformer(p: Any, x: Any, target: Any) -> Any:
    def linear(h: Any, name: str) -> Any:
        return functional.linear(h, p[f"w{name}"].t(), p[f"b{name}"])

    def norm(h: Any, name: str) -> Any:
        return functional.layer_norm(h, h.shape[-1:], p[f"g{name}"], p[f"c{name}"], EPS)
    q, k, v = linear(norm(x, "1"), "qkv").unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(q, k, v)
    h = x + linear(mixed.transpose(1, 2).flatten(2), "o")
    h = h + linear(functional.gelu(linear(norm(h, "2"), "1")), "2")
    return functional.mse_loss(h, target)


MODELS = {"mlp": classifier, "lenet": lenet, "transformer": transformer}


class Momentum:
    """The update of a list of parameters; ``plain`` is for the compiler, ``fused`` what torch.optim.SGD(fused=True) calls."""

    def __init__(self, p: list[Any]) -> None:
        self.state = [[torch.zeros_like(a) for a in p]]

    @staticmethod
    def plain(p: Any, grads: Any, velocity: Any) -> None:
        for a, g, v in zip(p, grads, velocity, strict=True):
            v.mul_(MOMENTUM).sub_(g, alpha=LEARNING_RATE)
            a.add_(v)

    @staticmethod
    def fused(p: Any, grads: Any, velocity: Any) -> None:  # its v is ours over -LEARNING_RATE
        torch._fused_sgd_(p, grads, velocity, weight_decay=0.0, momentum=MOMENTUM, lr=LEARNING_RATE, dampening=0.0, nesterov=False, maximize=False,
                          is_first_step=False)


class Adam:
    """The same for Adam; ``fused`` counts the steps of each parameter."""

    def __init__(self, p: list[Any]) -> None:
        self.state = [[torch.zeros_like(a) for a in p], [torch.zeros_like(a) for a in p], [torch.zeros(()) for _ in p]]

    @staticmethod
    def plain(p: Any, grads: Any, s: Any, r: Any, counts: Any) -> None:
        count = counts[0].add_(1).double()
        one, two = 1 - ADAM.mean**count, 1 - ADAM.square**count
        for a, g, m, n in zip(p, grads, s, r, strict=True):
            m.lerp_(g, 1 - ADAM.mean)
            n.mul_(ADAM.square).addcmul_(g, g, value=1 - ADAM.square)
            a.sub_(ADAM.rate * (m / one) / ((n / two).sqrt() + ADAM.delta))

    @staticmethod
    def fused(p: Any, grads: Any, s: Any, r: Any, counts: Any) -> None:
        torch._foreach_add_(counts, 1)
        torch._fused_adam_(p, grads, s, r, [], counts, lr=ADAM.rate, beta1=ADAM.mean, beta2=ADAM.square, weight_decay=0.0, eps=ADAM.delta, amsgrad=False,
                           maximize=False)


UPDATES: dict[str, Any] = {"momentum": Momentum, "adam": Adam}


@BUILDERS.row("training")
def training(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    p = {k: torch.from_numpy(v.copy()) for k, v in inputs.items() if k not in DATA}
    args = tensors({k: v for k, v in inputs.items() if k in DATA})
    model, update = MODELS[params["model"]], UPDATES[params["update"]](list(p.values()))

    def state() -> list[Any]:
        return [a.detach().numpy().copy() for a in p.values()]

    if OPTIONS["compile"]:
        grad_and_value = torch.func.grad_and_value(model)

        def step(p: Any, kept: Any, *data: Any) -> Any:
            grads, loss = grad_and_value(p, *data)
            update.plain(p.values(), grads.values(), *kept)
            return loss
        return Built(compiled(step), (p, update.state, *args), fetch, state)

    leaves = [a.requires_grad_() for a in p.values()]

    def eager(*data: Any) -> Any:
        loss = model(p, *data)
        grads = torch.autograd.grad(loss, leaves)
        with torch.no_grad():
            update.fused(leaves, grads, *update.state)
        return loss

    return Built(eager, args, fetch, state)


@BUILDERS.row("product_update")
def product_update(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    w = torch.from_numpy(inputs["w"].copy())

    def step(w: Any, v: Any, x: Any, g: Any) -> None:
        v.addmm_(x.t(), g, beta=MOMENTUM)
        w.sub_(v, alpha=UPDATE_RATE)
    args = (w, torch.zeros_like(w), *tensors({k: inputs[k] for k in ("x", "g")}))
    return Built(compiled(step) if OPTIONS["compile"] else step, args, lambda r: [], lambda: [w.numpy().copy()])

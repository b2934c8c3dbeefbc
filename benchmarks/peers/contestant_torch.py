"""PyTorch, eager; variant ``compile``: ``torch.compile`` (Inductor) of the whole row, gradient and update included."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from worker import Arrays, Builders, Built
from workloads import EPS, LEARNING_RATE, MOMENTUM, PARAMETERS, A, B, C, D

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
    f = FUNCTIONS[params["function"]] if kind == "unary" else functools.partial(FORMULAS[kind], **params) if kind == "matmul" else FORMULAS[kind]
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

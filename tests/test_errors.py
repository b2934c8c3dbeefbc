"""Bad input: each a clear error that names the argument and the user's line, with nothing updated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc

Maker = Callable[[], Any]


def _call(*values: Any, **named: Any) -> Maker:
    def make() -> Any:
        x = gc.tensor("x", shape=("n", 3), dtype="float32")
        y = gc.tensor("y", shape=("n",), dtype="int64")
        state = gc.shared(0.0, "state")
        f = gc.function([x, y], x.sum() + y.sum(), updates={state: state + 1}, name="step")
        try:
            f(*values, **named)
        finally:
            assert float(state.get_value()) == 0
    return make


X = np.ones((2, 3), "float32")
Y = np.array([0, 1])


@pytest.mark.parametrize(("make", "kind", "words"), [
    (_call(X.astype("float64"), Y), TypeError, ["'x'", "float64", "float32", "astype"]),
    (_call(X, np.array([0.5, 1.0])), TypeError, ["'y'", "float64", "int64"]),
    (_call(X[0], Y), TypeError, ["'x'", "rank 1", "(3,)", "f32[n, 3]"]),
    (_call(X[:, :2], Y), ValueError, ["'x'", "size 2", "axis 1"]),
    (_call(X, np.array([1, 2, 3])), ValueError, ["'x'", "'y'", "'n'", "2", "3"]),
    (_call(X), TypeError, ["missing", "'y'"]),
    (_call(X, Y, Y), TypeError, ["2 argument", "3 were given"]),
    (_call(X, Y, z=1), TypeError, ["'z'", "x", "y"]),
    (_call(X, Y, x=X), TypeError, ["'x'", "twice"]),
    (_call(np.array([[None] * 3] * 2), Y), TypeError, ["'x'", "object"]),
    (_call([["a", "b", "c"]], Y), TypeError, ["'x'"]),
    (_call([[1, 2, 3], [4, 5]], Y), TypeError, ["'x'"]),
    (_call(None, Y), TypeError, ["'x'", "None"]),
    (_call(gc.constant(X), Y), TypeError, ["'x'", "symbolic"]),
], ids=lambda v: None)
def test_bad_calls(make: Maker, kind: type[Exception], words: list[str]) -> None:
    with pytest.raises(kind) as error:
        make()
    assert isinstance(error.value, gc.errors.GraphcError)
    for word in words:
        assert word in str(error.value), (word, str(error.value))
    assert "test_errors.py" in str(error.value)


def test_unused_input() -> None:
    x, y = gc.scalars("x", "y")
    with pytest.raises(gc.errors.UnusedInputError, match="y"):
        gc.function([x, y], x)
    gc.function([x, y], x, on_unused_input="ignore")(1, 2)
    with pytest.warns(UserWarning, match="unused"):
        gc.function([x, y], x, on_unused_input="warn")
    v = gc.vector("v")
    assert gc.function([v], gc.zeros((v.shape[0],)))([1, 2]).tolist() == [0, 0]  # used through its size


def test_missing_input_of_the_graph() -> None:
    x, y = gc.scalars("x", "y")
    with pytest.raises(TypeError, match=r"missing input.*y"):
        gc.function([x], x + y)


def test_doubled_and_computed_inputs() -> None:
    x = gc.scalar("x")
    with pytest.raises(ValueError, match="twice"):
        gc.function([x, x], x)
    with pytest.raises(TypeError, match="result of a computation"):
        gc.function([x * 2], x * 2)
    with pytest.raises(TypeError, match="shared variable"):
        gc.function([gc.shared(1.0)], x)
    with pytest.raises(TypeError, match="list"):
        gc.function(x, x)


def test_updates() -> None:
    w, x = gc.shared(np.zeros(3, "float32"), "w"), gc.scalar("x")
    with pytest.raises(ValueError, match="two updates"):
        gc.function([], None, updates=[(w, w + 1), (w, w * 2)])
    with pytest.raises(TypeError, match=r"float64.*float32") as error:
        gc.function([x], None, updates={w: w + x})
    assert "gc.cast" in str(error.value)
    with pytest.raises(TypeError, match="rank"):
        gc.function([], None, updates={w: w.sum()})
    with pytest.raises(TypeError, match="size of axis 0 is 2"):
        gc.function([], None, updates={w: w[:2]})
    with pytest.raises(TypeError, match="only shared"):
        gc.function([x], None, updates={x: x + 1})
    with pytest.raises(TypeError, match="dict or a list of pairs"):
        gc.function([], None, updates=3)


def test_cyclic_givens() -> None:
    x, y = gc.scalars("x", "y")
    with pytest.raises(ValueError, match="cyclic"):
        gc.function([x, y], x + y, givens={x: y, y: x})
    with pytest.raises(ValueError, match="cyclic"):
        gc.function([x], x + 1, givens={x: x * 2})
    with pytest.raises(TypeError, match="cannot be replaced"):
        gc.function([y], x + 1, givens={x: gc.vector("v")})


@pytest.mark.parametrize("use", [
    bool, float, int, np.asarray, list, len, lambda v: 1 if v > 0 else 2, lambda v: 3 in v, lambda v: [1, 2][v], lambda v: range(v)])
def test_symbolic_values_have_no_value(use: Callable[[Any], Any]) -> None:
    x = gc.vector("x") if use in (list, len) or use.__name__ == "<lambda>" else gc.scalar("x")
    with pytest.raises(TypeError) as error:
        use(x)
    assert isinstance(error.value, gc.errors.GraphcError)


def test_assignment_names_set_subtensor() -> None:
    x = gc.vector("x")
    with pytest.raises(TypeError, match="set_subtensor"):
        x[0] = 1


def test_loop_variables_do_not_leak() -> None:
    x = gc.vector("x")
    j = gc.jacobian(x ** 2, x)
    counter = next(n for n in gc.toposort(j) if n.op.name == "each").attrs["body"].inputs[0]
    with pytest.raises(ValueError, match="belongs to the loop") as error:
        gc.function([x], x.sum() + counter)
    assert "test_errors.py" in str(error.value)


def test_shapes_that_cannot_fit_are_said_when_building() -> None:
    with pytest.raises(ValueError, match=r"3 and 4.*broadcast"):
        gc.tensor("a", shape=(3,)) + gc.tensor("b", shape=(4,))
    with pytest.raises(ValueError, match="matmul"):
        gc.tensor("a", shape=(2, 3)) @ gc.tensor("b", shape=(4, 5))
    with pytest.raises(TypeError, match="dtype"):
        gc.tensor("a", shape=(2,), dtype="object")
    with pytest.raises(TypeError, match="shape"):
        gc.tensor("a", shape="n")
    with pytest.raises(TypeError):
        gc.constant([object()])
    with pytest.raises(ValueError, match=r"300.*int8"):
        gc.bvector("b") + 300


def test_broken_relation_between_arguments() -> None:
    a, b = gc.matrices("a", "b")
    f = gc.function([a, b], a @ b, name="product")
    with pytest.raises(ValueError) as error:
        f(np.ones((2, 3)), np.ones((4, 5)))
    text = str(error.value)
    assert all(word in text for word in ("'a'", "'b'", "3", "4", "equal", "test_errors.py")), text


def test_nan_constants_are_kept() -> None:
    x = gc.scalar("x")
    f = gc.function([x], [gc.log(gc.constant(-1.0)) + x, gc.constant(1.0) / gc.constant(0.0), gc.constant(1) // gc.constant(0)])
    a, b, c = f(1.0)
    assert np.isnan(a)
    assert np.isposinf(b)
    assert c == 0


def test_gradient_errors_are_raised_where_grad_is_called() -> None:
    x, y = gc.vector("x"), gc.vector("y")
    with pytest.raises(TypeError, match="scalar"):
        gc.grad(x * 2, x)
    with pytest.raises(TypeError, match="real"):
        gc.grad(gc.zscalar("z"), x)
    with pytest.raises(TypeError, match="int64"):
        gc.grad(gc.lvector("i").sum(), x)
    with pytest.raises(TypeError, match="not continuous"):
        gc.grad(x.sum(), gc.lvector("i"))
    with pytest.raises(gc.errors.GradientError, match="does not depend on y"):
        gc.grad(x.sum(), y)
    with pytest.raises(gc.errors.GradientError):
        gc.grad((x > 0).sum().astype("float64"), x)
    with pytest.warns(UserWarning, match="does not depend"):
        gc.grad(x.sum(), y, disconnected_inputs="warn")
    assert gc.grad(x.sum(), [y, x], disconnected_inputs="ignore", return_disconnected="none")[0] is None
    with pytest.raises(ValueError, match="disconnected_inputs"):
        gc.grad(x.sum(), x, disconnected_inputs="maybe")


def test_an_op_without_gradient_is_named_with_the_path() -> None:
    class Rank(gc.Op):
        def infer(self, x: Any) -> Any:
            return x

        def forward(self, x: np.ndarray) -> np.ndarray:
            return np.argsort(x).astype(x.dtype)

    x = gc.vector("x")
    with pytest.raises(gc.errors.GradientError, match=r"Rank.*x -> exp -> Rank -> sum"):
        gc.grad(Rank()(gc.exp(x)).sum(), x)
    gc.grad(Rank()(gc.disconnected_grad(gc.exp(x))).sum() + x.sum(), x)


def test_modes_and_passes() -> None:
    x = gc.scalar("x")
    with pytest.raises(ValueError, match="FAST_RUN"):
        gc.function([x], x, mode="SLOW")
    with pytest.raises(ValueError, match="no pass 'nope'"):
        gc.function([x], x, mode=gc.Mode(passes=["nope"]))
    with pytest.raises(ValueError, match="level"):
        gc.Mode(level="sloppy")
    f = gc.function([x], x)
    with pytest.raises(ValueError, match="stages are"):
        f.dump("nope")


def test_set_value_checks() -> None:
    w = gc.shared(np.zeros((2, 3)), "w")
    with pytest.raises(ValueError, match="size 2 on axis 0"):
        w.set_value(np.zeros((3, 3)))
    with pytest.raises(TypeError, match="rank"):
        w.set_value(np.zeros(3))
    with pytest.raises(TypeError, match="dtype"):
        w.set_value(np.zeros((2, 3), complex))
    assert w.get_value().shape == (2, 3)

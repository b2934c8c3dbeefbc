"""Activations and losses against their formulas in NumPy, where those overflow too."""

from typing import Any

import numpy as np
import pytest

import graphc as gc

X = np.array([-1000.0, -2.0, -1e-300, 0.0, 0.5, 30.0, 1000.0])


def value_and_slope(fn: Any, x: np.ndarray = X) -> tuple[np.ndarray, np.ndarray]:
    v = gc.vector("v")
    y = fn(v)
    value, slope = gc.function([v], [y, gc.grad(gc.sum(y), v)])(x)
    return value, slope


@pytest.mark.parametrize(("fn", "value", "slope"), [
    (gc.nn.relu, np.maximum(X, 0), X > 0),
    (gc.nn.leaky_relu, np.where(X > 0, X, 0.01 * X), np.where(X > 0, 1, 0.01)),
    (lambda x: gc.nn.leaky_relu(x, 0.2), np.where(X > 0, X, 0.2 * X), np.where(X > 0, 1, 0.2)),
    (gc.nn.elu, np.where(X > 0, X, np.expm1(np.minimum(X, 0))), np.where(X > 0, 1, np.exp(np.minimum(X, 0)))),
    (gc.nn.softplus, np.logaddexp(0, X), 1 / (1 + np.exp(-np.clip(X, -700, 700)))),
    (lambda x: gc.nn.binary_cross_entropy(x, 1.0, reduction="none"), np.logaddexp(0, -X), -1 / (1 + np.exp(np.clip(X, -700, 700)))),
    (lambda x: gc.nn.hinge(x, -1.0, reduction="none"), np.maximum(0, 1 + X), np.where(1 + X > 0, 1, 0)),
], ids=["relu", "leaky_relu", "leaky_relu_alpha", "elu", "softplus", "binary_cross_entropy", "hinge"])
def test_values_and_slopes(fn: Any, value: np.ndarray, slope: np.ndarray) -> None:
    got, d = value_and_slope(fn)
    np.testing.assert_allclose(got, value, rtol=1e-14)
    np.testing.assert_allclose(d, slope, rtol=1e-12, atol=1e-290)


@pytest.mark.parametrize("loss", [gc.nn.mse, gc.nn.l1, gc.nn.l2, gc.nn.hinge, gc.nn.binary_cross_entropy])
def test_reductions(loss: Any) -> None:
    y, t = gc.matrices("y", "t")
    f = gc.function([y, t], [loss(y, t), loss(y, t, reduction="sum"), loss(y, t, reduction="none")])
    rng = np.random.default_rng(0)
    mean, total, each = f(rng.normal(size=(3, 4)), np.sign(rng.normal(size=(3, 4))))
    assert each.shape == (3, 4)
    np.testing.assert_allclose([mean, total], [each.mean(), each.sum()])
    with pytest.raises(ValueError, match="reduction='men'"):
        loss(y, t, reduction="men")


def test_cross_entropy_is_that_of_the_logits() -> None:
    z, labels = gc.matrix("z"), gc.lvector("labels")
    f = gc.function([z, labels], gc.nn.cross_entropy(z, labels))
    scores = np.array([[1000.0, 0.0, -1000.0], [1.0, 2.0, 3.0]])
    expected = (0.0 + np.log(np.exp([1.0, 2.0, 3.0]).sum()) - 1.0) / 2
    assert float(f(scores, [0, 0])) == pytest.approx(expected)


def test_penalties_of_several_parameters() -> None:
    v, w = gc.shared([1.0, -2.0], "v"), gc.shared([[3.0]], "w")
    assert float(gc.nn.l1([v, w]).eval()) == 6.0
    assert float(gc.nn.l2([v, w]).eval()) == 14.0

"""The four computational graphs of the *Deep Learning* book's figure 6.8, as formula, tree, dump and gradient.

    python examples/book_graphs.py
"""

import numpy as np

import graphc as gc


def product():
    """(a) z = x y."""
    x, y = gc.scalars("x", "y")
    return [x, y], x * y, [x, y], (2.0, 3.0)


def logistic_regression():
    """(b) the prediction sigmoid(x . w + b)."""
    x, w = gc.vectors("x", "w")
    b = gc.scalar("b")
    return [x, w, b], gc.sigmoid(gc.dot(x, w) + b), [w, b], ([1.0, 2.0], [0.5, -0.25], 0.1)


def relu_layer():
    """(c) H = max(0, X W + b): a layer of ReLU units for a minibatch X; its gradient is that of the sum of H."""
    X, W = gc.tensor("X", shape=("batch", "n_in")), gc.tensor("W", shape=("n_in", "n_out"))
    b = gc.tensor("b", shape=("n_out",))
    H = gc.maximum(0.0, X @ W + b)
    return [X, W, b], H, [W, b], (np.eye(2), [[1.0, -1.0], [2.0, 0.5]], [0.25, 0.25])


def regression_with_decay():
    """(d) linear regression whose w is used twice: in the prediction and in the weight decay lambda sum(w²)."""
    x, w = gc.vectors("x", "w")
    lam = gc.scalar("lambda")
    prediction = gc.dot(x, w)
    decay = lam * gc.sum(w ** 2)
    return [x, w, lam], [prediction, decay], [w], ([1.0, 2.0], [0.5, -0.25], 0.1)


def show(graph):
    """Print one of the graphs and what its compiled function gives."""
    inputs, outputs, wrt, values = graph()
    results = outputs if isinstance(outputs, list) else [outputs]
    cost = sum((gc.sum(y) for y in results[1:]), gc.sum(results[0]))
    gradients = gc.grad(cost, wrt)

    print("=" * 100)
    print(graph.__doc__)
    print("formula")
    for y in results:
        print("   ", gc.pretty(y))
    print("\ntree")
    gc.debugprint(results)
    f = gc.function(inputs, [*results, *gradients], name=graph.__name__)
    print("\ncompiled, with the gradient for", ", ".join(v.name for v in wrt))
    print(f.dump("final"))
    answers = f(*values)
    for label, answer in zip([*(f"result {i}" for i in range(len(results))), *(f"d/d{v.name}" for v in wrt)], answers, strict=True):
        print(f"{label:9} = {np.array2string(answer, precision=4)}")
    return answers


GRAPHS = [product, logistic_regression, relu_layer, regression_with_decay]

if __name__ == "__main__":
    for graph in GRAPHS:
        show(graph)

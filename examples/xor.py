"""XOR with one hidden ReLU layer (*Deep Learning* book, section 6.1): the solution known in advance, and one learned.

    python examples/xor.py
"""

import numpy as np

import graphc as gc

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype="float64")
T = np.array([0, 1, 1, 0], dtype="float64")


def network(W, c, w, b):
    """f(x) = w . max(0, x W + c) + b as a function of x and its parameters."""
    x = gc.tensor("x", shape=("n", 2))
    return x, gc.nn.relu(x @ W + c) @ w + b


def closed_form():
    """The parameters of the book: no training."""
    W, c = np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([0.0, -1.0])
    w, b = np.array([1.0, -2.0]), 0.0
    x, y = network(W, c, w, b)
    f = gc.function([x], y, name="closed_form")
    print("closed form:", f(X))
    return f(X)


def learned(seed=0, hidden=8, steps=500):
    """The same network, a little wider, with parameters found by gradient descent with momentum."""
    rng = np.random.default_rng(seed)
    W = gc.shared(gc.init.he_normal((2, hidden), rng), "W")
    c = gc.shared(np.full(hidden, 0.1), "c")  # slightly positive: no unit starts dead
    w = gc.shared(rng.normal(0.0, 0.5, hidden), "w")
    b = gc.shared(0.0, "b")
    x, y = network(W, c, w, b)
    t = gc.tensor("t", shape=("n",))
    loss = gc.nn.mse(y, t)
    optimiser = gc.optim.momentum(lr=0.1, momentum=0.9)
    step = gc.function([x, t], loss, updates=optimiser.updates(loss, [W, c, w, b]), name="step")
    for i in range(steps):
        now = float(step(X, T))
        if i % 100 == 0 or i == steps - 1:
            print(f"step {i:3d}  mean squared error {now:.3g}")
    result = gc.function([x], y, name="learned")(X)
    print("learned:    ", np.round(result, 4))
    return result


if __name__ == "__main__":
    closed_form()
    learned()

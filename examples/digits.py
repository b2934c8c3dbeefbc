"""Train a classifier on handwritten digits: define, compile once, train, validate, look inside.

    graphc demo                          (or: python examples/digits.py [folder for the results])

The data are the 1797 images of 8 x 8 pixels that scikit-learn ships.
"""

import sys
import time
from pathlib import Path

import numpy as np

import graphc as gc
from graphc.reporting import print_report

EPOCHS, BATCH = 40, 64


def load_data():
    """Three parts, in a fixed random order: train, validation, test.  Pixels in [0, 1]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("this example needs scikit-learn: pip install 'graphc[examples]'")
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 16.0).astype("float32"), labels[order]
    return (images[:1200], labels[:1200]), (images[1200:1440], labels[1200:1440]), (images[1440:], labels[1440:])


def define():
    """The graph: 64 pixels -> 128 ReLU units -> 10 scores.  Nothing is computed here."""
    rng = np.random.default_rng(1)
    w1 = gc.shared(gc.init.he_normal((64, 128), rng, dtype="float32"), "w1")
    b1 = gc.shared(gc.init.zeros(128, dtype="float32"), "b1")
    w2 = gc.shared(gc.init.glorot_uniform((128, 10), rng, dtype="float32"), "w2")
    b2 = gc.shared(gc.init.zeros(10, dtype="float32"), "b2")

    x = gc.tensor("x", shape=("batch", 64), dtype="float32")
    t = gc.tensor("t", shape=("batch",), dtype="int64")
    hidden = gc.nn.relu(x @ w1 + b1)
    scores = hidden @ w2 + b2
    loss = gc.nn.cross_entropy(scores, t)
    accuracy = gc.mean(gc.equal(gc.argmax(scores, axis=1), t))
    return x, t, loss, accuracy, [w1, b1, w2, b2]


def main(folder="out/digits"):
    folder = Path(folder)
    train, validation, test = load_data()
    x, t, loss, accuracy, params = define()

    # compile once: `step` also moves the parameters, `evaluate` only looks
    rate = gc.optim.schedule.cosine(3e-3, steps=EPOCHS * (len(train[0]) // BATCH))
    optimiser = gc.optim.adam(lr=rate, weight_decay=1e-4)
    started = time.perf_counter()
    step = gc.function([x, t], loss, updates=optimiser.updates(loss, params), name="step")
    evaluate = gc.function([x, t], {"loss": loss, "accuracy": accuracy}, name="evaluate")
    print(f"compiled 2 functions in {time.perf_counter() - started:.2f} s")
    print_report(step)

    # train over shuffled minibatches
    rng = np.random.default_rng(2)
    curve = []
    started = time.perf_counter()
    with Bar(EPOCHS) as bar:
        for _ in range(EPOCHS):
            order = rng.permutation(len(train[0]))
            losses = [float(step(train[0][rows], train[1][rows])) for rows in batches(order)]
            seen = evaluate(*validation)
            curve.append((np.mean(losses), float(seen["loss"])))
            bar.advance(f"loss {curve[-1][0]:.4f}  validation loss {curve[-1][1]:.4f}  accuracy {float(seen['accuracy']):.2%}")
    print(f"trained {EPOCHS} epochs in {time.perf_counter() - started:.2f} s")

    # results
    folder.mkdir(parents=True, exist_ok=True)
    step.dump("final", file=folder / "step.final.gc")
    if step.backend == "numpy":
        step.dump("source", file=folder / "step.source.py")
    draw(curve, folder / "loss.png")
    result = float(evaluate(*test)["accuracy"])
    print(f"test accuracy {result:.2%} on {len(test[0])} images that training never saw")
    print(f"dump and loss curve are in {folder.resolve()}: {', '.join(sorted(p.name for p in folder.iterdir()))}")
    return result


def batches(order):
    """The rows of each minibatch; a short rest is left out (the next epoch shuffles anew)."""
    return [order[i:i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)]


class Bar:
    """A progress bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.progress = Progress(TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        self.progress.disable = not self.progress.console.is_terminal
        self.task, self.done, self.total = self.progress.add_task("", total=total), 0, total

    def advance(self, text):
        self.done += 1
        self.progress.update(self.task, advance=1, description=text)
        if self.progress.disable and (self.done % 10 == 0 or self.done in (1, self.total)):
            print(f"epoch {self.done:3d}/{self.total}  {text}")

    def __enter__(self):
        self.progress.__enter__()
        return self

    def __exit__(self, *error):
        self.progress.__exit__(*error)


def draw(curve, file):
    """The loss curve, where matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        return print("no loss curve: matplotlib is not installed")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.semilogy(range(1, len(curve) + 1), curve, label=["training", "validation"])
    axes.set(xlabel="epoch", ylabel="cross entropy", title="handwritten digits, 64-128-10")
    axes.legend()
    figure.savefig(file, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:2])

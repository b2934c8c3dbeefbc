"""How six optimisers walk down f(x, y) = x²/20 + y² from (-7, 2), with a plot of their paths.

    python examples/optimisers.py [picture.png]
"""

import sys

import numpy as np

import graphc as gc

START, STEPS = (-7.0, 2.0), 60

OPTIMISERS = {
    "SGD": lambda: gc.optim.sgd(lr=0.9),
    "momentum": lambda: gc.optim.momentum(lr=0.1, momentum=0.9),
    "Nesterov": lambda: gc.optim.nesterov(lr=0.1, momentum=0.9),
    "AdaGrad": lambda: gc.optim.adagrad(lr=1.5),
    "RMSProp": lambda: gc.optim.rmsprop(lr=0.2, rho=0.9),
    "Adam": lambda: gc.optim.adam(lr=0.5),
}


def path(optimiser, steps=STEPS):
    """The points that one optimiser visits, and f at each: arrays of shape (steps + 1, 2) and (steps + 1,)."""
    p = gc.shared(np.array(START), "p")
    f = p[0] ** 2 / 20 + p[1] ** 2
    step = gc.function([], f, updates=optimiser.updates(f, [p]), name="step")
    look = gc.function([], f, name="look")
    points, heights = [p.get_value()], [float(look())]
    for _ in range(steps):
        step()
        points.append(p.get_value())
        heights.append(float(look()))
    return np.array(points), np.array(heights)


def main(picture="out/optimisers.png"):
    paths = {}
    print(f"{'':10}{'after 10':>14}{'after 30':>14}{f'after {STEPS}':>14}   end point")
    for name, make in OPTIMISERS.items():
        points, heights = paths[name] = path(make())
        print(f"{name:10}{heights[10]:14.3g}{heights[30]:14.3g}{heights[-1]:14.3g}   ({points[-1][0]:+.4f}, {points[-1][1]:+.4f})")
    draw({name: points for name, (points, _) in paths.items()}, picture)
    return paths


def draw(paths, picture):
    """The paths over the contours of f, where matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        return print("no picture: matplotlib is not installed")
    matplotlib.use("Agg")
    from pathlib import Path

    from matplotlib import pyplot

    xs, ys = np.meshgrid(np.linspace(-10, 10, 200), np.linspace(-4, 4, 200))
    figure, every = pyplot.subplots(2, 3, figsize=(12, 6), sharex=True, sharey=True)
    for axes, (name, points) in zip(every.flat, paths.items(), strict=True):
        axes.contour(xs, ys, xs ** 2 / 20 + ys ** 2, levels=np.geomspace(0.05, 20, 10), colors="silver", linewidths=0.7)
        axes.plot(*points.T, ".-", markersize=3, linewidth=0.8)
        axes.plot(0, 0, "r+")
        axes.set(title=name, xlim=(-10, 10), ylim=(-4, 4))
    figure.tight_layout()
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)
    print("picture:", Path(picture).resolve())


if __name__ == "__main__":
    main(*sys.argv[1:2])

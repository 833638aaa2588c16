"""Memory and speed of the stages over their work, as an image."""

import math
from collections.abc import Mapping
from pathlib import Path

from benchmarks.scale.watch import Watched

WINDOW = 15.0
"""Seconds over which the speed is taken."""
POINTS = 4
"""Speeds that make a curve."""
COLUMNS = 5


def draw(done: Mapping[str, Watched], path: Path) -> None:
    """Write an image with memory above speed for each stage that counts images or steps and takes a
    while.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = {name: found for name, found in done.items() if len(speeds(found)) >= POINTS}
    if not shown:
        return
    lines = math.ceil(len(shown) / COLUMNS)
    columns = math.ceil(len(shown) / lines)
    figure, axes = plt.subplots(
        2 * lines,
        columns,
        figsize=(2.4 * columns, 3.6 * lines),
        squeeze=False,
        layout="constrained",
    )
    for number, (name, found) in enumerate(shown.items()):
        above, below = axes[2 * (number // columns) :][:2, number % columns]
        seconds, rates = zip(*speeds(found), strict=True)
        above.plot(
            [s.seconds for s in found.samples], [s.memory / 2**30 for s in found.samples], lw=1
        )
        above.set(title=name, ylim=(0, 1.1 * found.peak / 2**30))
        below.plot(seconds, rates, lw=1)
        below.set(xlabel="seconds", ylim=(0, 1.1 * max(rates)))
    for ax in axes.flat:
        ax.set_visible(ax.has_data())
    for above, below in zip(axes[::2, 0], axes[1::2, 0], strict=True):
        above.set_ylabel("memory, GB")
        below.set_ylabel("a second")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def speeds(found: Watched) -> list[tuple[float, float]]:
    """(seconds, images or steps a second) over windows; none of work shorter than one."""
    points: list[tuple[float, float]] = []
    if not (working := found.working):
        return points
    last = working[0]
    for sample in working:
        if sample.seconds - last.seconds >= WINDOW:
            points.append(
                (sample.seconds, (sample.done - last.done) / (sample.seconds - last.seconds))
            )
            last = sample
    return points

"""Memory and speed of the stages over their work, as a picture."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.scale.watch import Watched

WINDOW = 15.0
"""Seconds over which the speed is taken."""


def draw(done: Mapping[str, Watched], path: Path) -> None:
    """Write a picture with a column for each stage that counts pictures: memory above, speed below."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = {name: found for name, found in done.items() if found.total > 1}
    if not shown:
        return
    figure, axes = plt.subplots(
        2, len(shown), figsize=(2.6 * len(shown), 4.2), squeeze=False, layout="constrained"
    )
    for (name, found), (above, below) in zip(shown.items(), axes.T, strict=True):
        above.plot([s.seconds for s in found.samples], [s.memory / 2**30 for s in found.samples], lw=1)
        above.set(title=name, ylim=(0, None))
        below.plot(*zip(*speeds(found), strict=True), lw=1)
        below.set(xlabel="seconds", ylim=(0, None))
    axes[0, 0].set_ylabel("memory, GB")
    axes[1, 0].set_ylabel("a second")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def speeds(found: Watched) -> list[tuple[float, float]]:
    """(seconds, pictures or steps a second) over windows; a single zero where the work was too short."""
    points, last = [], found.samples[0]
    for sample in found.samples:
        if sample.seconds - last.seconds >= WINDOW:
            points.append((sample.seconds, (sample.done - last.done) / (sample.seconds - last.seconds)))
            last = sample
    return points or [(0.0, 0.0)]

"""The large bodies that all classes share: shapes, colours, patterns and feet.

A body lies around the origin with half length 1 along x; its part sits near x = 1.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.datasets.scenes.canvas import Colour
from pipeline.datasets.scenes.outlines import bean, capsule, ellipse, superellipse

SHAPES: tuple[str, ...] = ("ellipse", "box", "bean", "capsule")
PATTERNS: tuple[str, ...] = ("plain", "stripes", "spots", "belly", "saddle")

# Muted, where the parts are vivid, so that no body passes for a part.
PALETTE: tuple[Colour, ...] = (
    (236, 222, 196),  # cream
    (206, 168, 150),  # clay
    (168, 186, 160),  # sage
    (150, 172, 190),  # dove blue
    (186, 170, 196),  # lilac
    (142, 128, 124),  # taupe
    (112, 132, 138),  # slate
    (206, 204, 204),  # pearl
    (122, 106, 128),  # plum
    (196, 180, 132),  # straw
)


@dataclass(frozen=True)
class Body:
    """One body: `shape`, `height` (half height, unit half length), `pattern` and whether it has `feet`."""

    shape: str
    height: float
    pattern: str
    feet: bool

    def outline(self) -> np.ndarray:
        """Outline [n,2] without feet."""
        match self.shape:
            case "ellipse":
                return superellipse(1.0, self.height, 2.0)
            case "box":
                return superellipse(1.0, self.height * 0.92, 4.0)
            case "bean":
                return bean(1.0, self.height * 0.92, 0.22)
            case "capsule":
                return capsule(1.0, self.height * 0.9)
        raise ValueError(f"shape is {self.shape!r}; use one of {', '.join(SHAPES)}")

    def foot_outlines(self) -> list[np.ndarray]:
        """Outlines of the feet below the body, none for a body without."""
        if not self.feet:
            return []
        return [ellipse(x, self.height * 0.86, 0.2, 0.2) for x in (-0.5, 0.5)]


def draw_body(rng: np.random.Generator) -> Body:
    """A random body; nothing of it depends on a class."""
    return Body(
        shape=str(rng.choice(SHAPES)),
        height=float(rng.uniform(0.52, 0.72)),
        pattern=str(rng.choice(PATTERNS)),
        feet=bool(rng.random() < 0.6),
    )


def pattern_outlines(body: Body) -> list[np.ndarray]:
    """Shapes of the body's pattern; they may reach beyond its outline."""
    high = body.height
    match body.pattern:
        case "plain":
            return []
        case "stripes":
            xs = np.linspace(-0.9, 0.7, 5)
            return [np.array([(x, -1.2), (x + 0.17, -1.2), (x + 0.17, 1.2), (x, 1.2)]) for x in xs]
        case "spots":
            spots = (
                (-0.7, -0.1),
                (-0.4, 0.45),
                (-0.32, -0.5),
                (0.0, 0.05),
                (0.34, 0.55),
                (0.42, -0.35),
                (0.7, 0.2),
            )
            return [ellipse(x, y * high, 0.12, 0.12) for x, y in spots]
        case "belly":
            return [ellipse(0.0, 0.75 * high, 0.85, 0.55 * high)]
        case "saddle":
            return [ellipse(-0.12, -0.95 * high, 0.48, 0.85 * high)]
    raise ValueError(f"pattern is {body.pattern!r}; use one of {', '.join(PATTERNS)}")

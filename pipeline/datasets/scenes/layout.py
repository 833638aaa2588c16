"""Where toys stand: touching friends, occlusion, and nobody nearly hidden."""

from dataclasses import dataclass

import numpy as np

from pipeline.datasets.scenes.toys import Toy, draw_toy, silhouettes

SIZES: tuple[tuple[int, int], ...] = ((192, 192), (160, 224), (224, 160), (176, 208), (208, 176), (144, 192))

_COUNTS = (0.2, 0.32, 0.28, 0.2)  # one to four toys
_LENGTHS = (
    (0.50, 0.60),
    (0.44, 0.55),
    (0.39, 0.48),
    (0.35, 0.43),
)  # of the square root of the picture's area
_SAME = 0.42  # a further toy is of the class of the one before
_ATTEMPTS = 40


@dataclass
class _Standing:
    """Toys placed so far, later ones in front, and the pixels each shows."""

    toys: list[Toy]
    wholes: list[np.ndarray]
    parts: list[np.ndarray]

    def push(self, toy: Toy, whole: np.ndarray, part: np.ndarray) -> None:
        """Let the toy stand in front of all others."""
        self.toys.append(toy)
        self.wholes.append(whole)
        self.parts.append(part)

    def add(self, toy: Toy, whole: np.ndarray, part: np.ndarray, most: float) -> bool:
        """Let the toy stand in front unless it leaves the picture or hides more than `most` of anybody."""
        if not _lies_inside(toy, *whole.shape):
            return False
        hidden = whole
        for other, other_part in zip(reversed(self.wholes), reversed(self.parts), strict=True):
            if _share(other & whole, other) > most or _share(other & ~hidden, other) < 0.45:
                return False
            if _share(other_part & ~hidden, other_part) < 0.7:
                return False
            hidden = hidden | other
        self.push(toy, whole, part)
        return True


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(np.count_nonzero(part)) / max(1, int(np.count_nonzero(whole)))


def draw_count(rng: np.random.Generator) -> int:
    """Number of toys a picture asks for, 1 to 4."""
    return int(rng.choice(len(_COUNTS), p=_COUNTS)) + 1


def draw_labels(rng: np.random.Generator, count: int, classes: int) -> list[int]:
    """Classes of `count` toys, often like the one before."""
    labels = [int(rng.integers(classes))]
    while len(labels) < count:
        repeat = rng.random() < _SAME
        other = int(rng.integers(classes))
        labels.append(labels[-1] if repeat else other)
    return labels


def arrange(rng: np.random.Generator, labels: list[int], height: int, width: int) -> list[Toy]:
    """Toys of the given classes in a picture of `height` x `width` units, back to front.

    Each shows at least 45 % of its area and 70 % of its part; one that finds no such place is left out, the
    first always stands. Toys of one class often touch.
    """
    low, high = _LENGTHS[len(labels) - 1]
    side = float(np.sqrt(height * width))
    standing = _Standing([], [], [])
    for label in labels:
        toy = draw_toy(rng, label, 0.5 * side * float(rng.uniform(low, high)))
        beside = bool(standing.toys) and standing.toys[-1].label == label and rng.random() < 0.7
        if beside and _stand_beside(rng, standing, toy, height, width):
            continue
        _stand_anywhere(rng, standing, toy, height, width)
    return standing.toys


def _stand_beside(rng: np.random.Generator, standing: _Standing, toy: Toy, height: int, width: int) -> bool:
    """Push the toy from some side towards the last one until they touch."""
    friend, target = standing.toys[-1], standing.wholes[-1]
    for _ in range(_ATTEMPTS // 2):
        angle = rng.uniform(0, 2 * np.pi)
        away = np.array([np.cos(angle), np.sin(angle)])
        for reach in np.arange(1.25, 0.5, -0.08) * (friend.length + toy.length):
            x, y = away * reach + (friend.x, friend.y)
            candidate = toy.at(float(x), float(y))
            whole, part = silhouettes(candidate, height, width, 1.0)
            if (whole & target).any():
                if standing.add(candidate, whole, part, most=0.2):
                    return True
                break
    return False


def _stand_anywhere(rng: np.random.Generator, standing: _Standing, toy: Toy, height: int, width: int) -> None:
    """Try places until one suits the toy and everybody behind it."""
    most = float(rng.choice([0.0, 0.15, 0.4]))
    margin = 0.62 * toy.length
    for attempt in range(_ATTEMPTS):
        x, y = rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)
        candidate = toy.at(float(x), float(y))
        whole, part = silhouettes(candidate, height, width, 1.0)
        # half of the attempts keep to the wish, the others take what fits
        if standing.add(candidate, whole, part, most if attempt < _ATTEMPTS // 2 else 0.4):
            return
    if not standing.toys:
        candidate = toy.at(width / 2, height / 2)
        standing.push(candidate, *silhouettes(candidate, height, width, 1.0))


def _lies_inside(toy: Toy, height: int, width: int) -> bool:
    """Whether the whole part and at least 80 % of the body's outline lie in the picture."""
    part = np.concatenate([points for points, _ in toy.part_pieces])
    if part.min() < 2 or part[:, 0].max() > width - 2 or part[:, 1].max() > height - 2:
        return False
    outline = toy.body_polygons[-1]
    held = ((outline >= 0) & (outline <= (width, height))).all(1)
    return bool(held.mean() >= 0.8)

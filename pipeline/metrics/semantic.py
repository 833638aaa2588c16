"""Scores of semantic label maps: every number is a ratio of one confusion count.

Label maps are uint8: 0 background, c + 1 class c, 255 ignore. Counts are int64 and add up over
images and ranks, so nothing here grows with the number of images.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.core.artifacts import IGNORE


def count(truth: np.ndarray, prediction: np.ndarray, labels: int) -> np.ndarray:
    """Count the pixels of one image by true and predicted label.

    truth, prediction: uint8 [H,W]. Pixels whose truth is 255 are left out; a predicted 255 counts
    as background, as in the authors' evaluation of IRNet. labels: number of labels, background
    included. Returns int64 [labels,labels], rows truth, columns prediction. Raises ValueError for
    unequal shapes, other dtypes and labels that do not exist.
    """
    for name, array in (("truth", truth), ("prediction", prediction)):
        if array.dtype != np.uint8 or array.ndim != 2:
            raise ValueError(
                f"{name} must be a uint8 label map [H,W]; got {array.dtype} {array.shape}"
            )
    if truth.shape != prediction.shape:
        raise ValueError(
            f"truth {truth.shape} and prediction {prediction.shape} differ in size; "
            "both must have the upright size of the image"
        )
    pairs = truth.astype(np.uint16) << 8 | prediction
    table = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)[:IGNORE]
    table[:, 0] += table[:, IGNORE]
    for name, strange in (
        ("truth", table[labels:].sum(1)),
        ("prediction", table[:, labels:IGNORE].sum(0)),
    ):
        if strange.any():
            value = labels + int(strange.argmax())
            raise ValueError(
                f"{name} holds label {value}, but the labels are 0..{labels - 1} and 255 (ignore)"
            )
    return table[:labels, :labels]


def intersection_over_union(counts: np.ndarray) -> np.ndarray:
    """IoU per label, true positives / (truth + prediction - true positives).

    counts: integers [...,L,L], rows truth, columns prediction. Returns float64 [...,L]; NaN for a
    label that is in neither.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return _ratio(hits, counts.sum(-1) + counts.sum(-2) - hits)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Mean IoU over the labels that are in truth or prediction, background included.

    counts: integers [...,L,L]. Returns float64 [...]; NaN where nothing was counted.
    """
    ious = intersection_over_union(counts)
    return _ratio(np.nansum(ious, -1), np.isfinite(ious).sum(-1))


def image_row(name: str, counts: np.ndarray) -> dict[str, str | float | None]:
    """One row of the per-image table.

    counts: int64 [L,L] of one image. `miou` is the mean over the labels in that image (truth or
    prediction), `foreground_iou` the IoU of all classes taken as one. None where nothing was
    counted.
    """
    foreground = counts[1:, 1:].sum()
    union = counts.sum() - counts[0, 0]
    return {
        "id": name,
        "miou": _plain(mean_iou(counts)),
        "foreground_iou": _plain(_ratio(foreground, union)),
    }


class Confusion:
    """The confusion count of a set of images and the scores that follow from it.

    `counts` is int64 [C+1,C+1], rows truth, columns prediction, label 0 the background. Ranks are
    merged by `merge`, or by summing `counts`.
    """

    def __init__(self, classes: Sequence[str], counts: np.ndarray | None = None) -> None:
        """classes: names without background, at most 254; counts: an earlier count to go on from."""
        labels = len(classes) + 1
        if labels > IGNORE:
            raise ValueError(f"{len(classes)} classes do not fit a uint8 label map; at most 254 do")
        self.classes = tuple(classes)
        self.counts = (
            np.zeros((labels, labels), np.int64) if counts is None else counts.astype(np.int64)
        )
        if self.counts.shape != (labels, labels):
            raise ValueError(
                f"counts are {self.counts.shape}, but {len(classes)} classes need {(labels, labels)}"
            )

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Count one image (see `count`) and return its own counts, int64 [C+1,C+1]."""
        counts = count(truth, prediction, len(self.counts))
        self.counts += counts
        return counts

    def merge(self, other: "Confusion") -> None:
        """Add the count of another rank; ValueError when its classes differ."""
        _same_classes(self.classes, other.classes)
        self.counts += other.counts

    @property
    def miou(self) -> float:
        """Mean IoU over the labels in truth or prediction, background included; NaN before any
        pixel.
        """
        return float(mean_iou(self.counts))

    def scores(self) -> dict:
        """All scores, ready for JSON: None stands for a ratio of nothing.

        `miou`, `pixel_accuracy`, `precision` and `recall` (means over the labels where they exist)
        and `per_class`: name -> iou, precision, recall, `background` first.
        """
        hits = np.diagonal(self.counts)
        ious = intersection_over_union(self.counts)
        precisions = _ratio(hits, self.counts.sum(0))
        recalls = _ratio(hits, self.counts.sum(1))
        names = ("background", *self.classes)
        return {
            "miou": _plain(mean_iou(self.counts)),
            "pixel_accuracy": _plain(_ratio(hits.sum(), self.counts.sum())),
            "precision": _plain(_mean(precisions)),
            "recall": _plain(_mean(recalls)),
            "per_class": {
                name: {"iou": _plain(i), "precision": _plain(p), "recall": _plain(r)}
                for name, i, p, r in zip(names, ious, precisions, recalls, strict=True)
            },
        }


def threshold_grid(*extra: float) -> tuple[float, ...]:
    """Background thresholds 0.01, 0.02, ..., 0.99 and any others that must be on the curve, sorted."""
    for value in extra:
        if not 0 <= value <= 1:
            raise ValueError(f"threshold {value} is outside [0, 1]")
    return tuple(sorted({round(0.01 * i, 2) for i in range(1, 100)} | set(extra)))


def assign(cams: np.ndarray, labels: Iterable[int], threshold: float) -> np.ndarray:
    """Label map of class maps: argmax with the background constant `threshold` put first.

    cams: float [K,H,W]; labels: K class ids. Returns uint8 [H,W]. On a tie the background wins,
    then the class that comes first (IRNet, eval_cam).
    """
    winner, value = _winners(cams)
    table = np.asarray([*labels], np.uint8) + np.uint8(1)
    if not len(table):
        return np.zeros(cams.shape[1:], np.uint8)
    return np.where(value > np.float32(threshold), table[winner], np.uint8(0))


class ThresholdCurve:
    """The confusion counts of class maps at every background threshold, in one pass over each
    image.

    A pixel is foreground at exactly the thresholds below its highest map, and its class does not
    depend on the threshold; so a histogram by (truth, winning class, number of thresholds below the
    value) holds all counts. `histogram`: int64 [C+1,C,T+1]; ranks are merged by `merge`, or by
    summing it.
    """

    def __init__(self, classes: Sequence[str], thresholds: Sequence[float] | None = None) -> None:
        """classes: names without background, 1 to 254; thresholds: increasing, default
        `threshold_grid()`.
        """
        self.classes = tuple(classes)
        self.thresholds = tuple(threshold_grid() if thresholds is None else thresholds)
        self._levels = np.asarray(self.thresholds, np.float32)
        if not len(self._levels) or (np.diff(self._levels) <= 0).any():
            raise ValueError(f"thresholds must increase and not be empty; got {self.thresholds}")
        if not 1 <= len(self.classes) < IGNORE:
            raise ValueError(f"a curve needs 1 to 254 classes, got {len(self.classes)}")
        C = len(self.classes)
        self.histogram = np.zeros((C + 1, C, len(self.thresholds) + 1), np.int64)

    def add(self, truth: np.ndarray, cams: np.ndarray, labels: Iterable[int]) -> None:
        """Count one image.

        truth: uint8 [H,W]; cams: float [K,H,W] at the size of the image, compared in float32;
        labels: K different class ids. K may be 0: all background. Raises ValueError for other
        shapes, NaN and unknown labels.
        """
        ids = np.asarray([*labels], np.intp)
        C, L = len(self.classes), len(self._levels) + 1
        if (
            len(ids) != len(cams)
            or len(set(ids.tolist())) != len(ids)
            or ((ids < 0) | (ids >= C)).any()
        ):
            raise ValueError(
                f"labels {ids.tolist()} do not name {len(cams)} different maps of {C} classes"
            )
        if truth.shape != cams.shape[1:]:
            raise ValueError(
                f"cams {cams.shape} do not have the size of the truth {truth.shape}; upsample them first"
            )
        winner, value = _winners(cams)
        level = np.searchsorted(self._levels, value, side="left")
        known = truth != IGNORE
        if (truth[known] > C).any():
            raise ValueError(
                f"truth holds label {truth[known].max()}, but the labels are 0..{C} and 255 (ignore)"
            )
        K = max(len(ids), 1)
        flat = (truth.astype(np.intp) * K + winner) * L + level
        counts = np.bincount(flat[known], minlength=(C + 1) * K * L).reshape(C + 1, K, L)
        self.histogram[:, ids if len(ids) else [0]] += counts

    def merge(self, other: "ThresholdCurve") -> None:
        """Add the histogram of another rank; ValueError when classes or thresholds differ."""
        _same_classes(self.classes, other.classes)
        if self.thresholds != other.thresholds:
            raise ValueError("curves with different thresholds cannot be merged")
        self.histogram += other.histogram

    def counts(self) -> np.ndarray:
        """Confusion counts at all thresholds, int64 [T,C+1,C+1], rows truth, columns prediction."""
        above = self.histogram[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
        background = self.histogram.sum((1, 2))[:, None] - above.sum(1)
        return np.concatenate([background[:, None], above], 1).transpose(2, 0, 1)

    def curve(self) -> list[dict[str, float | None]]:
        """One row a threshold: `threshold` and `miou`."""
        scores = mean_iou(self.counts())
        return [
            {"threshold": t, "miou": _plain(s)}
            for t, s in zip(self.thresholds, scores, strict=True)
        ]

    def best(self) -> tuple[float, float]:
        """(threshold, mIoU) of the highest mIoU, the lowest such threshold; a score, never a
        setting.
        """
        scores = mean_iou(self.counts())
        if np.isnan(scores).all():
            raise ValueError("the curve is empty: no image with truth was added")
        index = int(np.nanargmax(scores))
        return self.thresholds[index], float(scores[index])

    def at(self, threshold: float) -> Confusion:
        """The confusion at a threshold of the grid; ValueError for any other (see
        `threshold_grid`).
        """
        if threshold not in self.thresholds:
            raise ValueError(
                f"threshold {threshold} is not on the grid; build it with threshold_grid({threshold})"
            )
        return Confusion(self.classes, self.counts()[self.thresholds.index(threshold)])


def _winners(cams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index (intp [H,W]) and value (float32 [H,W]) of the highest map; without maps 0 and -inf."""
    if cams.ndim != 3:
        raise ValueError(f"cams must be [K,H,W], got {cams.shape}")
    if not len(cams):
        return np.zeros(cams.shape[1:], np.intp), np.full(cams.shape[1:], -np.inf, np.float32)
    maps = cams.astype(np.float32, copy=False)
    value = maps.max(0)
    if np.isnan(value).any():
        raise ValueError("cams hold NaN; make them again")
    return maps.argmax(0), value


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(
        part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0
    )


def _mean(values: np.ndarray) -> np.ndarray:
    return _ratio(np.nansum(values), np.isfinite(values).sum())


def _plain(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def ratio(part: float, whole: float) -> float | None:
    """part / whole, None where that is nothing."""
    return _plain(_ratio(np.asarray(part), np.asarray(whole)))


def _same_classes(mine: tuple[str, ...], other: tuple[str, ...]) -> None:
    if mine != other:
        raise ValueError(f"scores of different classes cannot be merged: {mine} and {other}")

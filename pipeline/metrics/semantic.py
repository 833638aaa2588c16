"""Scores of semantic label maps: every number is a ratio of entries of one confusion matrix.

Label maps are uint8: 0 background, c + 1 class c, 255 ignore. Counts are int64 and add up over
images, so memory does not grow with their number.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.core.artifacts import IGNORE


def count(truth: np.ndarray, prediction: np.ndarray, labels: int) -> np.ndarray:
    """Return the confusion matrix of one image, int64 [labels,labels], rows truth, columns
    prediction.

    Args:
        truth: uint8 [H,W]; pixels of 255 are ignored.
        prediction: uint8 [H,W]; 255 counts as background, as in the authors' evaluation of IRNet.
        labels: number of labels, background included.

    Raises:
        ValueError: for unequal shapes and labels that do not exist.
    """
    if truth.shape != prediction.shape:
        raise ValueError(
            f"truth {truth.shape} and prediction {prediction.shape} differ in size; both must have "
            "the image's size after EXIF rotation"
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
                f"{name} has label {value}, but the labels are 0..{labels - 1} and 255 (ignore)"
            )
    return table[:labels, :labels]


def intersection_over_union(counts: np.ndarray) -> np.ndarray:
    """Return the IoU per label, true positives / (truth + prediction - true positives).

    counts: integers [...,L,L], rows truth, columns prediction. Returns float64 [...,L]; NaN for a
    label that is in neither.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return _ratio(hits, counts.sum(-1) + counts.sum(-2) - hits)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Return the mean IoU over the labels in truth or prediction, background included.

    counts: integers [...,L,L]. Returns float64 [...]; NaN where nothing was counted.
    """
    ious = intersection_over_union(counts)
    return _ratio(np.nansum(ious, -1), np.isfinite(ious).sum(-1))


def miou_interval(counts: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mIoU of a larger set that images were drawn from.

    Percentiles of the mIoU over images that are drawn again, with replacement (bootstrap; Efron,
    1979).

    Args:
        counts: integers [N,L,L] of N images, rows truth, columns prediction.
        draws: how often they are drawn again.
    """
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws)
    low, high = np.nanpercentile(mean_iou(np.tensordot(weights, counts, 1)), [2.5, 97.5])
    return float(low), float(high)


def image_row(name: str, counts: np.ndarray) -> dict[str, str | float | None]:
    """Return one row of the per-image table: `id`, `miou`, the mean over the labels in that image
    (truth or prediction), and `foreground_iou`, the IoU of all classes taken as one.

    counts: int64 [L,L] of the image; None stands for a ratio of nothing.
    """
    foreground = counts[1:, 1:].sum()
    union = counts.sum() - counts[0, 0]
    return {
        "id": name,
        "miou": _plain(mean_iou(counts)),
        "foreground_iou": _plain(_ratio(foreground, union)),
    }


class Confusion:
    """The confusion matrix of a set of images and the scores that follow from it.

    `counts` is int64 [C+1,C+1], rows truth, columns prediction, label 0 the background; `images`
    int64 [3,C+1] the images with a label in both, in the truth, and in the prediction.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """classes: names without background, at most 254."""
        self.classes = tuple(classes)
        self.counts = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
        self.images = np.zeros((3, len(classes) + 1), np.int64)

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Add one image (see `count`) and return its own counts, int64 [C+1,C+1]."""
        counts = count(truth, prediction, len(self.counts))
        self.counts += counts
        true, predicted = counts.any(1), counts.any(0)
        self.images += np.stack([true & predicted, true, predicted])
        return counts

    @property
    def miou(self) -> float:
        """Mean IoU over the labels in truth or prediction; NaN without pixels."""
        return float(mean_iou(self.counts))

    def scores(self) -> dict:
        """Return all scores, ready for JSON; None stands for a ratio of nothing.

        `miou`, `pixel_accuracy`, `precision` and `recall` (means over the labels where they exist)
        and `per_class`: name -> iou, precision, recall, and the latter two of images, which have a
        class if a pixel has it; `background` first.
        """
        hits = np.diagonal(self.counts)
        ious = intersection_over_union(self.counts)
        precisions = _ratio(hits, self.counts.sum(0))
        recalls = _ratio(hits, self.counts.sum(1))
        both, true, predicted = self.images
        columns = {
            "iou": ious,
            "precision": precisions,
            "recall": recalls,
            "image_precision": _ratio(both, predicted),
            "image_recall": _ratio(both, true),
        }
        return {
            "miou": _plain(mean_iou(self.counts)),
            "pixel_accuracy": _plain(_ratio(hits.sum(), self.counts.sum())),
            "precision": _plain(_mean(precisions)),
            "recall": _plain(_mean(recalls)),
            "per_class": {
                name: {column: _plain(values[label]) for column, values in columns.items()}
                for label, name in enumerate(("background", *self.classes))
            },
        }


def threshold_grid(*extra: float) -> tuple[float, ...]:
    """Return the background thresholds 0.01, 0.02, ..., 0.99 and those in `extra`, sorted."""
    return tuple(sorted({round(0.01 * i, 2) for i in range(1, 100)} | set(extra)))


class ThresholdCurve:
    """The confusion matrices of class maps at all background thresholds, in one pass per image.

    A pixel is foreground at exactly the thresholds below its highest map, and its class does not
    depend on the threshold; so `histogram`, int64 [C+1,C,T+1], by (truth, winning class, number of
    thresholds below the value) holds all counts.
    """

    def __init__(self, classes: Sequence[str], thresholds: Sequence[float]) -> None:
        """classes: names without background, 1 to 254; thresholds: increasing."""
        self.classes, self.thresholds = tuple(classes), tuple(thresholds)
        self._levels = np.asarray(self.thresholds, np.float32)
        C = len(self.classes)
        self.histogram = np.zeros((C + 1, C, len(self.thresholds) + 1), np.int64)

    def add(self, truth: np.ndarray, cams: np.ndarray, labels: Iterable[int]) -> None:
        """Add one image.

        Args:
            truth: uint8 [H,W].
            cams: float [K,H,W] at the size of the image, compared in float32; K may be 0.
            labels: their class ids [K], all different.
        """
        ids = np.asarray([*labels], np.intp)
        C, L = len(self.classes), len(self._levels) + 1
        winner, value = _winners(cams)
        level = np.searchsorted(self._levels, value, side="left")
        known = truth != IGNORE
        K = max(len(ids), 1)
        flat = (truth.astype(np.intp) * K + winner) * L + level
        counts = np.bincount(flat[known], minlength=(C + 1) * K * L).reshape(C + 1, K, L)
        self.histogram[:, ids if len(ids) else [0]] += counts

    def counts(self) -> np.ndarray:
        """Return the confusion matrices at all thresholds, int64 [T,C+1,C+1], rows truth, columns
        prediction.
        """
        above = self.histogram[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
        background = self.histogram.sum((1, 2))[:, None] - above.sum(1)
        return np.concatenate([background[:, None], above], 1).transpose(2, 0, 1)

    def curve(self) -> list[dict[str, float | None]]:
        """Return one row per threshold: `threshold` and `miou`."""
        scores = mean_iou(self.counts())
        return [
            {"threshold": t, "miou": _plain(s)}
            for t, s in zip(self.thresholds, scores, strict=True)
        ]

    def best(self) -> tuple[float, float]:
        """Return (threshold, mIoU) at the highest mIoU, the lowest such threshold; a score, never a
        setting. Raise ValueError without any image.

        Values that tables round to the same five digits are equal, so that a chart of the curve
        marks this threshold.
        """
        scores = mean_iou(self.counts())
        index = int(np.nanargmax(scores.round(5)))
        return self.thresholds[index], float(scores[index])


def _winners(cams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return index (intp [H,W]) and value (float32 [H,W]) of the highest map; without maps 0 and
    -inf.
    """
    if not len(cams):
        return np.zeros(cams.shape[1:], np.intp), np.full(cams.shape[1:], -np.inf, np.float32)
    maps = cams.astype(np.float32, copy=False)
    return maps.argmax(0), maps.max(0)


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
    """Return part / whole, None where whole is 0."""
    return _plain(_ratio(np.asarray(part), np.asarray(whole)))

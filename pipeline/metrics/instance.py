"""Average precision of instance masks: COCO's by faster-coco-eval, VOC's as area under the curve.

True instances are exclusive: one id map per image, 0 none, 1..N; predicted ones are masks that may
overlap. Because AP ranks the detections of the whole set, the run-length codes of each image's
instances (some hundred bytes each) and one IoU table per image are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SIZES = ("small", "medium", "large")
LIMITS = (32**2, 96**2)
"""Areas in pixels between COCO's sizes."""


@dataclass(frozen=True, slots=True)
class _Scored:
    """What AP needs of one image: RLE codes, classes and scores of its instances, and their IoU
    [predicted,true].
    """

    size: tuple[int, int]
    true_codes: list[dict]
    true_classes: np.ndarray
    codes: list[dict]
    classes: np.ndarray
    scores: np.ndarray
    ious: np.ndarray


def area_under_curve(scores: np.ndarray, hits: np.ndarray, total: int) -> float:
    """Return average precision as the area under the monotone precision-recall curve (PASCAL VOC
    since 2010).

    Args:
        scores: float [N].
        hits: bool [N], whether the detection found an instance.
        total: number of true instances > 0.
    """
    order = np.argsort(-scores, kind="stable")
    true_positives = np.cumsum(hits[order])
    precision = true_positives / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * hits[order]).sum() / total)


class InstanceScores:
    """AP, AP50, AP75 and AP by size of COCO, AP50 and AP70 of VOC, over any number of images."""

    def __init__(self, classes: Sequence[str]) -> None:
        """classes: names without background; instances carry indices into them."""
        self.classes = tuple(classes)
        self._images: dict[str, _Scored] = {}

    def add(
        self,
        name: str,
        truth: tuple[np.ndarray, np.ndarray, np.ndarray | None],
        predicted: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> None:
        """Add one image.

        Void pixels are removed from the predictions first; instances without pixels count neither
        as found nor as false.

        Args:
            name: of the image.
            truth: ids uint16 [H,W], classes uint8 [N], void bool [H,W] or None.
            predicted: masks bool [M,H,W], classes uint8 [M], scores float32 [M].
        """
        true_ids, true_classes, void = truth
        from faster_coco_eval.core import mask

        masks, classes, scores = predicted
        if void is not None:
            masks = masks & ~void
        visible = masks.any((1, 2))
        true_visible = np.bincount(true_ids.ravel(), minlength=len(true_classes) + 1)[1:] > 0
        numbers = (np.flatnonzero(true_visible) + 1).astype(true_ids.dtype)
        true_codes, codes = _codes(true_ids == numbers[:, None, None]), _codes(masks[visible])
        ious = np.reshape(
            mask.iou(codes, true_codes, [0] * len(true_codes)), (len(codes), len(true_codes))
        )
        self._images[name] = _Scored(
            (int(true_ids.shape[0]), int(true_ids.shape[1])),
            true_codes,
            true_classes[true_visible],
            codes,
            classes[visible],
            scores[visible].astype(np.float64),
            ious,
        )

    def compute(self) -> dict:
        """Return all scores, ready for JSON; None where no true instance exists.

        COCO's (101 points, 100 detections per image and class): `AP` (IoU 0.50:0.05:0.95), `AP50`,
        `AP75`, and `AP_small`, `AP_medium`, `AP_large` (true areas below 32², up to 96², above).
        VOC's (area under the curve, a detection may claim only the instance it covers best):
        `voc_AP50`, `voc_AP70`. Then `instances`, `detections` and `per_class`: name -> AP, AP50,
        AP75, voc_AP50, voc_AP70. The order in which images were added does not matter.
        """
        images = {name: self._images[name] for name in sorted(self._images)}
        coco = _coco_precision(images, self.classes)
        voc = {
            f"voc_AP{cut}": _voc_precision(images, len(self.classes), cut / 100) for cut in (50, 70)
        }
        return {
            **_coco_scores(coco[..., 0]),
            **{
                f"AP_{size}": _mean(coco[..., number]) for number, size in enumerate(SIZES, start=1)
            },
            **{name: _mean(values) for name, values in voc.items()},
            "instances": sum(len(p.true_classes) for p in images.values()),
            "detections": sum(len(p.classes) for p in images.values()),
            "per_class": {
                name: {
                    **_coco_scores(coco[:, :, c, 0]),
                    **{key: _mean(values[c]) for key, values in voc.items()},
                }
                for c, name in enumerate(self.classes)
            },
        }


def _codes(masks: np.ndarray) -> list[dict]:
    """Return the compressed COCO RLE of masks bool [M,H,W]."""
    from faster_coco_eval.core import mask

    return [mask.encode(np.asfortranarray(one.view(np.uint8))) for one in masks]


def _coco_precision(samples: Mapping[str, _Scored], classes: Sequence[str]) -> np.ndarray:
    """Return COCO's precision, float64 [10 IoU thresholds, 101 recalls, C, 4 areas (all, small,
    medium, large)]; -1 for a class without true instances of that area.
    """
    from faster_coco_eval import COCO, COCOeval_faster
    from faster_coco_eval.core import mask

    true: list[dict] = []
    found: list[dict] = []
    for image, sample in enumerate(samples.values(), start=1):
        for code, c in zip(sample.true_codes, sample.true_classes, strict=True):
            where = {"image_id": image, "category_id": int(c) + 1, "segmentation": code}
            true.append(
                {**where, "id": len(true) + 1, "area": float(mask.area(code)), "iscrowd": 0}
            )
        for code, c, score in zip(sample.codes, sample.classes, sample.scores, strict=True):
            where = {"image_id": image, "category_id": int(c) + 1, "segmentation": code}
            found.append({**where, "score": float(score)})
    if not true or not found:
        return _no_precision(true, len(classes))
    sizes = enumerate((sample.size for sample in samples.values()), start=1)
    images = [{"id": image, "height": H, "width": W} for image, (H, W) in sizes]
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(classes)]
    dataset = COCO({"images": images, "annotations": true, "categories": categories, "info": {}})
    evaluation = COCOeval_faster(dataset, dataset.loadRes(found), iouType="segm")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]


def _no_precision(true: Sequence[Mapping[str, Any]], classes: int) -> np.ndarray:
    """Return _coco_precision without true instances or without detections, which the library does
    not evaluate.
    """
    precision = np.full((10, 101, classes, 1 + len(SIZES)), -1.0)
    for one in true:
        size = 1 + sum(one["area"] > limit for limit in LIMITS)
        precision[:, :, one["category_id"] - 1, [0, size]] = 0
    return precision


def _coco_scores(precision: np.ndarray) -> dict[str, float | None]:
    """Return AP over all thresholds, at 0.5 and at 0.75 of precisions [10,...]."""
    return {"AP": _mean(precision), "AP50": _mean(precision[0]), "AP75": _mean(precision[5])}


def _voc_precision(images: Mapping[str, _Scored], classes: int, threshold: float) -> np.ndarray:
    """Return AP per class at one IoU threshold, matched as in VOC, float64 [C]; -1 for a class
    without true instances.
    """
    scores: list[list[float]] = [[] for _ in range(classes)]
    hits: list[list[bool]] = [[] for _ in range(classes)]
    total = [0] * classes
    for image in images.values():
        for c in image.true_classes:
            total[c] += 1
        taken: set[int] = set()
        for row in np.argsort(-image.scores, kind="stable"):
            c = image.classes[row]
            same = np.flatnonzero(image.true_classes == c)
            best = int(same[image.ious[row, same].argmax()]) if len(same) else -1
            hit = best >= 0 and best not in taken and bool(image.ious[row, best] >= threshold)
            taken |= {best} if hit else set()
            scores[c].append(float(image.scores[row]))
            hits[c].append(hit)
    areas = zip(scores, hits, total, strict=True)
    return np.array(
        [area_under_curve(np.array(s), np.array(h, bool), n) if n else -1 for s, h, n in areas]
    )


def _mean(values: np.ndarray) -> float | None:
    """Return the mean of the values that exist (COCO marks the others with -1)."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None

"""S2C's loss: classification, contrast of segments (SSC), and masks prompted at the class maps' own
peaks (CPM):

    loss = L_cls + ssc_weight L_SSC + cpm_weight L_CPM,   L_cls = multi-label soft margin of GAP(A)

with L_SSC as in contrast.py and L_CPM as in prompts.py (whose masks) and consistency.py (what is
learned from them); the first `warmup` epochs have none of the last.

Differences from the published code: temperature divides the cosines, as in the paper (there 1
multiplies them); prototypes learn, being functions of F (there detached); segments that are not in
the crop, and pixels in none, are no negatives; the smallest segment owns a pixel (stage segments);
images are encoded once, whole, and crops are traced back to them (there every crop is encoded
again); a mask's confidence uses its stability (there its raw logits), its points include peaks near
the border, each once, and there are none on an empty map; padding is ignored, and so is what may be
background as long as a present class got no mask (there both are background); CPM's scores compete
among the present classes alone. Colors are not jittered.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors

from pipeline.classifiers.base import TrainingData
from pipeline.classifiers.s2c.consistency import map_loss
from pipeline.classifiers.s2c.contrast import segment_contrast
from pipeline.classifiers.s2c.prompts import Prompting
from pipeline.core.artifacts import Reader, Record
from pipeline.core.trainer import LossFn, Samples, Step
from pipeline.data.augmentation import as_image
from pipeline.errors import UserError
from pipeline.segmenters.prompting import Guidance, Prompter


class GuidanceError(UserError):
    """S2C lacks the segments that it learns from; the message says which parameter to change."""


class SegmentedCrops(Dataset[tuple[Tensor, Tensor, Tensor, Tensor, int]]):
    """Training samples, augmented at each access: (uint8 crop [3,S,S], tags [C], segments, origins,
    number).

    segments: int32 [S,S], 0 for none; origins: int32 [2,S,S], the pixel (y, x) of the image that
    each pixel of the crop comes from, -1 outside; number: the image's place among the material's
    names.
    """

    def __init__(self, material: TrainingData) -> None:
        # not the material: its prompter may hold a network, which loader processes need not be sent
        self.index, self.names, self.augment = (
            material.index,
            material.names,
            material.augment(outside=-1),
        )
        self.segments = segments_of(material).segments

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        name = self.names[number]
        sample = self.index.image(name)
        places = tv_tensors.Mask(torch.from_numpy(np.indices(sample.shape[:2], np.int32)))
        image, origins = self.augment(as_image(sample), places)
        segments = torch.from_numpy(self._segments(name, sample.shape[:2]).astype(np.int32))
        y, x = origins.clamp(min=0).as_subclass(Tensor).long()
        in_crop = segments[y, x] * (origins[0] >= 0)
        plain = (part.as_subclass(Tensor) for part in (in_crop, origins))
        return image, torch.from_numpy(self.index.target(name)), *plain, number

    def _segments(self, name: str, size: tuple[int, int]) -> np.ndarray:
        if name in self.segments.skipped:
            return np.zeros(size, np.uint16)
        segments = self.segments.array(name, "segments")
        if segments.shape != size:
            raise GuidanceError(
                f"{self.segments.path}: {name!r} has {segments.shape} pixels, the image {size}; "
                f"make it again with `dvc repro segments`"
            )
        return segments


def samples(material: TrainingData) -> Samples:
    """Crops with tags, segments and origins; raises GuidanceError without segments."""
    return SegmentedCrops(material)


def objective(
    material: TrainingData,
    *,
    ssc: bool,
    ssc_weight: float,
    temperature: float,
    stride: int,
    cpm: bool,
    cpm_weight: float,
    warmup: float,
    scales: Sequence[float],
    peak: float,
    distance: float,
) -> LossFn:
    """The losses `cls`, and `ssc`, `cpm` where wanted, of a batch of SegmentedCrops.

    temperature, stride: see segment_contrast; scales, peak, distance: see Prompting; warmup: epochs
    without prompts. Raises GuidanceError without segments, or if cpm has no embeddings to prompt.
    """
    guidance = segments_of(material)
    prompting = Prompting(prompter_of(guidance), scales, peak, distance) if cpm else None

    def losses(network: nn.Module, batch: Sequence[Tensor], step: Step) -> Mapping[str, Tensor]:
        """`loss`, the weighted sum, and the terms that are wanted."""
        images, tags, segments, origins, numbers = batch
        maps, features = (part.float() for part in network(images))
        terms = {"cls": F.multilabel_soft_margin_loss(maps.mean((2, 3)), tags)}
        loss = terms["cls"]
        if ssc:
            terms["ssc"] = segment_contrast(features, segments, temperature, stride)
            loss = loss + ssc_weight * terms["ssc"]
        if prompting:
            terms["cpm"] = maps.new_zeros(())
            if step.epoch >= warmup:
                records = [
                    _record(guidance.segments, material.names[number])
                    for number in numbers.tolist()
                ]
                labels = prompting.labels(network, images, maps, tags, origins, records)
                terms["cpm"] = map_loss(maps, tags, labels, origins[:, 0] >= 0)
            loss = loss + cpm_weight * terms["cpm"]
        return {"loss": loss, **terms}

    return losses


def segments_of(material: TrainingData) -> Guidance:
    """The material's segments; raises GuidanceError if there are none."""
    if material.guidance is None:
        raise GuidanceError(
            "classifier.method: s2c learns from segments; set segments.backend to superpixels or sam"
        )
    return material.guidance


def prompter_of(guidance: Guidance) -> Prompter:
    """The prompter that understands the stored embeddings; raises GuidanceError if there is none,
    or nothing was stored for it.
    """
    segments, prompter = guidance.segments, guidance.prompter
    if prompter is None or not all(
        segments.array(name, "embeddings").size for name in segments.names[:1]
    ):
        raise GuidanceError(
            "classifier.s2c.cpm: masks are prompted from embeddings, which were not stored; "
            "set segments.embeddings to true, or classifier.s2c.cpm to false"
        )
    return prompter


def _record(segments: Reader, name: str) -> Record | None:
    return None if name in segments.skipped else segments[name]

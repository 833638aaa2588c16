"""Sections `base`, `runtime`, `dataset` and `segments`: what images there are, and how they are
divided.
"""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.section import Count, Fraction, Positive, Section


class Base(Section):
    """What every stage shares."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Seed of the scenes, initial weights, sampling and augmentation."""


class Runtime(Section):
    """How the work is done on this machine; no stage tracks it, since no artifact depends on it."""

    device: str
    """`auto` (CUDA where there is a GPU, else cpu), or `cpu`, `cuda`, `cuda:1` and so on."""
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    """Arithmetic of the networks; `auto` is bfloat16 on a GPU that has it, else float32."""
    workers: Annotated[int, Field(ge=0)]
    """Processes for CPU work; 0 = as many as cores."""
    batch: Count
    """Images per forward pass where nothing is learned; the walk takes more at once on a GPU."""
    shard: Count
    """Images per shard file: the most work of a per-image stage that a kill can lose."""
    checkpoint: Positive
    """Seconds between two checkpoints of a training stage."""
    skip_bad: bool
    """Leave out images that fail, naming them, instead of failing the stage at its end."""
    work: str
    """Folder of unfinished work; the environment variable WEAKMASK_WORK goes before it."""


class Scenes(Section):
    """The built-in images."""

    images: Count
    """How many are drawn."""


class Voc(Section):
    """A folder in the layout of PASCAL VOC's VOCdevkit/VOC2012."""

    train: str
    """List in ImageSets/Segmentation whose images are learned from, such as `train_aug`."""
    val: str
    """List whose images the final model is scored on; empty for none."""

    def lists(self) -> dict[str, str]:
        """List names by split."""
        return {split: name for split, name in (("train", self.train), ("val", self.val)) if name}


class Coco(Section):
    """A folder with COCO instance annotations."""

    train: str
    """Instances json of the training images, relative to the source."""
    train_images: str
    """Folder of the training images, relative to the source."""
    val: str
    """Instances json of the validation images; empty for none."""
    val_images: str
    """Folder of the validation images."""

    def annotations(self) -> dict[str, tuple[str, str]]:
        """(json, image folder) by split."""
        files = {"train": (self.train, self.train_images), "val": (self.val, self.val_images)}
        return {split: pair for split, pair in files.items() if pair[0]}


class Dataset(Section):
    """Stage dataset."""

    format: Literal["scenes", "voc", "coco", "folder"]
    """Layout of the source."""
    source: str
    """Folder of the images and tags; for `scenes` the package that draws them."""
    classes: list[str]
    """Subset of classes in the order wanted, the others becoming background; empty for all."""
    val: Fraction
    """Share of images held out as split `val` where the source names no splits."""
    scenes: Scenes
    voc: Voc
    coco: Coco


class Sam(Section):
    """Segment Anything's segment-everything map (Kirillov et al., ICCV 2023)."""

    model: Literal["vit_h", "vit_l", "vit_b"]
    """Size of the image encoder."""
    points_per_side: Count
    """Prompts are a grid of this many points a side (32)."""
    pred_iou: Fraction
    """Masks whose predicted IoU is below are dropped (0.88)."""
    stability: Fraction
    """Masks less stable than this are dropped (0.95)."""
    stability_offset: Positive
    """Shift of the logits by which stability is measured (1.0)."""
    box_nms: Fraction
    """Of two masks whose boxes overlap more, the one with the lower predicted IoU is dropped (0.7).
    """
    min_area: Annotated[int, Field(ge=0)]
    """Holes and islands of fewer pixels are removed; 0 for none."""


class Superpixels(Section):
    """Graph-based superpixels (Felzenszwalb and Huttenlocher, IJCV 2004)."""

    side: Annotated[int, Field(ge=16, le=1024)]
    """Larger images are divided at this longer side in pixels."""
    scale: Positive
    """Larger gives larger regions."""
    sigma: Annotated[float, Field(ge=0)]
    """Standard deviation of the smoothing in pixels."""
    min_size: Annotated[int, Field(ge=17)]
    """Least area of a region in pixels."""


class Segments(Section):
    """Stage segments."""

    backend: Literal["none", "superpixels", "sam"]
    """What divides the images: nothing, scikit-image without any weights, or Segment Anything with
    a checkpoint.
    """
    embeddings: bool
    """Whether to store what prompts are answered from during training (SAM: 2 MiB an image)."""
    checkpoint: str
    """File of SAM's weights, such as `sam_vit_h_4b8939.pth`."""
    sha256: str
    """SHA-256 of that file in hex; empty for the official one of the model."""
    sam: Sam
    superpixels: Superpixels

"""Sections `base`, `runtime`, `dataset` and `segments`: seed, machine, images, segments."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.section import Count, Fraction, Positive, Section


class Base(Section):
    """Parameters of every stage."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Seed of the scenes, initial weights, sampling and augmentation."""


class Runtime(Section):
    """How work runs on this machine; no artifact depends on it, so no stage tracks it."""

    device: str
    """`auto` (CUDA where there is a GPU, else cpu), or `cpu`, `cuda`, `cuda:1` and so on."""
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    """Autocast type of the networks; `auto` is bfloat16 on GPUs that support it, else float32."""
    workers: Annotated[int, Field(ge=0)]
    """Worker processes for CPU work; 0 for one per core. Trainings on a CPU load with a quarter."""
    batch: Count
    """Images per forward pass at inference; the walk takes larger groups on a GPU."""
    shard: Count
    """Images per shard file: the most work that an interrupted per-image stage loses."""
    checkpoint: Positive
    """Seconds between two checkpoints of a training stage."""
    skip_bad: bool
    """Skip images that fail and name them, instead of failing the stage at its end."""
    work: str
    """Scratch folder of unfinished work; the environment variable WEAKMASK_WORK overrides it."""


class Scenes(Section):
    """The built-in scenes."""

    images: Count
    """Number of images to render."""


class Voc(Section):
    """A folder in the layout of PASCAL VOC's VOCdevkit/VOC2012."""

    train: str
    """List of training images in ImageSets/Segmentation or ImageSets/Main, such as `train_aug`;
    empty for all images."""
    val: str
    """List of validation images; empty for none."""

    def lists(self) -> dict[str, str]:
        """Return list names by split."""
        return {"train": self.train, "val": self.val}


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
        """Return (json, image folder) by split."""
        return {"train": (self.train, self.train_images), "val": (self.val, self.val_images)}


class Dataset(Section):
    """Stage dataset."""

    format: Literal["scenes", "folder", "classes", "voc", "coco", "yolo", "roboflow"]
    """Layout of the source."""
    source: str
    """Folder of images and tags; for `scenes` the package that renders them."""
    classes: list[str]
    """Subset of the classes, in this order; the others become background; empty for all."""
    val: Fraction
    """Fraction of images held out as split `val` if the source names no splits."""
    untagged: Literal["absent", "unknown"]
    """What classes are that an image is not tagged with: absent, or unknown where lists are
    incomplete. In labels.csv `?cat` is unknown and `-cat` absent; alone, `?` and `-` say it of all
    others. Unknown classes count in no classification loss and get no map.
    """
    scenes: Scenes
    voc: Voc
    coco: Coco


class Sam(Section):
    """Automatic masks of Segment Anything (Kirillov et al., ICCV 2023)."""

    model: Literal["vit_h", "vit_l", "vit_b"]
    """Size of the image encoder of backend `sam`; a folder of `transformers` says its own."""
    points_per_side: Annotated[int, Field(ge=1, le=147)]
    """Point prompts per side of the grid (32), three masks each; a map numbers 65,535 masks."""
    pred_iou: Fraction
    """Masks of a lower predicted IoU are dropped (0.88)."""
    stability: Fraction
    """Masks of a lower stability score are dropped (0.95)."""
    stability_offset: Positive
    """Shift of the logits that stability is measured with (1.0)."""
    box_nms: Fraction
    """IoU of boxes above which the mask of the lower predicted IoU is dropped (0.7)."""


class Superpixels(Section):
    """Graph-based superpixels (Felzenszwalb and Huttenlocher, IJCV 2004)."""

    side: Annotated[int, Field(ge=16, le=1024)]
    """Larger images are segmented at this longer side in pixels."""
    scale: Positive
    """Scale of observation k: larger values give larger segments."""
    sigma: Annotated[float, Field(ge=0)]
    """Standard deviation of the smoothing in pixels."""
    min_size: Annotated[int, Field(ge=17)]
    """Smallest area of a segment in pixels."""


class Segments(Section):
    """Stage segments."""

    backend: Literal["none", "superpixels", "sam", "transformers"]
    """No segments, scikit-image's superpixels (no weights), Segment Anything (a checkpoint), or it,
    SAM-HQ, SAM 2.1 or SAM 3's tracker through the package `transformers` (a folder).
    """
    embeddings: bool
    """Store the embeddings that prompts are answered from in training (SAM: 2 MiB per image, SAM
    2.1 and 3: 8 and 10, SAM-HQ: 8 to 12).
    """
    checkpoint: str
    """File of SAM's weights, e.g. `sam_vit_h_4b8939.pth`, or folder of safetensors."""
    sha256: str
    """SHA-256 of that file in hex; empty for the official one of the model, or for a folder."""
    sam: Sam
    superpixels: Superpixels

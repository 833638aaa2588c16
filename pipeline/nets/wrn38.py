"""WideResNet-38 (Wu, Shen and van den Hengel, Pattern Recognition 2019, model A), the backbone of
AffinityNet, SEAM and S2C, as the timm model `wrn38d`.

Blocks are pre-activated: h = relu(bn(x)), y = shortcut + convolutions(h), where the shortcut is x,
or a 1x1 convolution of h where the shape changes. Tensors bear the names of the PyTorch ports, so
that the weights published for those fit.

    conv1a 64 | b2 128 x3 /2 | b3 256 x3 /2 | b4 512 x6 /2 | b5 1024 x3 /2 | b6 2048 /2 | b7 4096

At output stride 8, b5 is dilated by 2, b6 and b7 by 4, as published. Published weights have the
normalization of torchvision's networks.
"""

from typing import Any

from timm.layers import BatchNormAct2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

STAGES = (
    ("b2", (64, 128, 128), 3),
    ("b3", (128, 256, 256), 3),
    ("b4", (256, 512, 512), 6),
    ("b5", (512, 512, 1024), 3),
    ("b6", (1024, 512, 1024, 2048), 1),
    ("b7", (2048, 1024, 2048, 4096), 1),
)
"""Name of each stage, channels of its first block from input to output, and number of blocks; three
widths are two 3x3 convolutions, four are a 3x3 between two 1x1.
"""
DROPOUT = 0.2
"""Of whole channels, before the last two convolutions of b6 and b7 (S2C; AffinityNet has 0.3, 0.5).
"""


class Block(nn.Module):
    """A pre-activated residual block.

    Args:
        widths: Channels from input to output, one convolution between each two.
        stride: Of the first convolution and the shortcut.
        dilation: Of the 3x3 convolutions; `first` of the first convolution.
    """

    def __init__(self, widths: tuple[int, ...], stride: int, first: int, dilation: int) -> None:
        super().__init__()
        kernels = (3, 3) if len(widths) == 3 else (1, 3, 1)
        self.names = ("branch2a", "branch2b1", "branch2b2")[: len(kernels)]
        for n, (name, kernel) in enumerate(zip(self.names, kernels, strict=True)):
            steps, spread = (1, dilation) if n else (stride, first)
            self.add_module(f"bn_{name}", nn.BatchNorm2d(widths[n]))
            conv = nn.Conv2d(
                *(widths[n], widths[n + 1], kernel, steps),
                padding=kernel // 2 * spread,
                dilation=spread if kernel > 1 else 1,
                bias=False,
            )
            self.add_module(f"conv_{name}", conv)
        if widths[0] != widths[-1] or stride > 1:
            self.conv_branch1 = nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False)
        self.dropout = nn.Dropout2d(DROPOUT) if len(kernels) == 3 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features of features [B,D,h,w]."""
        hidden = shortcut = x
        for n, name in enumerate(self.names):
            hidden = self.get_submodule(f"bn_{name}")(hidden).relu_()
            if n:
                hidden = self.dropout(hidden)
            elif hasattr(self, "conv_branch1"):
                shortcut = self.conv_branch1(hidden)
            hidden = self.get_submodule(f"conv_{name}")(hidden)
        return shortcut + hidden


class WideResNet38d(nn.Sequential):
    """The network without its classifier; timm takes its feature maps.

    Args:
        output_stride: 8, 16 or 32; later strides become dilations.
        in_chans: Channels of the input.
        num_classes: Ignored: timm passes it to every network.
    """

    def __init__(self, output_stride: int = 32, in_chans: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        self.feature_info: list[dict[str, Any]] = []
        self.add_module("conv1a", nn.Conv2d(in_chans, 64, 3, padding=1, bias=False))
        reduction = dilation = 1
        for name, widths, blocks in STAGES:
            reduced = 1 if name == "b7" else 2
            first, stride = dilation, reduced if reduction * reduced <= output_stride else 1
            reduction, dilation = reduction * stride, dilation * reduced // stride
            self.add_module(name, Block(widths, stride, first, dilation))
            again = (widths[-1], *widths[1:])
            for n in range(1, blocks):
                self.add_module(f"{name}_{n}", Block(again, 1, dilation, dilation))
            if name != "b6":
                module = f"{name}_{blocks - 1}" if blocks > 1 else "bn7"
                info = {"num_chs": widths[-1], "reduction": reduction, "module": module}
                self.feature_info.append(info)
        self.add_module("bn7", BatchNormAct2d(STAGES[-1][1][-1]))


default_cfgs = generate_default_cfgs(
    {"wrn38d": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}}
)


@register_model
def wrn38d(pretrained: bool = False, **options: Any) -> nn.Module:
    """Create WideResNet-38; a function of this name is how timm finds it."""
    return build_model_with_cfg(WideResNet38d, "wrn38d", pretrained, **options)

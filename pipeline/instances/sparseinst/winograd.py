"""3x3 convolutions on a CPU with a quarter of the multiplications: minimal filtering F(4x4, 3x3)
(Lavin and Gray, CVPR 2016).

Y = A^T [(G g G^T) * (B^T d B)] A for every filter g and every 6x6 cells d of a map, which overlap
by two: the sums over channels become 36 matrix products, one for each value of a transformed tile.
The matrices follow from points at which polynomials are evaluated. Lavin and Gray's 0, 1, -1, 2, -2
err about six times as much as a direct convolution in float32; 0, +-2/3, +-3/2, whose powers stay
closer together, err less than twice as much (Barabasz et al., ACM TOMS 2020, on the choice of
points).
"""

import numpy as np
import torch
from torch import Tensor, nn

POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
"""Points of the evaluation; the last one lies at infinity."""
TILE, TAPS = 4, 3
SIDE = TILE + TAPS - 1
"""Cells of a transformed tile along an axis."""
CHANNELS, CELLS = 128, 1024
"""Below so many channels or cells of a map the transforms cost more than they save."""


class Conv3x3(nn.Conv2d):
    """A convolution of 3x3 cells with stride 1 and zeros around; its parameters are those of
    nn.Conv2d.

    It filters minimally where that pays: in inference, in float32, on a CPU, on large maps of many
    channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, TAPS, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """[B,C,h,w] to [B,D,h,w]."""
        if not self.filters_minimally(maps):
            return super().forward(maps)
        return minimal_filtering(maps, self.weight, self.get_parameter("bias"))

    def filters_minimally(self, maps: Tensor) -> bool:
        """Whether it does so for these maps."""
        return (
            not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled(maps.device.type)
            and maps.device.type == "cpu"
            and maps.dtype == self.weight.dtype == torch.float32
            and min(self.in_channels, self.out_channels) >= CHANNELS
            and maps.shape[2] * maps.shape[3] >= CELLS
        )


def minimal_filtering(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution of maps [B,C,h,w] with zeros around by weight [D,C,3,3] and bias [D]:
    [B,D,h,w], channels last.

    Images are taken one by one, so that none depends on the others and memory does not grow with
    their number. Every product is written over what is no longer needed: pages that are new each
    time cost as much as a product.
    """
    (channels, height, width), outputs = maps.shape[1:], len(weight)
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = maps.new_zeros(TILE * rows + TAPS - 1, TILE * columns + TAPS - 1, channels)
    down, right, _ = padded.stride()
    tiles = padded.as_strided(
        (SIDE, SIDE, rows, columns, channels), (down, right, TILE * down, TILE * right, 1)
    )
    cells = SIDE**2 * rows * columns
    first, second = maps.new_empty(2, cells * max(channels, outputs)).unbind()
    gathered, products = (
        first[: cells * channels],
        first[: cells * outputs].view(SIDE**2, -1, outputs),
    )
    transformed = second[: cells * channels].view(SIDE**2, -1)
    values = second[: TILE**2 * rows * columns * outputs].view(TILE**2, -1)
    filters = _transformed_filters(weight)
    filtered = maps.new_empty(len(maps), rows, TILE, columns, TILE, outputs)
    for image, out in zip(maps.permute(0, 2, 3, 1), filtered, strict=True):
        padded[1 : 1 + height, 1 : 1 + width] = image
        gathered.view(tiles.shape).copy_(tiles)
        torch.mm(INPUT, gathered.view(SIDE**2, -1), out=transformed)
        torch.bmm(transformed.view(SIDE**2, -1, channels), filters, out=products)
        torch.mm(OUTPUT, products.flatten(1), out=values)
        torch.add(
            values.view(TILE, TILE, rows, columns, outputs).permute(2, 0, 3, 1, 4), bias, out=out
        )
    whole = filtered.view(len(maps), TILE * rows, TILE * columns, outputs)
    return whole[:, :height, :width].permute(0, 3, 1, 2)


def _transformed_filters(weight: Tensor) -> Tensor:
    """G g G^T of weight [D,C,3,3]: [36,C,D]."""
    taps = weight.permute(2, 3, 0, 1).reshape(TAPS**2, -1)
    return (FILTER @ taps).view(SIDE**2, *weight.shape[:2]).transpose(1, 2)


def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """B^T x B^T [36,36], G x G [36,9] and A^T x A^T [16,36], Kronecker products, so that one matrix
    product transforms both axes.

    Toom and Cook: with V(n) the powers 0 to n - 1 of the points (at infinity the highest alone), G
    = V(3), A = V(4) and B = V(6)^-1. The rows of B^T are brought near 1 by powers of two, which G
    takes back.
    """
    filters, outputs, inverse = (_powers(count) for count in (TAPS, TILE, SIDE))
    inputs = np.linalg.inv(inverse).T
    scale = 2.0 ** np.round(np.log2(np.abs(inputs).max(1, keepdims=True)))
    pairs = (inputs / scale, filters * scale, outputs.T)
    first, second, third = (torch.from_numpy(np.kron(one, one)).float() for one in pairs)
    return first, second, third


def _powers(count: int) -> np.ndarray:
    """Powers 0 to count - 1 of the points [6,count]."""
    powers = np.vander([*POINTS, 0.0], count, increasing=True)
    powers[-1] = np.eye(count)[-1]
    return powers


INPUT, FILTER, OUTPUT = _matrices()

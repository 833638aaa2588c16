"""Tiles: they cover an image with weights that sum to 1, and their blend is the whole image's."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.export.predictions import OutputPaths, PredictionSummary, plan, predict_labels
from pipeline.predict import enlarged_labels, shown_size
from pipeline.readers.inputs import find_images
from pipeline.tiles import BlendedLabels, Tiling
from tests.support.runtimes import runtime


@pytest.mark.parametrize("size", [(64, 64), (65, 200), (176, 240), (300, 31), (1, 129)])
@pytest.mark.parametrize(("side", "step"), [(64, 64), (64, 48), (64, 32)])
def test_tiles_cover_the_image_with_weights_that_sum_to_one(
    size: tuple[int, int], side: int, step: int
) -> None:
    tiling, total = Tiling(side, step), np.zeros(size, np.float32)
    for tile in tiling.tiles(size):
        assert tile.top % step == tile.left % step == 0
        assert max(tile.cut(total).shape) <= side
        down = tiling.weights(tile.top, tile.bottom, size[0])
        across = tiling.weights(tile.left, tile.right, size[1])
        tile.cut(total)[:] += np.outer(down, across)
    np.testing.assert_allclose(total, 1, atol=1e-6)


def uniform(*probabilities: float) -> np.ndarray:
    """The same probabilities of two classes all over a tile."""
    return np.broadcast_to(np.array(probabilities, np.float32)[:, None, None], (2, 8, 64))


def test_blended_borders_pass_gradually() -> None:
    """Two tiles that disagree: the probability of the second one's class rises over the overlap."""
    tiling, size = Tiling(64, 32), (8, 96)
    first, second = tiling.tiles(size)
    blended = BlendedLabels(tiling, size, 2)
    blended.add(first, uniform(0.6, 0.4))
    rising = blended.total[0, 0]
    assert (rising[:40] > 0.599).all(), "the outer quarter of the second tile counts for nothing"
    assert (np.diff(rising[40:56]) < 0).all()
    assert (rising[56:] == 0).all()
    blended.add(second, uniform(0.1, 0.9))
    assert (np.diff(blended.labels[0].astype(int)) != 0).sum() == 1


class Toy(nn.Module):
    """Fully convolutional at stride 16, with a receptive field of 16 cells and more."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(3, 8, 16, stride=16)
        self.across = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.across(self.down(images.float() / 255 - 0.5).relu()) * 20
        return nn.functional.interpolate(cells, scale_factor=16, mode="nearest").softmax(1)


@pytest.mark.parametrize(("overlap", "equal"), [(64, True), (0, False)])
def test_tiled_equals_whole(tmp_path: Path, overlap: int, equal: bool) -> None:
    """Where the overlap leaves each tile's own borders out; without overlap it does not."""
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (14, 23, 3), np.uint8)
    image = cv2.resize(noise, (368, 224), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(image).save(tmp_path / "photos/a.png")
    Image.fromarray(image[:100, :97]).save(tmp_path / "photos/small.png")
    toy = Toy()

    def network(images: Tensor) -> np.ndarray:
        height, width = images.shape[2:]
        padded = nn.functional.pad(images, (0, -width % 16, 0, -height % 16))
        with torch.inference_mode():
            return toy(padded)[:, :, :height, :width].numpy()

    def labels(folder: str, tiling: Tiling, number: int) -> np.ndarray:
        files = find_images([str(tmp_path / "photos")]).files
        output = OutputPaths(tmp_path / folder, ("a", "b", "c"), True, files)
        parts = plan(files, lambda size: size, tiling)
        assert len(parts) == number
        summary = predict_labels(
            network, output, parts, tiling, {"iterations": 0}, runtime(tmp_path, batch=3)
        )
        assert summary == PredictionSummary()
        with Image.open(tmp_path / folder / "masks/a.png") as mask:
            return np.asarray(mask)

    whole = labels("whole", Tiling(512, 512), 2)
    assert len(np.unique(whole)) > 2
    tiles = 3 * 5 + 1 if overlap else 2 * 3 + 1
    tiled = labels("tiled", Tiling(128, 128 - overlap), tiles)
    assert (tiled == whole).all() == equal


def test_enlarged_labels_are_those_of_a_bilinear_resize() -> None:
    low = np.random.default_rng(0).random((3, 9, 13), np.float32)
    np.testing.assert_array_equal(enlarged_labels(low, (9, 13)), low.argmax(0))
    for size in ((150, 211), (5, 7)):
        resized = np.stack([cv2.resize(one, size[::-1]) for one in low])
        assert (enlarged_labels(low, size) == resized.argmax(0)).mean() > 0.999


@pytest.mark.parametrize(
    ("size", "shown"),
    [((3000, 4000), (240, 320)), ((90, 120), (150, 200)), ((250, 300), (250, 300))],
)
def test_images_are_shown_at_a_trained_size(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert shown_size({"longest": [200, 320]}, size) == shown
    assert shown_size({}, size) == size

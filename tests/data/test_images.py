"""Image files of every mode are decoded to upright RGB, damaged ones raise an error."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.data.images import DatasetError, read_image, read_size
from tests.support.sources import noise, save

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)


COLORS = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
"""A palette."""
LOSSLESS = {"lossless": True, "exact": True}
DEEP = RAMP.astype(np.uint16) * 257
DEEP[0, :2] = 128, 129  # less than half of 257 is still black


def paletted() -> Image.Image:
    image = Image.fromarray(RAMP, "L")
    image.putpalette(COLORS.tobytes())
    return image


def filled(*color: int, mode: str) -> Image.Image:
    return Image.fromarray(np.full((16, 16, len(color)), color, np.uint8), mode)


RGBA = np.dstack([noise(), np.full((12, 16), 3, np.uint8)])
GRAY = np.stack([RAMP] * 3, -1)
SHALLOW = GRAY.copy()
SHALLOW[0, :2] = [[0], [1]]
SOUND: dict[str, tuple[Image.Image, str, dict[str, Any], np.ndarray]] = {
    "color png": (Image.fromarray(noise()), "png", {}, noise()),
    "color webp": (Image.fromarray(noise()), "webp", LOSSLESS, noise()),
    "gray": (Image.fromarray(RAMP), "png", {}, GRAY),
    "gray and alpha": (Image.fromarray(np.dstack([RAMP, RAMP[::-1]])), "png", {}, GRAY),
    "alpha is dropped, not blended, in png": (Image.fromarray(RGBA), "png", {}, noise()),
    "alpha is dropped, not blended, in webp": (Image.fromarray(RGBA), "webp", LOSSLESS, noise()),
    "palette": (paletted(), "png", {}, COLORS[RAMP]),
    "transparent color": (paletted(), "png", {"transparency": 3}, COLORS[RAMP]),
    "transparency": (paletted(), "png", {"transparency": bytes(range(256))}, COLORS[RAMP]),
    "16 bits": (Image.fromarray(DEEP), "png", {}, SHALLOW),
    "bilevel": (Image.fromarray(RAMP > 90), "png", {}, np.where(GRAY > 90, 255, 0)),
}


@pytest.mark.defect("irn-8")
@pytest.mark.parametrize("name", SOUND)
def test_every_mode_is_read_exactly(tmp_path: Path, name: str) -> None:
    image, suffix, options, expected = SOUND[name]
    image.save(tmp_path / f"a.{suffix}", **options)
    result = read_image(tmp_path / f"a.{suffix}")
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("image", "rgb"),
    [
        (filled(250, 0, 0, mode="RGB"), (250, 0, 0)),
        (filled(255, 0, 0, 0, mode="CMYK"), (0, 255, 255)),
    ],
)
def test_jpeg_is_in_rgb_order(tmp_path: Path, image: Image.Image, rgb: tuple[int, ...]) -> None:
    image.save(tmp_path / "a.jpg", quality=95)
    mean = read_image(tmp_path / "a.jpg").reshape(-1, 3).mean(0)
    np.testing.assert_allclose(mean, rgb, atol=4)


@pytest.mark.parametrize("orientation", range(1, 10))
def test_exif_turns_the_image_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=exif)
    result = read_image(tmp_path / "a.png")
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(result, expected)
    assert result.shape == ((16, 12, 3) if orientation in (5, 6, 7, 8) else (12, 16, 3))
    assert read_size(tmp_path / "a.png") == result.shape[:2]


def test_broken_exif_does_not_stop_a_sound_image(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), noise())


def test_too_many_pixels_for_pillow_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "large.png", noise())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DatasetError, match=r"large\.png: has too many pixels; scale it down"):
        read_image(path)

"""Image files of every mode are decoded to upright RGB, damaged ones raise an error."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.data.images import DatasetError, read_image
from tests.support.sources import noise, save

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)


def saved(path: Path, image: Image.Image, **options: Any) -> np.ndarray:
    image.save(path, **options)
    result = read_image(path)
    assert result.dtype == np.uint8
    assert result.ndim == 3
    return result


@pytest.mark.defect("irn-8")
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_color_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    result = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise()), **options)
    np.testing.assert_array_equal(result, noise())


def test_jpeg_is_in_rgb_order(tmp_path: Path) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    result = saved(tmp_path / "a.jpg", Image.fromarray(red), quality=95)
    np.testing.assert_allclose(result.reshape(-1, 3).mean(0), (250, 0, 0), atol=4)


@pytest.mark.defect("irn-8")
@pytest.mark.parametrize("pixels", [RAMP, np.dstack([RAMP, RAMP[::-1]])])
def test_gray_becomes_three_equal_channels(tmp_path: Path, pixels: np.ndarray) -> None:
    result = saved(tmp_path / "a.png", Image.fromarray(pixels))
    np.testing.assert_array_equal(result, np.stack([RAMP] * 3, -1))


@pytest.mark.defect("irn-8")
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_alpha_is_dropped_and_not_blended(tmp_path: Path, suffix: str) -> None:
    image = np.dstack([noise(), np.full((12, 16), 3, np.uint8)])
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    result = saved(tmp_path / f"a.{suffix}", Image.fromarray(image), **options)
    np.testing.assert_array_equal(result, image[..., :3])


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))])
def test_palette_with_and_without_transparency(tmp_path: Path, transparency: object) -> None:
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
    image = Image.fromarray(RAMP, "L")
    image.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    np.testing.assert_array_equal(saved(tmp_path / "a.png", image, **options), palette[RAMP])


def test_cmyk_jpeg(tmp_path: Path) -> None:
    cyan = np.zeros((16, 16, 4), np.uint8)
    cyan[..., 0] = 255
    result = saved(tmp_path / "a.jpg", Image.fromarray(cyan, "CMYK"), quality=95)
    np.testing.assert_allclose(result.reshape(-1, 3).mean(0), (0, 255, 255), atol=4)


def test_16_bit_gray_is_scaled_by_257(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 257
    deep[0, 0] = 128  # less than half of 257: still black
    deep[0, 1] = 129
    expected = RAMP.copy()
    expected[0, :2] = 0, 1
    np.testing.assert_array_equal(
        saved(tmp_path / "a.png", Image.fromarray(deep))[..., 1], expected
    )


def test_bilevel(tmp_path: Path) -> None:
    result = saved(tmp_path / "a.png", Image.fromarray(RAMP > 90))
    np.testing.assert_array_equal(result[..., 2], np.where(RAMP > 90, 255, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = saved(tmp_path / "a.png", Image.fromarray(noise()), exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(result, expected)
    assert result.shape == ((16, 12, 3) if orientation >= 5 else (12, 16, 3))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"cut.{suffix}", noise(size=(64, 64)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=rf"cut\.{suffix}: is damaged"):
        read_image(path)


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

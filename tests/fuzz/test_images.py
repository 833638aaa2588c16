"""Images and masks that are damaged end in an array or in a message that names the file."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.images import read_image
from pipeline.data.masks import read_values, to_labels
from tests.support.harm import HARD, harmed, result_or_message

pytestmark = [pytest.mark.timeout(60), pytest.mark.filterwarnings("ignore::UserWarning:PIL")]


def encoded(mode: str, format_: str) -> bytes:
    """An image of 9 x 7 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, format=format_, exif=exif)
    return stream.getvalue()


SOUND = [
    *(encoded(mode, "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *(encoded(mode, "JPEG") for mode in ("RGB", "L", "CMYK")),
    *(encoded(mode, "WEBP") for mode in ("RGB", "RGBA")),
]


@HARD
@given(data=st.sampled_from(SOUND).flatmap(harmed))
def test_harmed_images(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    found = result_or_message(lambda: read_image(path), path)
    assert found is None or (found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3)


@HARD
@given(data=st.sampled_from(SOUND[:7]).flatmap(harmed))
def test_harmed_masks(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    found = result_or_message(lambda: read_values(path), path)
    if found is not None:
        assert found.dtype in (np.uint8, np.uint16)
        labels = result_or_message(lambda: to_labels(found, {0: 0, 1: 1, 255: 255}, path), path)
        assert labels is None or labels.shape == found.shape

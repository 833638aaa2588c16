"""Image files: JPEG, PNG and WebP of any color mode, decoded to upright 8-bit RGB."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.problems import DatasetError, error

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")
DO_IMAGE = "put the file there or remove it from the list"
DO_DAMAGED = "save it again or remove it from the list"
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: Path) -> np.ndarray:
    """Return the image of a JPEG, PNG or WebP file as uint8 RGB [H,W,3].

    The EXIF orientation is applied, alpha is dropped, 16-bit gray is divided by 257, and an
    animation is represented by its first frame. Raises DatasetError that names the file.
    """
    return decode_image(read_bytes(path, DO_IMAGE), path)


def read_bytes(path: Path, do: str) -> bytes:
    """Return the content of a file; raise DatasetError that names it and says what to `do`."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise DatasetError(error(path, f"cannot be read ({problem.strerror})", do)) from None


def decode_image(data: bytes, path: Path) -> np.ndarray:
    """Decode an image file as read_image does; `path` is for the error message."""
    image = open_checked(data, path, FORMATS)
    try:
        return np.array(_upright_rgb(image))
    except Exception as problem:  # a damaged palette or alpha channel fails only here
        raise DatasetError(error(path, f"is damaged ({problem})", DO_DAMAGED)) from problem


def open_checked(data: bytes, path: Path, formats: tuple[str, ...]) -> Image.Image:
    """Decode a whole file in one of Pillow's `formats`; raise DatasetError if it is damaged."""
    try:
        image = Image.open(BytesIO(data), formats=formats)
        image.load()
    except Image.DecompressionBombError:
        raise DatasetError(error(path, "has too many pixels", "scale it down before use")) from None
    except Exception as problem:  # Pillow's decoders raise nearly anything on damaged bytes
        what = f"is damaged, truncated or not a {'/'.join(formats)} file ({problem})"
        what = what.split(" (cannot identify", 1)[0]  # it goes on with the address of our buffer
        raise DatasetError(error(path, what, DO_DAMAGED)) from problem
    return image


def _upright_rgb(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(image))
    if image.mode.startswith("I"):
        gray = np.clip((np.asarray(image).astype(np.int64) + 128) // 257, 0, 255)
        image = Image.fromarray(gray.astype(np.uint8))
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the pixels may be sound although the EXIF block is not
        return 1


def smallest_dtype(ids: np.ndarray) -> np.ndarray:
    """Return instance ids as uint8 if all are below 255 (void in 8-bit files), else as uint16."""
    return ids.astype(np.uint8 if ids.max(initial=0) < 255 else np.uint16)


def encode_png(array: np.ndarray) -> bytes:
    """Encode an array (uint8 [H,W,3], uint8 or uint16 [H,W]) as a PNG file without metadata."""
    stream = BytesIO()
    Image.fromarray(array).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()

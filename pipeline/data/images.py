"""Image files: whatever a camera, scanner or web site saved comes out as upright 8-bit RGB."""

import stat
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.problems import DatasetError, Problem, error

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 89_478_485
"""Largest image that is decoded, in pixels; Pillow's own limit against decompression bombs."""

MAX_BYTES = 2**30
"""Largest file of an image that is read; one of MAX_PIXELS in 16-bit colors, uncompressed, has half
of it.
"""

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
    """The image of a JPEG, PNG or WebP file as uint8 RGB [H,W,3], turned upright by its EXIF tag.

    Alpha is dropped; 16-bit gray is divided by 257; of an animation the first frame counts. Raises
    DatasetError that names the file.
    """
    return decode_image(read_bytes(path, "put the file there or take it off the list"), path)


def read_bytes(path: Path, do: str, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; raises DatasetError that names it and
    says what to `do`.

    Pipes and devices, which may never end, are refused.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(
                error(path, "cannot be read (it is a folder, pipe or device, no file)", do)
            )
        if status.st_size > limit:
            raise DatasetError(error(path, f"is larger than {limit} bytes", do))
        return path.read_bytes()
    except OSError as problem:
        raise DatasetError(error(path, f"cannot be read ({problem.strerror})", do)) from None
    except ValueError:
        raise DatasetError(
            error(path, "cannot be read (the name holds a NUL character)", do)
        ) from None


def decode_image(data: bytes, path: Path) -> np.ndarray:
    """The image in the bytes of a file, see read_image; `path` is for the error message."""
    image = open_checked(data, path, FORMATS)
    try:
        return np.array(_upright_rgb(image))
    except Exception as problem:  # a damaged palette or alpha channel shows only here
        raise DatasetError(
            error(path, f"is damaged ({problem})", "save it again or take it off the list")
        ) from problem


def open_checked(data: bytes, path: Path, formats: tuple[str, ...]) -> Image.Image:
    """Decode the bytes of a file wholly, in one of Pillow's `formats`; raises DatasetError for
    damaged or oversized ones.
    """
    try:
        image = Image.open(BytesIO(data), formats=formats)
        if image.width * image.height > MAX_PIXELS:
            raise DatasetError(_oversized(path))
        image.load()
    except DatasetError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DatasetError(_oversized(path)) from None
    except Exception as problem:  # Pillow's decoders raise nearly anything on damaged bytes
        what = f"is damaged, cut short or no {'/'.join(formats)} file ({problem})"
        # Pillow's message for unknown bytes shows the address of our buffer, which says nothing to
        # anybody.
        what = what.split(" (cannot identify", 1)[0]
        raise DatasetError(error(path, what, "save it again or take it off the list")) from problem
    return image


def _oversized(path: Path) -> Problem:
    return error(path, f"has more than {MAX_PIXELS} pixels", "scale it down before use")


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
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1


def shrink(ids: np.ndarray) -> np.ndarray:
    """Instance ids in 8 bits where they fit below 255, which is void in 8-bit files, else in 16."""
    return ids.astype(np.uint8 if ids.max(initial=0) < 255 else np.uint16)


def encode_png(array: np.ndarray) -> bytes:
    """An array (uint8 [H,W,3], uint8 or uint16 [H,W]) as the bytes of a PNG file without metadata."""
    stream = BytesIO()
    Image.fromarray(array).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()

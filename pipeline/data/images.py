"""Image files, decoded to upright 8-bit RGB, and how files that cannot be used are reported.

JPEG, PNG and WebP of any color mode are supported. A problem says where it is, what is wrong, and
what to do about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from pipeline.errors import UserError

Image.MAX_IMAGE_PIXELS = 2**30  # slides and aerial images go beyond Pillow's own limit
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")
DO_IMAGE = "put the file there or leave it out"
DO_DAMAGED = "save it again or leave it out"
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
MAX_ALIKE = 3
"""Problems of a kind that have a line each."""
MAX_SHOWN = 4000
"""Characters of a part of a message above which its middle is omitted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: `where` (file, or file and row), `what` is wrong, what to `do` about it.

    Errors stop the build, warnings do not.
    """

    level: Literal["error", "warning"]
    where: str
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.do}"


class DatasetError(UserError):
    """Unusable images, tags, masks or index; the message lists all kinds of `problems`."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(line for _, line in summarize(self.problems)))

    def __reduce__(self) -> tuple[type["DatasetError"], tuple[list[Problem]]]:
        return type(self), (self.problems,)


def error(where: object, what: str, do: str) -> Problem:
    """Return a problem that stops the build."""
    return Problem("error", _one_line(str(where)), _one_line(what), _one_line(do))


def warning(where: object, what: str, do: str) -> Problem:
    """Return a problem that does not stop the build."""
    return Problem("warning", _one_line(str(where)), _one_line(what), _one_line(do))


def summarize(problems: Sequence[Problem], *, every: bool = False) -> list[tuple[str, str]]:
    """Return (level, line) of the problems, one line for all of a kind if there are many.

    A kind is what the same can be done about; its line has the number of problems and where the
    first three are. every: give each problem a line of its own.
    """
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.level, problem.do), []).append(problem)
    lines = []
    for (level, _), kind in kinds.items():
        if every or len(kind) <= MAX_ALIKE:
            lines += [(level, str(problem)) for problem in kind]
        else:
            others = [problem.where for problem in kind[1:3] if problem.where != kind[0].where]
            also = f", also at {' and '.join(others)}" if others else ""
            lines.append((level, f"{kind[0]} ({len(kind)} like this{also})"))
    return lines


def raise_errors(problems: Sequence[Problem]) -> None:
    """Raise DatasetError that lists the errors among the problems, if there are any."""
    if errors := [problem for problem in problems if problem.level == "error"]:
        raise DatasetError(errors)


def _one_line(text: str) -> str:
    """Return the text as a terminal can print it on one line.

    Control characters and invalid Unicode (from file names) are escaped; a very long text loses its
    middle.
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    half = MAX_SHOWN // 2
    return text if len(text) <= MAX_SHOWN else f"{text[:half]} ... {text[-half:]}"


def read_image(path: Path) -> np.ndarray:
    """Return the image of a JPEG, PNG or WebP file as uint8 RGB [H,W,3].

    The EXIF orientation is applied, alpha is dropped, 16-bit gray is divided by 257, and an
    animation is represented by its first frame. Raises DatasetError that names the file.
    """
    return decode_image(read_bytes(path, DO_IMAGE), path)


def read_size(path: Path) -> tuple[int, int] | None:
    """Return (height, width) of the upright image in a file; None if read_image would fail."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            return (width, height) if _orientation(image) in (5, 6, 7, 8) else (height, width)
    except Exception:  # as of open_checked, which explains it
        return None


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
        if data[4:8] == b"ftyp":
            what = "is a HEIC or AVIF image whatever its name"
            raise DatasetError(error(path, what, "convert it to JPEG, PNG or WebP")) from problem
        what = f"is damaged, truncated or not a {'/'.join(formats)} file ({problem})"
        what = what.split(" (cannot identify", 1)[0]  # then comes the address of our buffer
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


def is_rotated(path: Path) -> bool:
    """Return whether the EXIF orientation of an image file turns or flips it."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return _orientation(image) in _UPRIGHT
    except (OSError, ValueError, SyntaxError):  # reported where the pixels are read
        return False


def encode_upright(path: Path) -> bytes:
    """Return an image file encoded again in its format, upright and without EXIF orientation."""
    stream = BytesIO()
    with Image.open(path, formats=FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        lossless = {"lossless": True} if image.format == "WEBP" else {}
        upright.save(stream, image.format, quality=95, **lossless)
    return stream.getvalue()


def smallest_dtype(ids: np.ndarray) -> np.ndarray:
    """Return instance ids as uint8 if all are below 255 (void in 8-bit files), else as uint16."""
    return ids.astype(np.uint8 if ids.max(initial=0) < 255 else np.uint16)


def encode_png(array: np.ndarray) -> bytes:
    """Encode an array (uint8 [H,W,3], uint8 or uint16 [H,W]) as a PNG file without metadata."""
    stream = BytesIO()
    Image.fromarray(array).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()

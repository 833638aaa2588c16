"""Bad and odd datasets by name, each with the words of the message that it gets."""

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from tests.support.sources import (
    SIZE,
    annotation,
    coco_folder,
    mask,
    noise,
    own_folder,
    save,
    voc_folder,
    write,
)

BOX = [[2, 1, 8, 1, 8, 6, 2, 6]]
JSON = "annotations/instances_train2017.json"
BOMB = "has more than 89478485 pixels; scale it down before use"


@dataclass(frozen=True, slots=True)
class Case:
    """A dataset: `make` builds it in the folder it is given; `message` are parts of one line among
    the problems.

    level: of that line; None for a dataset that is odd but sound, which has no problem at all.
    """

    name: str
    format: str
    make: Callable[[Path], object]
    message: tuple[str, ...]
    level: Literal["error", "warning"] | None
    options: Mapping[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {}


def bad(
    format_: str,
    *message: str,
    level: Literal["error", "warning"] | None = "error",
    **options: Any,
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Enter the builder into CASES under its own name."""

    def enter(make: Callable[[Path], object]) -> Callable[[Path], object]:
        CASES[make.__name__] = Case(make.__name__, format_, make, message, level, options)
        return make

    return enter


def odd(
    format_: str, **options: Any
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Enter the builder of a dataset without any problem."""
    return bad(format_, level=None, **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that declares a size in gray and holds next to nothing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def image_bytes(root: Path, data: bytes, name: str = "a.png") -> None:
    own_folder(root)
    (root / "images" / name).write_bytes(data)


def row(root: Path, image: str, classes: str = "cat", header: str = "image,classes") -> None:
    """A folder with one more row, of no image of its own."""
    own_folder(root, header=header)
    with (root / "labels.csv").open("a", encoding="utf-8") as file:
        file.write(f"{image},{classes}\n")


def table(root: Path, data: bytes) -> None:
    own_folder(root)
    (root / "labels.csv").write_bytes(data)


def with_mask(root: Path, array: np.ndarray) -> None:
    own_folder(root)
    write(root / "classes.txt", "cat\ndog\n")
    save(root / "masks/a.png", array)


def listed(root: Path, text: str, split: str = "train") -> None:
    voc_folder(root)
    write(root / f"ImageSets/Segmentation/{split}.txt", text)


def xml(root: Path, text: str) -> None:
    voc_folder(root)
    write(root / "Annotations/x1.xml", text)


def json_text(root: Path, text: str) -> None:
    coco_folder(root, [])
    write(root / JSON, text)


def changed(root: Path, change: Callable[[dict], object], rows: tuple[dict, ...] = ()) -> None:
    """Format coco with a changed json."""
    coco_folder(root, rows or [annotation(3, BOX), annotation(9, BOX, image=8)])
    content = json.loads((root / JSON).read_text())
    change(content)
    write(root / JSON, json.dumps(content))


# Images


@bad("folder", "a.png: is damaged, cut short or no JPEG/PNG/WEBP file", "save it again")
def image_of_no_bytes(root: Path) -> None:
    image_bytes(root, b"")


@bad("folder", "a.png: is damaged, cut short or no JPEG/PNG/WEBP file", "save it again")
def image_cut_short(root: Path) -> None:
    own_folder(root)
    whole = save(root / "images/a.png", noise(0, (64, 64)))
    whole.write_bytes(whole.read_bytes()[:3000])


@bad("voc", "x1.jpg: is damaged, cut short or no JPEG/PNG/WEBP file", "save it again")
def jpeg_cut_short(root: Path) -> None:
    voc_folder(root)
    whole = save(root / "JPEGImages/x1.jpg", noise(0, (64, 64)))
    whole.write_bytes(whole.read_bytes()[:1500])


@bad("folder", "a.png: is damaged, cut short or no JPEG/PNG/WEBP file", "save it again")
def image_with_a_flipped_checksum(root: Path) -> None:
    own_folder(root)
    data = bytearray((root / "images/a.png").read_bytes())
    data[20] ^= 1
    (root / "images/a.png").write_bytes(data)


@bad("folder", "a.png: is damaged, cut short or no JPEG/PNG/WEBP file", "save it again")
def image_that_is_a_web_page(root: Path) -> None:
    image_bytes(root, b"<!doctype html><title>404</title>")


@bad("folder", "a.png: is damaged, cut short or no JPEG/PNG/WEBP file", "save it again")
def image_that_is_a_tiff(root: Path) -> None:
    own_folder(root)
    Image.fromarray(noise()).save(root / "images/a.png", format="TIFF")


@bad(
    "folder",
    "scan.bmp: is of a kind that is not read; save it as JPEG, PNG or WebP",
    level="warning",
)
def image_of_a_foreign_kind(root: Path) -> None:
    save(own_folder(root) / "images/scan.bmp", noise())


@odd("folder")
def jpeg_that_is_called_png(root: Path) -> None:
    own_folder(root)
    Image.fromarray(noise()).save(root / "images/a.png", format="JPEG")


@bad("folder", "a.png: ", BOMB)
def bomb_of_sixty_thousand_pixels_a_side(root: Path) -> None:
    image_bytes(root, png(60_000, 60_000, chunk(b"IDAT", zlib.compress(b""))))


@bad("folder", "a.png: ", BOMB)
def bomb_of_the_largest_size(root: Path) -> None:
    image_bytes(root, png(2**31 - 1, 2**31 - 1))


@bad("folder", "a.png: is damaged, cut short or no JPEG/PNG/WEBP file")
def bomb_in_a_text_of_the_image(root: Path) -> None:
    text = b"comment\0\0" + zlib.compress(bytes(2**26))
    image_bytes(
        root, png(16, 12, chunk(b"zTXt", text), chunk(b"IDAT", zlib.compress(bytes(12 * 17))))
    )


@bad("folder", "a.png: is damaged, cut short or no JPEG/PNG/WEBP file")
def image_of_no_pixels(root: Path) -> None:
    image_bytes(root, png(0, 12, chunk(b"IDAT", zlib.compress(b""))))


@bad("folder", "a.png: is larger than 1073741824 bytes; put the file there or take it off the list")
def image_file_of_a_terabyte(root: Path) -> None:
    own_folder(root)
    with (root / "images/a.png").open("r+b") as file:
        file.truncate(2**40)


@bad("folder", "a.png: cannot be read (it is a folder, pipe or device, no file)")
def image_that_is_a_pipe(root: Path) -> None:
    own_folder(root)
    (root / "images/a.png").unlink()
    os.mkfifo(root / "images/a.png")


@bad("folder", "images/a: cannot be read (it is a folder, pipe or device, no file)")
def image_that_is_a_folder(root: Path) -> None:
    own_folder(root)
    (root / "images/a.png").unlink()
    (root / "images/a").mkdir()


@odd("folder")
def image_of_one_pixel(root: Path) -> None:
    save(own_folder(root) / "images/a.png", noise(0, (1, 1)))


@odd("voc")
def image_in_four_inks(root: Path) -> None:
    voc_folder(root)
    Image.fromarray(noise()).convert("CMYK").save(root / "JPEGImages/x1.jpg")


@odd("folder")
def image_of_sixteen_bits(root: Path) -> None:
    save(own_folder(root) / "images/a.png", noise()[..., 0].astype(np.uint16) * 257)


@odd("folder")
def image_with_alpha(root: Path) -> None:
    save(own_folder(root) / "images/a.png", np.dstack([noise(), noise()[..., :1]]))


@odd("folder")
def image_that_moves(root: Path) -> None:
    own_folder(root)
    frames = [Image.fromarray(noise(number)) for number in range(3)]
    frames[0].save(root / "images/a.png", save_all=True, append_images=frames[1:])


@bad(
    "folder",
    "images/gone: cannot be read (No such file or directory); put the file there or take it off",
)
def image_that_is_missing(root: Path) -> None:
    row(root, "gone")


@bad("folder", "c.png: has no row in labels.csv; it is left out", level="warning")
def image_without_a_row(root: Path) -> None:
    save(own_folder(root) / "images/c.png", noise())


@bad("folder", "a.png: has the same id as images/a.jpg; rename one of the two")
def two_images_of_one_id(root: Path) -> None:
    save(own_folder(root) / "images/a.jpg", noise())


@bad("folder", "'A' and 'a' differ by case alone; rename one", level="warning")
def ids_that_differ_by_case_alone(root: Path) -> None:
    own_folder(root, ("a,cat", "A,dog"))


@bad("folder", "'b' of split 'val' is the same image as 'a' of 'train'; keep one", level="warning")
def one_image_under_two_names_in_two_splits(root: Path) -> None:
    own_folder(root, ("a,cat,train", "b,cat,val"), "image,classes,split")
    save(root / "images/b.png", noise(0))


@bad("folder", "images/a.png: lies outside the source folder (by `..` or a link); copy it")
def image_linked_from_outside(root: Path) -> None:
    own_folder(root)
    outside = save(root.parent / "outside.png", noise())
    (root / "images/a.png").unlink()
    (root / "images/a.png").symlink_to(outside)


@bad("folder", "images/a.png: cannot be read (No such file or directory)")
def image_linked_to_nothing(root: Path) -> None:
    own_folder(root)
    (root / "images/a.png").unlink()
    (root / "images/a.png").symlink_to("nothing.png")


@bad("folder", "images/a.png: ", "(")
def image_linked_to_itself(root: Path) -> None:
    own_folder(root)
    (root / "images/a.png").unlink()
    (root / "images/a.png").symlink_to("a.png")


@bad("folder", "images/more: is a link to a folder, which is not followed; move the images")
def folder_linked_to_the_one_above(root: Path) -> None:
    (own_folder(root) / "images/more").symlink_to("..")


@bad("folder", "images: lies outside the source folder (by `..` or a link); move the images")
def images_linked_from_outside(root: Path) -> None:
    own_folder(root)
    (root / "images").rename(root.parent / "images")
    (root / "images").symlink_to(root.parent / "images")


@bad("folder", "\\udcff.png: has no row in labels.csv", level="warning")
def file_name_that_is_no_unicode(root: Path) -> None:
    own_folder(root)
    save(root / "images/c.png", noise()).rename(
        os.fsdecode(os.fsencode(root) + b"/images/\xff.png")
    )


@bad("folder", "\\x1b[2J.png: has no row in labels.csv", level="warning")
def file_name_that_wipes_the_terminal(root: Path) -> None:
    save(own_folder(root) / "images/\x1b[2J.png", noise())


# Ids


@bad(
    "folder",
    "labels.csv:4: the id '../../outside' leaves the folder or has empty parts; give the path",
)
def id_that_leads_out(root: Path) -> None:
    save(root.parent / "outside.png", noise())
    row(root, "../../outside")


@bad("folder", "labels.csv:4: the id '/etc/passwd' is an absolute path or holds a backslash")
def id_that_is_an_absolute_path(root: Path) -> None:
    row(root, "/etc/passwd")


@bad("folder", "labels.csv:4: the id 'C:\\\\x' is an absolute path or holds a backslash")
def id_that_is_a_path_of_windows(root: Path) -> None:
    row(root, "C:\\x")


@bad("folder", "labels.csv:5: the id 'a\\nb' holds control characters")
def id_of_two_lines(root: Path) -> None:
    row(root, '"a\nb"')


@bad("folder", "labels.csv:4: the id 'a\\x00b' holds control characters")
def id_with_a_nul(root: Path) -> None:
    row(root, "a\0b")


@bad("folder", "labels.csv:4: the id '.hidden' begins with a dot, as hidden files do")
def id_that_begins_with_a_dot(root: Path) -> None:
    save(root / "images/.hidden.png", noise())
    row(root, ".hidden")


@bad(
    "folder",
    "labels.csv:4: the id 'x",
    "has a part of more than 240 bytes, which no file can be named",
)
def id_of_three_hundred_letters(root: Path) -> None:
    row(root, "x" * 300)


@bad("folder", "labels.csv:4: the id '' is empty or has blanks at its ends")
def id_of_no_letters(root: Path) -> None:
    row(root, "")


@bad("folder", "labels.csv:4: 'a' is listed already by", "labels.csv:2; list every image once")
def id_that_is_listed_twice(root: Path) -> None:
    row(root, "a.png")


@odd("folder")
def id_of_pictographs_blanks_and_percent_signs(root: Path) -> None:
    own_folder(root, ("🐈‍⬛ 100% a b,cat", "日本,dog"))


@bad("folder", "labels.csv:2: the split '../val' is no word of letters, digits")
def split_that_leads_out(root: Path) -> None:
    own_folder(root, ("a,cat,../val", "b,dog,train"), "image,classes,split")


# labels.csv and classes.txt


@bad("folder", "labels.csv: cannot be read (No such file or directory); put the file there")
def table_that_is_missing(root: Path) -> None:
    own_folder(root)
    (root / "labels.csv").unlink()


@bad(
    "folder", "labels.csv:1: the first line is ''; it must be image,classes or image,classes,split"
)
def table_of_no_bytes(root: Path) -> None:
    table(root, b"")


@bad("folder", "labels.csv: names no class; write class names into the column classes")
def table_of_a_header_alone(root: Path) -> None:
    table(root, b"image,classes\n")


@bad("folder", "lists no image; name images in its lists or labels")
def table_of_a_header_alone_beside_classes(root: Path) -> None:
    table(root, b"image,classes\n")
    write(root / "classes.txt", "cat\n")


@odd("folder")
def table_with_a_byte_order_mark(root: Path) -> None:
    table(root, b"\xef\xbb\xbfimage,classes\r\na,cat\r\nb,dog\r\n")


@bad("folder", "labels.csv:1: the first line is 'image;classes'; it must be image,classes")
def table_split_by_semicolons(root: Path) -> None:
    table(root, b"image;classes\na;cat\n")


@bad("folder", "labels.csv:1: the first line is 'image\\tclasses'; it must be image,classes")
def table_split_by_tabs(root: Path) -> None:
    table(root, b"image\tclasses\na\tcat\n")


@bad("folder", "labels.csv:1: the first line is 'image'; it must be image,classes")
def table_without_a_column(root: Path) -> None:
    table(root, b"image\na\n")


@bad("folder", "labels.csv:2: has 3 fields, the first line 2; separate class names with ;")
def table_with_a_field_too_many(root: Path) -> None:
    table(root, b"image,classes\na,cat,dog\n")


@bad("folder", "cannot be read as csv (unexpected end of data); mend the quotes")
def table_with_an_open_quote(root: Path) -> None:
    table(root, b'image,classes\n"a,cat\nb,dog\n')


@bad("folder", "labels.csv:2: the id 'a\\x00' holds control characters")
def table_with_a_nul(root: Path) -> None:
    table(root, b"image,classes\na\0,cat\nb,dog\n")


@bad("folder", "labels.csv:3: is not UTF-8; save the file as UTF-8")
def table_in_latin_1(root: Path) -> None:
    table(root, "image,classes\na,cat\nb,Hündin\n".encode("latin-1"))


@bad("folder", "labels.csv:1: is not UTF-8; save the file as UTF-8")
def table_in_utf_16(root: Path) -> None:
    table(root, "image,classes\na,cat\n".encode("utf-16"))


@bad("folder", "cannot be read as csv (field larger than field limit (131072))")
def table_with_a_huge_field(root: Path) -> None:
    table(root, b"image,classes\na," + b"x" * 200_000 + b"\n")


@bad("folder", "labels.csv: is larger than 268435456 bytes")
def table_of_a_gigabyte(root: Path) -> None:
    own_folder(root)
    with (root / "labels.csv").open("r+b") as file:
        file.truncate(2**30)


@bad("folder", "labels.csv: cannot be read (it is a folder, pipe or device, no file)")
def table_that_never_ends(root: Path) -> None:
    own_folder(root)
    (root / "labels.csv").unlink()
    (root / "labels.csv").symlink_to("/dev/zero")


@bad("folder", "labels.csv:2: 'lynx' is no class; valid are cat, dog")
def class_that_is_unknown(root: Path) -> None:
    own_folder(root, ("a,lynx", "b,dog;cat"))
    write(root / "classes.txt", "cat\ndog\n")


@bad("folder", "classes.txt: lists cat more than once; list every class once")
def class_that_is_named_twice(root: Path) -> None:
    own_folder(root)
    write(root / "classes.txt", "cat\ndog\ncat\n")


@bad("folder", "there are 300 classes, more than 254; choose those you need with dataset.classes")
def three_hundred_classes(root: Path) -> None:
    own_folder(root, ("a,c7", "b,c8"))
    write(root / "classes.txt", "".join(f"c{number}\n" for number in range(300)))


@bad(
    "folder",
    "'background' is the name of what is no class; leave it out: what shows no class is background",
)
def class_that_is_the_background(root: Path) -> None:
    own_folder(root, ("a,background", "b,dog;cat"))


@bad(
    "folder",
    "the class name 'c\\x07t' is empty, has blanks at its ends or holds control characters",
)
def class_with_a_bell(root: Path) -> None:
    own_folder(root, ("a,c\at", "b,dog"))


@bad(
    "folder",
    "dataset.classes: 'lynx' is no class of the source; valid are cat, dog",
    classes=["lynx"],
)
def chosen_class_that_is_unknown(root: Path) -> None:
    own_folder(root)


@bad(
    "folder",
    "dataset.classes: 'cat' is listed 2 times; list every class once",
    classes=["cat", "cat"],
)
def chosen_class_that_is_named_twice(root: Path) -> None:
    own_folder(root)


@bad("folder", "classes.txt: lists no class; write one class name a line")
def classes_that_are_none(root: Path) -> None:
    own_folder(root)
    write(root / "classes.txt", "background\n\n")


@bad("folder", "class 'dog' has no images in split 'train'; tag some", level="warning")
def class_of_no_images(root: Path) -> None:
    own_folder(root, ("a,cat", "b,cat"))
    write(root / "classes.txt", "cat\ndog\n")


@bad("folder", "has no image in split 'train'; put some there")
def table_that_holds_everything_out(root: Path) -> None:
    own_folder(root, ("a,cat,val", "b,dog,val"), "image,classes,split")


# Masks


@bad(
    "folder",
    "masks/a.png: mask of 16 x 13 pixels on an image of 16 x 12 (upright); make the mask as large",
)
def mask_of_another_size(root: Path) -> None:
    with_mask(root, mask(size=(13, 16)))


@bad(
    "folder", "masks/a.png: holds 77, which are no class; use 0..2, 255 (0 background, 255 ignore)"
)
def mask_with_an_unknown_value(root: Path) -> None:
    with_mask(root, mask((0, 0, 1, 1, 77)))


@bad("folder", "masks/a.png: holds 65535, which are no class")
def mask_of_sixteen_bits_with_an_unknown_value(root: Path) -> None:
    with_mask(root, np.full(SIZE, 65535, np.uint16))


@bad(
    "folder",
    "masks/a.png: is a color image (mode RGB), not a mask; save class numbers as a gray or",
)
def mask_in_colors(root: Path) -> None:
    with_mask(root, noise())


@bad("folder", "masks/a.png: is a color image (mode LA), not a mask")
def mask_with_alpha(root: Path) -> None:
    own_folder(root)
    (root / "masks").mkdir()
    Image.new("LA", SIZE[::-1]).save(root / "masks/a.png")


@bad("folder", "masks/a.png: is damaged, cut short or no PNG file")
def mask_that_is_a_jpeg(root: Path) -> None:
    with_mask(root, mask())
    Image.fromarray(mask()).save(root / "masks/a.png", format="JPEG")


@bad("folder", "masks/a.png: ", BOMB)
def mask_that_is_a_bomb(root: Path) -> None:
    with_mask(root, mask())
    (root / "masks/a.png").write_bytes(png(60_000, 60_000))


@bad("folder", "masks/a.png: lies outside the source folder (by `..` or a link)")
def mask_linked_from_outside(root: Path) -> None:
    own_folder(root)
    (root / "masks").mkdir()
    (root / "masks/a.png").symlink_to(save(root.parent / "outside.png", mask()))


@bad("folder", "masks/a.png: cannot be read (No such file or directory)")
def mask_linked_to_nothing(root: Path) -> None:
    own_folder(root)
    (root / "masks").mkdir()
    (root / "masks/a.png").symlink_to("nothing.png")


@bad("voc", "SegmentationClass/x1.png: cannot be read (No such file or directory)")
def mask_of_voc_linked_to_nothing(root: Path) -> None:
    voc_folder(root)
    (root / "SegmentationClass").mkdir()
    (root / "SegmentationClass/x1.png").symlink_to("nothing.png")


@bad(
    "folder",
    "masks/instances/a.png: has no instance of cat, which the semantic mask",
    level="warning",
)
def instances_that_lack_a_class(root: Path) -> None:
    with_mask(root, mask((0, 0, 4, 4, 1)))
    save(root / "masks/instances/a.png", mask())


# The folder as a whole


@bad("auto", "no such folder; give the folder of your images")
def source_that_is_missing(root: Path) -> None:
    assert not root.exists()


@bad("auto", "is a file, no folder; give the folder of your images")
def source_that_is_a_file(root: Path) -> None:
    write(root, "image")


@bad("folder", "is a file, no folder; set dataset.source to the folder of your images")
def source_that_is_a_zip(root: Path) -> None:
    root.write_bytes(b"PK\x05\x06" + bytes(18))


@bad("auto", "has none of the layouts known here; it must hold JPEGImages/ (voc)")
def source_that_is_empty(root: Path) -> None:
    root.mkdir()


@bad("folder", "images: no such folder; put the images there")
def source_without_a_folder_of_images(root: Path) -> None:
    write(root / "labels.csv", "image,classes\na,cat\n")


@bad("folder", "images/a: cannot be read (No such file or directory)")
def source_whose_folder_of_images_is_empty(root: Path) -> None:
    write(root / "labels.csv", "image,classes\na,cat\n")
    (root / "images").mkdir()


@bad("imagenet", "dataset.format: 'imagenet' is unknown; valid are scenes, voc, coco, folder")
def format_that_is_unknown(root: Path) -> None:
    own_folder(root)


# VOC


@bad("voc", "has no folder JPEGImages; set dataset.source to", "VOC2012")
def source_above_voc(root: Path) -> None:
    voc_folder(root / "VOC2012")


@bad(
    "voc",
    "train.txt: no such list; name another one, or none, in dataset.voc; lists there are: val",
)
def list_that_is_missing(root: Path) -> None:
    voc_folder(root)
    (root / "ImageSets/Segmentation/train.txt").unlink()


@bad("voc", "val.txt: lists no image; name images in it, or leave its name in dataset.voc empty")
def list_of_no_lines(root: Path) -> None:
    listed(root, "\n\n", "val")


@bad(
    "voc",
    "outside.txt: lies outside the source folder",
    lists={"train": "../../../outside", "val": "val"},
)
def list_named_outside(root: Path) -> None:
    voc_folder(root)
    write(root.parent / "outside.txt", "x1\n")


@bad("voc", "JPEGImages/x9.jpg: cannot be read (No such file or directory)")
def list_of_a_missing_image(root: Path) -> None:
    listed(root, "x1\nx9\n")


@bad(
    "voc",
    "val.txt:1: 'x1' is listed already by",
    "train.txt:1; list every image once, in one split",
)
def image_in_two_splits(root: Path) -> None:
    listed(root, "x1\n", "val")


@bad("voc", "train.txt:1: the id '../../outside' leaves the folder or has empty parts")
def list_that_leads_out(root: Path) -> None:
    listed(root, "../../outside\n")


@bad("voc", "train.txt:1: the id '/etc/passwd' is an absolute path")
def list_of_an_absolute_path(root: Path) -> None:
    listed(root, "/etc/passwd\n")


@bad("voc", "has no tags: neither labels.csv nor Annotations/ nor cls_labels.npy; add one of them")
def tags_that_are_missing(root: Path) -> None:
    voc_folder(root)
    (root / "Annotations").rename(root / "elsewhere")


@bad(
    "voc",
    "train.txt:1: 'x1' has no row or file with tags; it counts as showing no class",
    level="warning",
)
def annotation_that_is_missing(root: Path) -> None:
    voc_folder(root)
    (root / "Annotations/x1.xml").unlink()


@bad("voc", "x1.xml: declares a document type or entities; take the declaration away")
def annotation_of_a_billion_laughs(root: Path) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    xml(root, f'<!DOCTYPE a [<!ENTITY l0 "lol">{laughs}]><annotation>&l9;</annotation>')


@bad("voc", "x1.xml: declares a document type or entities; take the declaration away")
def annotation_with_an_external_entity(root: Path) -> None:
    xml(root, '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>')


@bad("voc", "x1.xml: is no sound XML (mismatched tag", "mend it")
def annotation_that_is_broken(root: Path) -> None:
    xml(root, "<annotation><object></annotation>")


@bad("voc", "x1.xml: is no sound XML")
def annotation_of_no_bytes(root: Path) -> None:
    xml(root, "")


@bad("voc", "x1.xml: '' is no class; valid are cat, dog")
def annotation_without_a_name(root: Path) -> None:
    xml(root, "<annotation><object/></annotation>")


@bad("voc", "x1.xml: 'lynx' is no class; valid are cat, dog")
def annotation_of_an_unknown_class(root: Path) -> None:
    xml(root, "<annotation><object><name>lynx</name></object></annotation>")


@bad("voc", "train.txt:1: 'x1' has no tags", level="warning")
def annotation_of_a_hundred_thousand_levels(root: Path) -> None:
    xml(root, f"<annotation>{'<a>' * 100_000}{'</a>' * 100_000}</annotation>")


@bad("voc", "x1.xml: is larger than 1048576 bytes; an annotation of VOC has a few kB")
def annotation_of_a_megabyte(root: Path) -> None:
    xml(root, f"<annotation>{' ' * 2**20}</annotation>")


@bad("voc", "cls_labels.npy: is no table of VOC tags (it asks for", "refused); use labels.csv")
def tags_in_a_hostile_pickle(root: Path) -> None:
    tags_that_are_missing(root)
    np.save(root / "cls_labels.npy", np.array(Hostile(root.parent / "written"), object))


@bad(
    "voc", "cls_labels.npy: is no table of VOC tags", "use labels.csv or Annotations/*.xml instead"
)
def tags_in_a_damaged_pickle(root: Path) -> None:
    tags_that_are_missing(root)
    np.save(root / "cls_labels.npy", {"x1": np.ones(2), "x2": np.ones(2), "y1": np.ones(2)})
    (root / "cls_labels.npy").write_bytes((root / "cls_labels.npy").read_bytes()[:-9])


@bad("voc", "cls_labels.npy: is no table of VOC tags (a row of shape (3,) for 2 classes)")
def tags_of_other_classes(root: Path) -> None:
    tags_that_are_missing(root)
    np.save(root / "cls_labels.npy", {"x1": np.ones(3)})


@dataclass(frozen=True)
class Hostile:
    """An object whose pickle makes a folder when it is loaded."""

    folder: Path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


assert b"mkdir" in pickle.dumps(Hostile(Path()))


# COCO


@bad("coco", "instances_train2017.json: is no json (", "download or export it again")
def json_cut_short(root: Path) -> None:
    coco_folder(root, [annotation(3, BOX)])
    (root / JSON).write_bytes((root / JSON).read_bytes()[:-30])


@bad("coco", "instances_train2017.json: is no json (")
def json_of_no_bytes(root: Path) -> None:
    json_text(root, "")


@bad("coco", "instances_train2017.json: is no json (")
def json_of_a_hundred_thousand_levels(root: Path) -> None:
    json_text(root, "[" * 100_000)


@bad("coco", "instances_train2017.json: is no json (")
def json_with_a_number_of_ten_thousand_digits(root: Path) -> None:
    json_text(root, f'{{"images": {"9" * 10_000}}}')


@bad("coco", "instances_train2017.json: has no list 'images'; use a file of COCO instances")
def json_of_another_kind(root: Path) -> None:
    json_text(root, "[]")


@bad("coco", "has no annotations/instances_train*.json; name your file in dataset.coco.train")
def json_that_is_missing(root: Path) -> None:
    coco_folder(root, [])
    (root / JSON).unlink()


@bad(
    "coco",
    "outside.json: lies outside the source folder (by `..` or a link); copy it",
    annotations={"train": ("../outside.json", "train2017")},
)
def json_named_outside(root: Path) -> None:
    coco_folder(root, [])
    (root / JSON).rename(root.parent / "outside.json")


@bad("coco", "image 7 lacks a sound id, file_name, height or width; export the file again")
def image_of_a_height_that_is_no_number(root: Path) -> None:
    changed(root, lambda content: content["images"][0].update(height=float("nan")))


@bad("coco", "image 7 lacks a sound id, file_name, height or width")
def image_of_a_height_in_words(root: Path) -> None:
    changed(root, lambda content: content["images"][0].update(height="12"))


@bad("coco", "image 7: outlines for an image of 16 x -12 pixels, but the file has 16 x 12")
def image_of_a_negative_height(root: Path) -> None:
    changed(root, lambda content: content["images"][0].update(height=-12))


@bad("coco", "two images of id 7; give each its own")
def images_of_one_number(root: Path) -> None:
    changed(root, lambda content: content["images"][1].update(id=7))


@bad("coco", "image 7: the id '../../outside' leaves the folder or has empty parts")
def file_name_that_leads_out(root: Path) -> None:
    changed(root, lambda content: content["images"][0].update(file_name="../../outside.png"))


@bad("coco", "image 7: the id '/etc/passwd' is an absolute path")
def file_name_that_is_an_absolute_path(root: Path) -> None:
    changed(root, lambda content: content["images"][0].update(file_name="/etc/passwd"))


@bad("coco", "image 7: the id '\\ud800' holds control characters")
def file_name_of_half_a_letter(root: Path) -> None:
    changed(root, lambda content: content["images"][0].update(file_name="\ud800.png"))


@bad("coco", "annotations of image 99, which is not listed; export the file again")
def annotation_of_a_missing_image(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, BOX, image=99),))


@bad("coco", "is of category 5, which is no class; valid are 3, 9")
def annotation_of_a_missing_category(root: Path) -> None:
    changed(root, lambda content: None, (annotation(5, BOX),))


@bad("coco", "is of category [3], which is no class; valid are 3, 9")
def annotation_of_a_category_of_another_kind(root: Path) -> None:
    changed(root, lambda content: content["annotations"][0].update(category_id=[3]))


@bad("coco", "has categories without id or name; give each an id and a name")
def category_of_an_endless_number(root: Path) -> None:
    changed(root, lambda content: content["categories"][0].update(id=float("inf")))


@bad("coco", "has categories without id or name; give each an id and a name")
def category_without_a_name(root: Path) -> None:
    changed(root, lambda content: content["categories"][0].update(name=None))


@bad("coco", "has categories of equal id or name; give each its own")
def categories_of_one_name(root: Path) -> None:
    coco_folder(root, [], [(1, "cat"), (2, "cat")])


@bad(
    "coco", "the class name '\\ud800' is empty, has blanks at its ends or holds control characters"
)
def category_of_half_a_letter(root: Path) -> None:
    coco_folder(root, [annotation(3, BOX)], [(3, "\ud800"), (9, "dog")])


@bad("coco", "image 7: a polygon lies far outside the image; mend or delete the annotation")
def polygon_far_out_of_the_image(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, [[0, 0, 1e9, 0, 5, 5]]),))


@bad("coco", "image 7: a polygon lies far outside the image")
def polygon_of_no_numbers(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, [[float("nan")] * 6]),))


@bad("coco", "image 7: a polygon holds something else than numbers")
def polygon_of_words(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, [["a"] * 6]),))


@bad("coco", "image 7: a polygon needs at least three points")
def polygon_of_a_point(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, [[1, 2]]),))


@bad("coco", "image 7: the segmentation is neither polygons nor run lengths")
def segmentation_of_another_kind(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, "outline"),))


@bad("coco", "image 7: run lengths of size [16, 12] on an image of [12, 16] (height, width)")
def run_lengths_of_another_size(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, {"size": [16, 12], "counts": [192]}),))


@bad("coco", "image 7: run lengths of size 12 on an image of [12, 16]")
def run_lengths_of_a_size_that_is_no_list(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, {"size": 12, "counts": [192]}),))


@bad("coco", "image 7: run lengths add up to 190, not to 192 pixels")
def run_lengths_that_do_not_fit(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, {"size": [12, 16], "counts": [100, 90]}),))


@bad("coco", "image 7: the counts of run lengths are no list of numbers from 0 and no string")
def run_lengths_below_nothing(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, {"size": [12, 16], "counts": [200, -8]}),))


@bad("coco", "image 7: the string of run lengths is damaged")
def run_lengths_in_a_damaged_string(root: Path) -> None:
    changed(root, lambda content: None, (annotation(3, {"size": [12, 16], "counts": "é"}),))


@bad("coco", "train2017: no such folder; put the images there")
def folder_of_images_that_is_missing(root: Path) -> None:
    coco_folder(root, [])
    (root / "train2017").rename(root / "elsewhere")

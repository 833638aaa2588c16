"""Bad and odd datasets by name, each with parts of the message that it gets."""

import json
import os
import shutil
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

Edit = Callable[[Path], object]
BOX = [[2, 1, 8, 1, 8, 6, 2, 6]]
JSON = "annotations/instances_train2017.json"
DAMAGED = "a.png: is damaged, truncated or not a JPEG/PNG/WEBP file"
SPLIT = "image,classes,split"


@dataclass(frozen=True, slots=True)
class Case:
    """A dataset: a sound source of a format, damaged by `edits`.

    message: parts of one line of the problems; level: of that line, None for an odd but sound
    dataset without any problem; options: of build.
    """

    format: str
    message: tuple[str, ...]
    edits: tuple[Edit, ...]
    level: Literal["error", "warning"] | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self, root: Path) -> None:
        """Create the dataset."""
        if self.format == "folder":
            own_folder(root)
        elif self.format == "voc":
            voc_folder(root)
        elif self.format == "coco":
            coco_folder(root, [annotation(3, BOX), annotation(9, BOX, image=8)])
        for edit in self.edits:
            edit(root)


def bad(format_: str, message: str | tuple[str, ...], *edits: Edit, **options: Any) -> Case:
    """A dataset with an error."""
    parts = (message,) if isinstance(message, str) else message
    return Case(format_, parts, edits, "error", options)


def doubtful(format_: str, message: str, *edits: Edit) -> Case:
    """A dataset with a warning."""
    return Case(format_, (message,), edits, "warning")


def odd(format_: str, *edits: Edit) -> Case:
    """An unusual dataset without any problem."""
    return Case(format_, (), edits, None)


def content(path: str, data: bytes | str) -> Edit:
    """Replace or add a file."""

    def edit(root: Path) -> None:
        full = root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(data.encode() if isinstance(data, str) else data)

    return edit


def image(path: str, array: np.ndarray) -> Edit:
    """Replace or add an image or a mask."""
    return lambda root: save(root / path, array)


def saved(path: str, pixels: Image.Image, **options: Any) -> Edit:
    """Replace an image in a color mode or format of its own."""
    return lambda root: pixels.save(root / path, **options)


def truncated(path: str, share: float = 0.5) -> Edit:
    """Keep the first part of a file."""

    def edit(root: Path) -> None:
        data = (root / path).read_bytes()
        (root / path).write_bytes(data[: int(share * len(data))])

    return edit


def removed(path: str) -> Edit:
    """Move a file or folder away."""
    return lambda root: (root / path).rename(root.parent / "removed")


def linked(path: str, target: str) -> Edit:
    """Replace or add a link."""

    def edit(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).unlink(missing_ok=True)
        (root / path).symlink_to(target)

    return edit


def rows(*lines: str, header: str = "image,classes") -> Edit:
    """Make the folder of these rows, each with an image."""

    def edit(root: Path) -> None:
        shutil.rmtree(root / "images")
        own_folder(root, lines, header)

    return edit


def row(line: str) -> Edit:
    """Append a row of no image of its own."""

    def edit(root: Path) -> None:
        with (root / "labels.csv").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    return edit


def with_mask(array: np.ndarray) -> Edit:
    """Add masks/a.png for the classes cat and dog."""

    def edit(root: Path) -> None:
        write(root / "classes.txt", "cat\ndog\n")
        save(root / "masks/a.png", array)

    return edit


def listed(text: str, split: str = "train") -> Edit:
    """Replace a list of VOC."""
    return content(f"ImageSets/Segmentation/{split}.txt", text)


def xml(text: str) -> Edit:
    """Replace the annotation of image x1."""
    return content("Annotations/x1.xml", text)


def changed(section: str, number: int = 0, **values: Any) -> Edit:
    """Change a row of the JSON of COCO."""

    def edit(root: Path) -> None:
        whole = json.loads((root / JSON).read_text())
        whole[section][number].update(values)
        write(root / JSON, json.dumps(whole))

    return edit


def outline(segmentation: object) -> Edit:
    """Replace the outline of the first object of COCO."""
    return changed("annotations", segmentation=segmentation)


def flip_checksum(root: Path) -> None:
    data = bytearray((root / "images/a.png").read_bytes())
    data[20] ^= 1
    (root / "images/a.png").write_bytes(data)


def image_as_folder(root: Path) -> None:
    (root / "images/a.png").unlink()
    (root / "images/a").mkdir()


def animation(root: Path) -> None:
    frames = [Image.fromarray(noise(number)) for number in range(3)]
    frames[0].save(root / "images/a.png", save_all=True, append_images=frames[1:])


def invalid_unicode(root: Path) -> None:
    name = os.fsdecode(os.fsencode(root) + b"/images/\xff.png")
    save(root / "images/c.png", noise()).rename(name)


def images_outside(root: Path) -> None:
    (root / "images").rename(root.parent / "images")
    (root / "images").symlink_to(root.parent / "images")


@dataclass(frozen=True)
class Hostile:
    """An object whose pickle makes a folder when it is loaded."""

    folder: str

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.folder,)


def multihot(table: object) -> Edit:
    """Replace the annotations by cls_labels.npy."""

    def edit(root: Path) -> None:
        (root / "Annotations").rename(root / "elsewhere")
        np.save(root / "cls_labels.npy", np.array(table, object))

    return edit


GRAY = noise()[..., 0]
IMAGES = {
    "image_empty": bad("folder", DAMAGED, content("images/a.png", b"")),
    "image_truncated": bad("folder", (DAMAGED, "save it again"), truncated("images/a.png")),
    "jpeg_truncated": bad("voc", "x1.jpg: is damaged, trunc", truncated("JPEGImages/x1.jpg", 0.9)),
    "image_with_flipped_checksum": bad("folder", DAMAGED, flip_checksum),
    "image_is_a_web_page": bad("folder", DAMAGED, content("images/a.png", "<!doctype html>")),
    "image_is_a_tiff": bad(
        "folder", DAMAGED, saved("images/a.png", Image.fromarray(noise()), format="TIFF")
    ),
    "image_is_a_folder": bad("folder", "images/a: cannot be read", image_as_folder),
    "image_missing": bad("folder", "gone: cannot be read (No such file", row("gone,cat")),
    "image_unsupported": doubtful(
        "folder", "scan.bmp: has an unsupported format; save it", image("images/scan.bmp", noise())
    ),
    "image_without_row": doubtful(
        "folder", "c.png: has no row in labels.csv; it is", image("images/c.png", noise())
    ),
    "images_of_equal_id": bad(
        "folder", "a.png: has the same id as images/a.jpg; ren", image("images/a.jpg", noise())
    ),
    "ids_equal_but_for_case": doubtful("folder", "'A' and 'a' differ only", rows("a,cat", "A,dog")),
    "equal_images_in_two_splits": doubtful(
        "folder",
        "'b' of split 'val' is the same image as 'a' of 'train'; keep only one copy",
        rows("a,cat,train", "b,cat,val", header=SPLIT),
        image("images/b.png", noise(0)),
    ),
    "image_linked_from_outside": bad(
        "folder",
        "images/a.png: lies outside the source folder (through `..` or a link); copy it",
        image("../outside.png", noise()),
        linked("images/a.png", "../../outside.png"),
    ),
    "image_linked_to_nothing": bad(
        "folder", "images/a.png: cannot be read (No such", linked("images/a.png", "nothing.png")
    ),
    "image_linked_to_itself": bad("folder", "a.png: ", linked("images/a.png", "a.png")),
    "folder_linked_to_its_parent": bad(
        "folder", "images/more: is a link to a folder, which is not", linked("images/more", "..")
    ),
    "images_linked_from_outside": bad("folder", "images: lies outside the source", images_outside),
    "file_name_with_invalid_unicode": doubtful("folder", "\\udcff.png: has no", invalid_unicode),
    "file_name_with_escapes": doubtful(
        "folder", "\\x1b[2J.png: has no row", image("images/\x1b[2J.png", noise())
    ),
    "jpeg_called_png": odd(
        "folder", saved("images/a.png", Image.fromarray(noise()), format="JPEG")
    ),
    "image_of_one_pixel": odd("folder", image("images/a.png", noise(0, (1, 1)))),
    "image_in_cmyk": odd("voc", saved("JPEGImages/x1.jpg", Image.new("CMYK", SIZE[::-1], 99))),
    "image_of_16_bits": odd("folder", image("images/a.png", GRAY.astype(np.uint16) * 257)),
    "image_with_alpha": odd("folder", image("images/a.png", np.dstack([noise(), GRAY]))),
    "image_animated": odd("folder", animation),
}
TABLES = {
    "id_leaving_the_folder": bad(
        "folder", "labels.csv:4: the id '../../x' leaves the folder or has", row("../../x,cat")
    ),
    "id_absolute": bad("folder", "the id '/etc/passwd' is an absolute path", row("/etc/passwd,")),
    "id_of_windows": bad("folder", "the id 'C:\\\\x' is an absolute path", row("C:\\x,cat")),
    "id_of_two_lines": bad("folder", "the id 'a\\nb' has control", row('"a\nb",cat')),
    "id_with_nul": bad("folder", "the id 'a\\x00b' has control", row("a\0b,cat")),
    "id_hidden": bad("folder", "the id '.hidden' starts with a dot, and", row(".hidden,cat")),
    "id_too_long": bad("folder", ("the id 'x", "more than 240 bytes"), row("x" * 300 + ",cat")),
    "id_empty": bad("folder", "the id '' is empty or has blanks at its ends", row(",cat")),
    "id_listed_twice": bad(
        "folder", ("'a' is already listed by", "csv:2; list every image once"), row("a.png,cat")
    ),
    "ids_with_emoji_and_percent": odd("folder", rows("🐈‍⬛ 100% a b,cat", "日本,dog")),
    "split_leaving_the_folder": bad(
        "folder", "the split '../val' is not a word", rows("a,cat,../val", "b,dog,", header=SPLIT)
    ),
    "table_missing": bad("folder", "labels.csv: cannot be read (No", removed("labels.csv")),
    "table_empty": bad("folder", "csv:1: the first line is ''; it must", content("labels.csv", "")),
    "table_without_rows": bad(
        "folder",
        "labels.csv: names no class; write class",
        content("labels.csv", "image,classes\n"),
    ),
    "table_without_rows_but_classes": bad(
        "folder",
        "lists no image; add",
        content("labels.csv", "image,classes\n"),
        content("classes.txt", "cat\n"),
    ),
    "table_with_bom_and_crlf": odd(
        "folder", content("labels.csv", b"\xef\xbb\xbfimage,classes\r\na,cat\r\nb,dog\r\n")
    ),
    "table_with_semicolons": bad(
        "folder",
        "csv:1: the first line is 'image;classes'; it",
        content("labels.csv", "image;classes"),
    ),
    "table_with_tabs": bad(
        "folder",
        "first line is 'image\\tclasses'",
        content("labels.csv", "image\tclasses\na\tcat\n"),
    ),
    "table_with_extra_field": bad(
        "folder", "labels.csv:4: has 3 fields, the first line 2; separate", row("a,cat,dog")
    ),
    "table_with_open_quote": bad(
        "folder", "cannot be read as CSV (unexpected end of data); fix", row('"a,cat')
    ),
    "table_in_latin_1": bad(
        "folder",
        "csv:3: is not UTF-8; save",
        content("labels.csv", "i,c\na,b\nü".encode("latin-1")),
    ),
    "table_in_utf_16": bad(
        "folder", "csv:1: is not UTF-8", content("labels.csv", "image,classes".encode("utf-16"))
    ),
    "class_unknown": bad(
        "folder",
        "labels.csv:2: 'lynx' is not a class; the classes are cat, dog",
        rows("a,lynx", "b,dog;cat"),
        content("classes.txt", "cat\ndog\n"),
    ),
    "class_named_twice": bad(
        "folder", "classes.txt: lists cat more than", content("classes.txt", "cat\ndog\ncat")
    ),
    "classes_too_many": bad(
        "folder",
        "there are 300 classes, more than 254; choose a subset with dataset.classes",
        rows("a,c7", "b,c8"),
        content("classes.txt", "\n".join(f"c{number}" for number in range(300))),
    ),
    "class_background": bad(
        "folder", "'background' cannot be a class; remove it", rows("a,background", "b,dog;cat")
    ),
    "class_unprintable": bad("folder", "class name 'c\\x07t' is empty, has", rows("a,c\at", "b,x")),
    "chosen_class_unknown": bad(
        "folder", "'lynx' is not a class of the source; valid are cat, dog", classes=["lynx"]
    ),
    "chosen_class_repeated": bad(
        "folder", "dataset.classes: 'cat' is listed 2 times", classes=["cat", "cat"]
    ),
    "classes_empty": bad("folder", "lists no class", content("classes.txt", "background\n\n")),
    "class_without_images": doubtful(
        "folder",
        "class 'cow' has no images in split 'train'; tag some",
        content("classes.txt", "cat\ncow\ndog\n"),
    ),
    "everything_held_out": bad(
        "folder", "no image in split 'train'; put", rows("a,cat,val", "b,dog,val", header=SPLIT)
    ),
    "only_held_out_images_tagged": bad(
        "folder", "'train' that is tagged with a", rows("a,cat,val", "b,,train", header=SPLIT)
    ),
}
MASKS = {
    "mask_of_another_size": bad(
        "folder",
        "masks/a.png: mask of 16 x 13 pixels on an image of 16 x 12 (upright); resize the mask",
        with_mask(mask(size=(13, 16))),
    ),
    "mask_with_unknown_value": bad(
        "folder",
        "masks/a.png: has values without a class: 77; use 0..2, 255 (0 background, 255 ignore)",
        with_mask(mask((0, 0, 1, 1, 77))),
    ),
    "mask_of_16_bits_with_unknown_value": bad(
        "folder", "without a class: 65535", with_mask(np.full(SIZE, 65535, np.uint16))
    ),
    "mask_in_color": bad(
        "folder", "a.png: is a color image (mode RGB), not a mask; save", with_mask(noise())
    ),
    "mask_is_a_jpeg": bad(
        "folder",
        "masks/a.png: is damaged, truncated or not a PNG file",
        with_mask(mask()),
        saved("masks/a.png", Image.fromarray(mask()), format="JPEG"),
    ),
    "mask_linked_from_outside": bad(
        "folder",
        "masks/a.png: lies outside the source folder",
        image("../outside.png", mask()),
        linked("masks/a.png", "../../outside.png"),
    ),
    "mask_linked_to_nothing": bad(
        "folder", "masks/a.png: cannot be read (No such", linked("masks/a.png", "nothing.png")
    ),
    "mask_of_voc_linked_to_nothing": bad(
        "voc", "Class/x1.png: cannot be read", linked("SegmentationClass/x1.png", "nothing.png")
    ),
    "instances_without_a_class": doubtful(
        "folder",
        "instances/a.png: has no instance of cat, but the semantic mask has",
        with_mask(mask((0, 0, 4, 4, 1))),
        image("masks/instances/a.png", mask()),
    ),
}
SOURCES = {
    "source_missing": bad("auto", "no such folder; name the folder of your images"),
    "source_is_a_file": bad("auto", "is a file, not a folder; name", lambda root: write(root, "x")),
    "source_empty": bad("auto", "none of the known layouts; it must", lambda root: root.mkdir()),
    "images_missing": bad("folder", "images: no such folder; put the images", removed("images")),
}
VOC = {
    "voc_folder_above": bad(
        "voc",
        ("has no folder JPEGImages; set dataset.source to", "VOC2012"),
        lambda root: root.rename(root.parent / "moved"),
        lambda root: root.mkdir(),
        lambda root: (root.parent / "moved").rename(root / "VOC2012"),
    ),
    "list_missing": bad(
        "voc",
        "train.txt: no such list; name another one, or none, in dataset.voc; the lists are val",
        removed("ImageSets/Segmentation/train.txt"),
    ),
    "list_empty": bad("voc", "val.txt: lists no image; add images, or leave", listed("\n", "val")),
    "list_outside": bad(
        "voc",
        "outside.txt: lies outside the source folder",
        content("../outside.txt", "x1\n"),
        lists={"train": "../../../outside", "val": "val"},
    ),
    "list_of_missing_image": bad("voc", "JPEGImages/x9.jpg: cannot be read", listed("x1\nx9\n")),
    "image_in_two_splits": bad(
        "voc", ("val.txt:1: 'x1' is already listed by", "train.txt:1; list"), listed("x1", "val")
    ),
    "list_leaving_the_folder": bad("voc", "train.txt:1: the id '../x' leaves", listed("../x\n")),
    "tags_missing": bad("voc", "has no tags: neither labels.csv nor", removed("Annotations")),
    "annotation_missing": doubtful(
        "voc", "train.txt:1: 'x1' has no row or file with tags; it", removed("Annotations/x1.xml")
    ),
    "annotation_broken": bad("voc", "not valid XML (mismatched tag", xml("<a><object></a>")),
    "annotation_with_external_entity": bad(
        "voc",
        "x1.xml: is not valid XML (undefined entity",
        xml('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>'),
    ),
    "annotation_empty": bad("voc", "x1.xml: is not valid XML", xml("")),
    "annotation_without_name": bad(
        "voc", "x1.xml: '' is not a class; the classes", xml("<annotation><object/></annotation>")
    ),
    "annotation_of_unknown_class": bad(
        "voc", "x1.xml: 'lynx' is not a class", xml("<a><object><name>lynx</name></object></a>")
    ),
    "multihot_hostile": bad("voc", "cls_labels.npy: is not a table", multihot(Hostile("written"))),
    "multihot_truncated": bad(
        "voc",
        "cls_labels.npy: is not a table of VOC tags",
        multihot({"x1": np.ones(2)}),
        truncated("cls_labels.npy", 0.9),
    ),
    "multihot_of_other_classes": bad(
        "voc", "(a row of shape (3,) for 2 classes)", multihot({"x1": np.ones(3)})
    ),
}
COCO = {
    "json_truncated": bad("coco", ("2017.json: is not valid JSON (", "again"), truncated(JSON)),
    "json_empty": bad("coco", "2017.json: is not valid JSON (", content(JSON, "")),
    "json_of_another_kind": bad("coco", "has no list 'images'; use a file", content(JSON, "[]")),
    "json_missing": bad("coco", "has no annotations/instances_train*.json; name", removed(JSON)),
    "json_outside": bad(
        "coco",
        "removed: lies outside the source folder",
        removed(JSON),
        annotations={"train": ("../removed", "train2017")},
    ),
    "height_in_words": bad("coco", "image 7 lacks a valid id", changed("images", height="12")),
    "height_negative": bad(
        "coco", "for an image of 16 x -12 pixels, but the file has", changed("images", height=-12)
    ),
    "images_of_one_id": bad("coco", "two images have id 7; make", changed("images", 1, id=7)),
    "file_name_leaving": bad(
        "coco", "the id '../x' leaves", changed("images", file_name="../x.png")
    ),
    "file_name_surrogate": bad(
        "coco", "the id '\\ud800' has control", changed("images", file_name="\ud800.png")
    ),
    "annotation_of_missing_image": bad(
        "coco", "of image 99, which is not listed; export", changed("annotations", image_id=99)
    ),
    "annotation_of_missing_category": bad(
        "coco", "has category 5, which is not a class", changed("annotations", category_id=5)
    ),
    "annotation_of_a_category_list": bad(
        "coco", "has category [3], which is not", changed("annotations", category_id=[3])
    ),
    "category_without_name": bad("coco", "without id or name; g", changed("categories", name=None)),
    "category_id_infinite": bad(
        "coco", "without id or name", changed("categories", id=float("inf"))
    ),
    "categories_of_one_name": bad("coco", "equal ids or names", changed("categories", name="dog")),
    "polygon_far_outside": bad(
        "coco", "image 7: a polygon lies far outside the image", outline([[0, 0, 1e9, 0, 5, 5]])
    ),
    "polygon_of_nan": bad("coco", "far outside the image; fix", outline([[float("nan")] * 6])),
    "polygon_of_words": bad("coco", "something other than numbers", outline([["a"] * 6])),
    "polygon_of_one_point": bad("coco", "of at least three points", outline([[1, 2]])),
    "segmentation_of_text": bad("coco", "neither polygons nor RLE", outline("outline")),
    "rle_of_another_size": bad(
        "coco", "RLE of size [16, 12] on an image of", outline({"size": [16, 12], "counts": [192]})
    ),
    "rle_too_short": bad(
        "coco", "do not add up to 192 pixels", outline({"size": [12, 16], "counts": [100, 90]})
    ),
    "rle_negative": bad(
        "coco", "RLE is damaged, or its", outline({"size": [12, 16], "counts": [200, -8]})
    ),
    "rle_damaged_string": bad(
        "coco", "the RLE is damaged", outline({"size": [12, 16], "counts": "é"})
    ),
    "folder_of_images_missing": bad("coco", "train2017: no such folder; put", removed("train2017")),
}
CASES: Mapping[str, Case] = {**IMAGES, **TABLES, **MASKS, **SOURCES, **VOC, **COCO}

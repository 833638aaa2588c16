"""Bad and odd datasets by name, each with parts of the message that it gets."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
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


own, voc, coco = (partial(bad, name) for name in ("folder", "voc", "coco"))


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


def of_a_project(root: Path) -> None:
    """Add the root category that Roboflow writes."""
    whole = json.loads((root / JSON).read_text())
    for row in whole["categories"]:
        row["supercategory"] = "pets"
    whole["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
    write(root / JSON, json.dumps(whole))


def outline(segmentation: object) -> Edit:
    """Replace the outline of the first object of COCO."""
    return changed("annotations", segmentation=segmentation)


def animation(root: Path) -> None:
    frames = [Image.fromarray(noise(number)) for number in range(3)]
    frames[0].save(root / "images/a.png", save_all=True, append_images=frames[1:])


def invalid_unicode(root: Path) -> None:
    name = os.fsdecode(os.fsencode(root) + b"/images/\xff.png")
    save(root / "images/c.png", noise()).rename(name)


def images_outside(root: Path) -> None:
    (root / "images").rename(root.parent / "images")
    (root / "images").symlink_to(root.parent / "images")


def multihot(table: object) -> Edit:
    """Replace the annotations by cls_labels.npy."""

    def edit(root: Path) -> None:
        (root / "Annotations").rename(root / "elsewhere")
        np.save(root / "cls_labels.npy", np.array(table, object))

    return edit


IMAGES = {
    "image_empty": own(DAMAGED, content("images/a.png", b"")),
    "image_truncated": own((DAMAGED, "save it again"), truncated("images/a.png")),
    "jpeg_truncated": voc("x1.jpg: is damaged, trunc", truncated("JPEGImages/x1.jpg", 0.9)),
    "image_is_a_tiff": own(DAMAGED, saved("images/a.png", Image.fromarray(noise()), format="TIFF")),
    "image_missing": own("gone: cannot be read (No such file", row("gone,cat")),
    "image_unsupported": doubtful(
        "folder", "scan.bmp: has an unsupported format; save it", image("images/scan.bmp", noise())
    ),
    "image_without_row": doubtful(
        "folder", "c.png: has no row in labels.csv; it is", image("images/c.png", noise())
    ),
    "images_of_equal_id": own(
        "a.png: has the same id as images/a.jpg; ren", image("images/a.jpg", noise())
    ),
    "ids_equal_but_for_case": doubtful("folder", "'A' and 'a' differ only", rows("a,cat", "A,dog")),
    "equal_images_in_two_splits": doubtful(
        "folder",
        "'b' of split 'val' is the same image as 'a' of 'train'; keep only one copy",
        rows("a,cat,train", "b,cat,val", header=SPLIT),
        image("images/b.png", noise(0)),
    ),
    "image_linked_from_outside": own(
        "images/a.png: lies outside the source folder (through `..` or a link); copy it",
        image("../outside.png", noise()),
        linked("images/a.png", "../../outside.png"),
    ),
    "image_linked_to_nothing": own(
        "images/a.png: cannot be read (No such", linked("images/a.png", "nothing.png")
    ),
    "folder_linked_to_its_parent": own(
        "images/more: is a link to a folder, which is not", linked("images/more", "..")
    ),
    "images_linked_from_outside": own("images: lies outside the source", images_outside),
    "file_name_with_invalid_unicode": doubtful("folder", "\\udcff.png: has no", invalid_unicode),
    "file_name_with_escapes": doubtful(
        "folder", "\\x1b[2J.png: has no row", image("images/\x1b[2J.png", noise())
    ),
    "jpeg_called_png": odd(
        "folder", saved("images/a.png", Image.fromarray(noise()), format="JPEG")
    ),
    "image_of_suffix_jfif": odd(
        "folder",
        removed("images/a.png"),
        saved("images/a.jfif", Image.fromarray(noise()), format="JPEG"),
    ),
    "image_of_one_pixel": odd("folder", image("images/a.png", noise(0, (1, 1)))),
    "image_animated": odd("folder", animation),
}
TABLES = {
    "id_leaving_the_folder": own(
        "labels.csv:4: the id '../../x' leaves the folder or has", row("../../x,cat")
    ),
    "id_absolute": own("the id '/etc/passwd' is an absolute path", row("/etc/passwd,")),
    "id_of_windows": own("the id 'C:\\\\x' is an absolute path", row("C:\\x,cat")),
    "id_of_two_lines": own("the id 'a\\nb' has control", row('"a\nb",cat')),
    "id_hidden": own("the id '.hidden' starts with a dot, and", row(".hidden,cat")),
    "id_too_long": own(("the id 'x", "more than 240 bytes"), row("x" * 300 + ",cat")),
    "id_empty": own("the id '' is empty or has blanks at its ends", row(",cat")),
    "id_listed_twice": own(
        ("'a' is already listed by", "csv:2; list every image once"), row("a.png,cat")
    ),
    "ids_with_emoji_and_percent": odd("folder", rows("🐈‍⬛ 100% a b,cat", "日本,dog")),
    "split_leaving_the_folder": own(
        "the split '../val' is not a word", rows("a,cat,../val", "b,dog,", header=SPLIT)
    ),
    "table_missing": own("labels.csv: cannot be read (No", removed("labels.csv")),
    "table_empty": own("csv:1: the first line is ''; it must", content("labels.csv", "")),
    "table_without_rows": own(
        "labels.csv: names no class; write class", content("labels.csv", "image,classes\n")
    ),
    "table_without_rows_but_classes": own(
        "lists no image; add",
        content("labels.csv", "image,classes\n"),
        content("classes.txt", "cat\n"),
    ),
    "table_with_extra_field": own(
        "labels.csv:4: has 3 fields, the first line 2; separate", row("a,cat,dog")
    ),
    "table_with_open_quote": own(
        "cannot be read as CSV (unexpected end of data); fix", row('"a,cat')
    ),
    "table_in_latin_1": own(
        "csv:3: is not UTF-8; save", content("labels.csv", "i,c\na,b\nü".encode("latin-1"))
    ),
    "class_unknown": own(
        "labels.csv:2: 'lynx' is not a class; the classes are cat, dog",
        rows("a,lynx", "b,dog;cat"),
        content("classes.txt", "cat\ndog\n"),
    ),
    "class_named_twice": own(
        "classes.txt: lists cat more than", content("classes.txt", "cat\ndog\ncat")
    ),
    "classes_too_many": own(
        "there are 255 classes, more than 254; choose a subset with dataset.classes",
        rows("a,c7", "b,c8"),
        content("classes.txt", "\n".join(f"c{number}" for number in range(255))),
    ),
    "class_background": doubtful(
        "folder", "csv:2: 'a' has no tags; ignore", rows("a,_Background_", "b,dog;cat;__ignore__")
    ),
    "chosen_class_background": own(
        "'background' cannot be a class; remove it", classes=["background"]
    ),
    "classes_twins": doubtful(
        "folder", "classes 'Cat' and 'cat' differ only in case", rows("a,Cat", "b,cat")
    ),
    "classes_split_at_a_blank": doubtful(
        "folder",
        "read as two classes, which always occur together: 'brown bear', 'polar bear'; separate",
        rows("a,polar bear", "b,brown bear"),
    ),
    "separators_of_two_kinds": own(
        ("labels.csv:3: the class names are separated by", "use ; everywhere, or list the"),
        rows("a,cat;dog", '"b","cat,dog"'),
    ),
    "separators_of_two_kinds_but_known": odd(
        "folder",
        content("labels.csv", 'image,classes\na,"cat,dog"\nb,cat|dog\n'),
        content("classes.txt", "cat\ndog"),
    ),
    "split_of_another_name": doubtful(
        "folder",
        "dog, test: splits that are neither",
        rows("a,cat,Training", "b,cat,test", "c,cat,dog", header=SPLIT),
    ),
    "suffix_in_another_case": odd(
        "folder", content("labels.csv", "image,classes\nA.JPG,cat\nimages/b.jpeg,dog")
    ),
    "class_unprintable": own("class name 'c\\x07t' is empty, has", rows("a,c\at", "b,x")),
    "chosen_class_repeated": own(
        "dataset.classes: 'cat' is listed 2 times", classes=["cat", "cat"]
    ),
    "classes_empty": own("lists no class", content("classes.txt", "background\n\n")),
    "class_without_images": doubtful(
        "folder",
        "class 'cow' has no images in split 'train'; tag some",
        content("classes.txt", "cat\ncow\ndog\n"),
    ),
    "everything_held_out": own(
        "no image in split 'train'; put", rows("a,cat,val", "b,dog,val", header=SPLIT)
    ),
    "chosen_class_without_tags": own(
        "'train' that is tagged with a",
        rows("a,cat", "b,cat"),
        content("classes.txt", "cat\ndog\n"),
        classes=["dog"],
    ),
    "only_held_out_images_tagged": own(
        "'train' that is tagged with a", rows("a,cat,val", "b,,train", header=SPLIT)
    ),
}
MASKS = {
    "mask_of_another_size": own(
        "masks/a.png: mask of 16 x 13 pixels on an image of 16 x 12 (upright); resize the mask",
        with_mask(mask(size=(13, 16))),
    ),
    "mask_with_unknown_value": own(
        "masks/a.png: has values without a class: 77; use 0..2, 255 (0 background, 255 ignore)",
        with_mask(mask((0, 0, 1, 1, 77))),
    ),
    "mask_of_16_bits_with_unknown_value": own(
        "without a class: 65535", with_mask(np.full(SIZE, 65535, np.uint16))
    ),
    "mask_in_color": own(
        "a.png: is a color image (mode RGB), not a mask; save", with_mask(noise())
    ),
    "mask_is_a_jpeg": own(
        "masks/a.png: is damaged, truncated or not a PNG file",
        with_mask(mask()),
        saved("masks/a.png", Image.fromarray(mask()), format="JPEG"),
    ),
    "mask_linked_from_outside": own(
        "masks/a.png: lies outside the source folder",
        image("../outside.png", mask()),
        linked("masks/a.png", "../../outside.png"),
    ),
    "mask_linked_to_nothing": own(
        "masks/a.png: cannot be read (No such", linked("masks/a.png", "nothing.png")
    ),
    "masks_of_255": own(
        "255 is the only value besides 0 (2 masks of tagged images); 255 means pixels to ignore: s",
        content("classes.txt", "cat\ndog\n"),
        image("masks/a.png", mask((0, 0, 4, 4, 255))),
        image("masks/b.png", mask((0, 0, 5, 4, 255))),
    ),
    "mask_of_255_among_others": doubtful(
        "folder",
        "masks/a.png: the mask lacks cat, against the tags; 255 means pixels to ignore",
        content("classes.txt", "cat\ndog\n"),
        image("masks/a.png", mask((0, 0, 4, 4, 255))),
        image("masks/b.png", mask((0, 0, 5, 4, 1), (6, 6, 8, 8, 2))),
    ),
    "masks_in_another_order": own(
        "the values follow another order than the list of classes: 1 is dog, 2 is cat; list",
        rows("a,cat", "b,dog", "c,cat;dog"),
        content("classes.txt", "cat\ndog\n"),
        image("masks/a.png", mask((0, 0, 4, 4, 2))),
        image("masks/b.png", mask((0, 0, 4, 4, 1))),
    ),
    "masks_from_0": own(
        "the values begin with 0 for cat; add 1 to all values: 0 is the background",
        rows("a,cat", "b,dog", "c,cat;dog"),
        content("classes.txt", "cat\ndog\n"),
        image("masks/a.png", mask()),
        image("masks/b.png", mask((0, 0, 4, 4, 1))),
        image("masks/c.png", mask((0, 0, 5, 4, 1))),
    ),
    "masks_without_the_last_class": doubtful(  # which could also be masks from 0
        "folder",
        "masks/a.png: the mask lacks dog, against the tags; correct",
        rows("a,cat;dog", "b,cat;dog"),
        content("classes.txt", "cat\ndog\n"),
        image("masks/a.png", mask((0, 0, 4, 4, 1))),
        image("masks/b.png", mask((0, 0, 5, 4, 1))),
    ),
    "mask_against_its_tags": doubtful(
        "folder",
        "masks/a.png: the mask shows dog and lacks cat, against the tags; correct",
        rows("a,cat", "b,dog;cat", "c,cat"),
        with_mask(mask((0, 0, 1, 1, 2))),
        image("masks/b.png", mask((0, 0, 5, 4, 1), (6, 6, 8, 8, 2))),
        image("masks/c.png", mask((0, 0, 5, 4, 1))),
    ),
    "masks_not_read": doubtful(
        "folder",
        "files that are not read: 4, such as masks/a_mask.png; save masks as PNG under the name",
        with_mask(mask((0, 0, 1, 1, 1))),
        image("masks/a_mask.png", mask()),
        image("masks/b.jpg", mask()),
        content("masks/b.npy", "x"),
        image("mask/b.png", mask()),
    ),
    "masks_of_voc_not_read": doubtful(
        "voc",
        "files that are not read: 2, such as SegmentationClassPNG/x1.png; save",
        image("SegmentationClass/x1_mask.png", mask()),
        image("SegmentationClassPNG/x1.png", mask()),
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
    "images_missing": own("images: no such folder; put the images", removed("images")),
}
VOC = {
    "voc_folder_above": voc(
        ("has no folder JPEGImages; set dataset.source to", "VOC2012"),
        lambda root: root.rename(root.parent / "moved"),
        lambda root: root.mkdir(),
        lambda root: (root.parent / "moved").rename(root / "VOC2012"),
    ),
    "list_missing": voc(
        "train.txt: no such list; name another one, or none, in dataset.voc; the lists are val",
        removed("ImageSets/Segmentation/train.txt"),
    ),
    "list_empty": voc("val.txt: lists no image; add images, or leave", listed("\n", "val")),
    "list_outside": voc(
        "outside.txt: lies outside the source folder",
        content("../outside.txt", "x1\n"),
        lists={"train": "../../../outside", "val": "val"},
    ),
    "list_of_missing_image": voc("JPEGImages/x9.jpg: cannot be read", listed("x1\nx9\n")),
    "image_in_two_splits": voc(
        ("val.txt:1: 'x1' is already listed by", "train.txt:1; list"), listed("x1", "val")
    ),
    "list_leaving_the_folder": voc("train.txt:1: the id '../x' leaves", listed("../x\n")),
    "tags_missing": voc("has no tags: neither labels.csv nor", removed("Annotations")),
    "annotation_missing": voc(
        "train.txt:1: 'x1' has no row or file with tags; add it", removed("Annotations/x1.xml")
    ),
    "annotations_missing": doubtful(
        "voc",
        "train.txt:1: 'x1' has no row or file with tags; it",
        removed("Annotations/x1.xml"),
        lambda root: (root / "Annotations/y1.xml").unlink(),
    ),
    "annotation_in_its_encoding": odd(
        "voc",
        content(
            "Annotations/x1.xml",
            '<?xml version="1.0" encoding="iso-8859-1"?><a><filename>\xe9</filename>'
            "<object><name>dog</name></object></a>".encode("latin-1"),
        ),
    ),
    "annotation_with_a_namespace": odd(
        "voc",
        xml('<a xmlns="http://x"><objects><object><name>dog</name></object></objects></a>'),
        lambda root: save(root / "SegmentationClass/x1.png", mask((0, 0, 4, 4, 2))),
    ),
    "list_with_suffixes": odd("voc", listed("x1.jpg\nx2.JPG\n")),
    "list_with_flags": odd("voc", listed("x1  1\nx2 -1\n")),
    "annotation_broken": voc("not valid XML (mismatched tag", xml("<a><object></a>")),
    "annotation_with_external_entity": voc(
        "x1.xml: is not valid XML (undefined entity",
        xml('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>'),
    ),
    "annotation_of_unknown_class": voc(
        "x1.xml: 'lynx' is not a class", xml("<a><object><name>lynx</name></object></a>")
    ),
    "multihot_of_other_classes": voc(
        "(a row of shape (3,) for 2 classes)", multihot({"x1": np.ones(3)})
    ),
}
COCO = {
    "json_truncated": coco(("2017.json: is not valid JSON (", "again"), truncated(JSON)),
    "json_of_another_kind": coco("has no list 'images'; use a file", content(JSON, "[]")),
    "json_missing": coco("has no annotations/instances_train*.json; name", removed(JSON)),
    "json_outside": coco(
        "removed: lies outside the source folder",
        removed(JSON),
        annotations={"train": ("../removed", "train2017")},
    ),
    "notations": odd(
        "coco",
        changed("images", id="7", height="12", width=16.0),
        changed("images", 1, height=None, file_name="images\\train2017\\000000000008.PNG"),
        changed("annotations", image_id=7.0, category_id="3", iscrowd="0"),
        changed("categories", id="3"),
    ),
    "polygon_of_points": odd("coco", outline([[2, 1], [8, 1], [8, 6]])),
    "polygon_flat": odd("coco", outline([2, 1, "8", 1, 8, 6])),
    "rle_of_floats": odd("coco", outline({"size": ["12", 16.0], "counts": [92.0, 100]})),
    "image_without_file_name": coco("image 7 lacks a valid id", changed("images", file_name=None)),
    "images_of_one_id": coco("two images have id 7; make", changed("images", 1, id=7)),
    "file_name_leaving": coco("the id '../x' leaves", changed("images", file_name="../x.png")),
    "file_name_surrogate": coco(
        "the id '\\ud800' has control", changed("images", file_name="\ud800.png")
    ),
    "annotation_of_missing_image": coco(
        "of image 99, which is not listed; export", changed("annotations", image_id=99)
    ),
    "annotation_of_missing_category": coco(
        "has category 5, which is not a class", changed("annotations", category_id=5)
    ),
    "category_without_name": coco(
        "category 3 lacks an id or a name; g", changed("categories", name=None)
    ),
    "category_id_infinite": coco("inf lacks an id or", changed("categories", id=float("inf"))),
    "categories_of_one_name": doubtful(
        "coco", "category 'dog' has 2 ids; they are read as one", changed("categories", name="dog")
    ),
    "categories_of_one_id": coco(
        "calls category 3 both 'cat' and 'dog'", changed("categories", 1, id="3")
    ),
    "category_of_a_project": doubtful(
        "coco", "category 'pets' is only the supercategory of others and has no", of_a_project
    ),
    "polygon_far_outside": coco(
        "image 7: a polygon lies far outside the image", outline([[0, 0, 1e9, 0, 5, 5]])
    ),
    "polygon_of_words": coco("something other than numbers", outline([["a"] * 6])),
    "polygon_of_one_point": doubtful(
        "coco",
        "polygons of fewer than three points: 2, such as in annotation 1; they are",
        outline([[1, 2], BOX[0], [1, 2, 3, 4]]),
    ),
    "polygon_of_odd_length": coco("an odd number of coordinates", outline([[1, 2, 3, 4, 5, 6, 7]])),
    "segmentation_of_text": coco("neither polygons nor RLE", outline("outline")),
    "rle_of_another_size": coco(
        "RLE of size [16, 12] on an image of", outline({"size": [16, 12], "counts": [192]})
    ),
    "rle_too_short": coco(
        "do not add up to 192 pixels", outline({"size": [12, 16], "counts": [100, 90]})
    ),
    "rle_damaged_string": coco("the RLE is damaged", outline({"size": [12, 16], "counts": "é"})),
    "folder_of_images_missing": coco("train2017: no such folder; put", removed("train2017")),
}
CASES: Mapping[str, Case] = {**IMAGES, **TABLES, **MASKS, **SOURCES, **VOC, **COCO}

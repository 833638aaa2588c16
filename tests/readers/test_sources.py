"""Sources as annotation tools write them: recognized, and read to images, tags, splits, masks."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.export.voc import color_map
from pipeline.readers.build import build
from pipeline.readers.layout import recognize
from pipeline.readers.validation import check
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
BOXED = mask((1, 2, 6, 8, 1))


def read(source: Path, out: Path, **options: object) -> Index:
    """Build the index of a source as it is recognized; there must be no error."""
    layout = recognize(source)
    build(
        layout.format,
        source,
        out,
        lists=layout.lists or None,
        annotations=layout.annotations or None,
        **options,  # type: ignore[arg-type]
    )
    return Index.load(out)


def coco_json(path: Path, images: dict[str, int], **image: object) -> None:
    """A JSON of these images, each with one box of the category given; 1 is cat, 2 is dog."""
    rows = [
        {"id": k, "file_name": name, "height": SIZE[0], "width": SIZE[1], **image}
        for k, name in enumerate(images)
    ]
    annotations = [annotation(c, BOX, image=k) for k, c in enumerate(images.values())]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": rows, "annotations": annotations, "categories": categories}
    write(path, json.dumps(content))


def roboflow_coco(root: Path) -> None:
    for k, split in enumerate(("train", "valid", "test")):
        save(root / f"{split}/a_jpg.rf.1.jpg", noise(k))
        coco_json(root / split / "_annotations.coco.json", {"a_jpg.rf.1.jpg": k % 2 + 1})


def label_studio_coco(root: Path) -> None:
    save(root / "images/3f-a.jpg", noise(0))
    save(root / "images/3f-b.jpg", noise(1))
    coco_json(root / "result.json", {"images\\3f-a.jpg": 1, "../files/images/3f-b.jpg": 2})


def cvat_coco(root: Path) -> None:
    save(root / "images/default/a.jpg", noise(0))
    save(root / "images/default/b.jpg", noise(1))
    coco_json(root / "annotations/instances_default.json", {"a.jpg": 1, "b.jpg": 2})


def fiftyone_coco(root: Path) -> None:
    save(root / "data/a.jpg", noise(0))
    save(root / "data/b.jpg", noise(1))
    coco_json(root / "labels.json", {"a.jpg": 1, "b.jpg": 2})


def fiftyone_voc(root: Path) -> None:
    for k, (image, name) in enumerate((("a", "cat"), ("b", "dog"))):
        save(root / f"data/{image}.jpg", noise(k))
        text = f"<annotation><object><name>{name}</name></object></annotation>"
        write(root / f"labels/{image}.xml", text)


def cvat_masks(root: Path) -> None:
    """Masks in colors, without tags, and a single list."""
    colors = {"background": (0, 0, 0), "cat": (250, 50, 83), "dog": (5, 6, 7)}
    lines = [f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in colors.items()]
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "".join(lines))
    write(root / "ImageSets/Segmentation/default.txt", "a\nb\n")
    table = np.array([*colors.values()], np.uint8)
    for k, image in enumerate("ab", start=1):
        save(root / f"JPEGImages/{image}.jpg", noise(k))
        save(root / f"SegmentationClass/{image}.png", table[BOXED * k])
        save(root / f"SegmentationObject/{image}.png", color_map()[BOXED])


def cvat_gray_masks(root: Path) -> None:
    cvat_masks(root)
    for k, image in enumerate("ab", start=1):
        save(root / f"SegmentationClass/{image}.png", BOXED * k)


def roboflow_masks(root: Path) -> None:
    for k, split in enumerate(("train", "valid"), start=1):
        write(root / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
        save(root / split / "a_jpg.rf.1.jpg", noise(k))
        save(root / split / "a_jpg.rf.1_mask.png", BOXED * k)


def roboflow_tags(root: Path) -> None:
    write(root / "train/_classes.csv", "filename, cat, dog\na.jpg, 1, 0\nb.jpg, 0, 1\nc.jpg,0,0\n")
    for k, name in enumerate("abc"):
        save(root / f"train/{name}.jpg", noise(k))


def class_folders(root: Path) -> None:
    save(root / "cat/a.jpg", noise(0))
    save(root / "dog/a.jpg", noise(1))
    save(root / "background/c.jpg", noise(2))


def class_folders_of_splits(root: Path) -> None:
    save(root / "train/cat/a.jpg", noise(0))
    save(root / "train/dog/b.jpg", noise(1))
    save(root / "Validation/cat/c.jpg", noise(2))


def yolo_label(number: int, points: bool) -> str:
    numbers = [2.2, 1.2, 7.2, 1.2, 7.2, 5.2, 2.2, 5.2] if points else [5, 3.5, 6, 5]
    sizes = [SIZE[1], SIZE[0]] * 4
    return f"{number} {' '.join(str(n / s) for n, s in zip(numbers, sizes, strict=False))}\n"


def yolo_folders(root: Path, points: bool = True) -> None:
    """Roboflow's folders and its paths, which lead out of the folder."""
    names = "train: ../train/images\nval: ../valid/images\ntest: null\nnames: [cat, dog]\n"
    write(root / "data.yaml", names)
    for k, (split, name) in enumerate((("train", "a"), ("train", "b"), ("valid", "a"))):
        save(root / f"{split}/images/{name}.jpg", noise(k))
        write(root / f"{split}/labels/{name}.txt", yolo_label(k % 2, points))
    save(root / "train/images/negative.jpg", noise(9))


def yolo_boxes(root: Path) -> None:
    yolo_folders(root, points=False)


def label_studio_yolo(root: Path) -> None:
    """Without data.yaml, and a label whose suffix is in capitals."""
    write(root / "classes.txt", "cat\ndog\n")
    write(root / "notes.json", '{"categories": [{"id": 0, "name": "cat"}]}')
    for k, name in enumerate("ab"):
        save(root / f"images/{name}.jpg", noise(k))
        write(root / f"labels/{name}.{('txt', 'TXT')[k]}", yolo_label(k, points=True))


def voc_of_main(root: Path) -> None:
    voc_folder(root)
    (root / "ImageSets/Segmentation").rename(root / "ImageSets/Main")
    write(root / "ImageSets/Main/cat_train.txt", "x1 -1\nx2  1\n")


def voc_without_lists(root: Path) -> None:
    voc_folder(root, ["x1", "x2"], [])
    for path in (root / "ImageSets/Segmentation").iterdir():
        path.unlink()


Rows = list[tuple[str, tuple[int, ...], str]]
BOTH: Rows = [("a", (0,), "train"), ("b", (1,), "train")]
SPLITS: Rows = [("train/a_jpg.rf.1", (0,), "train"), ("valid/a_jpg.rf.1", (1,), "val")]
YOLO: Rows = [
    ("b", (1,), "train"),
    ("negative", (), "train"),
    ("train/images/a", (0,), "train"),
    ("valid/images/a", (0,), "val"),
]
KINDS: dict[Callable[[Path], None], tuple[str, Rows, bool]] = {
    roboflow_coco: (
        "COCO, train/_annotations.coco.json with train/ and valid/_annotations.coco.json with",
        SPLITS,
        True,
    ),
    label_studio_coco: (
        "COCO, result.json with images/",
        [("3f-a", (0,), "train"), ("3f-b", (1,), "train")],
        True,
    ),
    cvat_coco: ("COCO, annotations/instances_default.json with images/default/", BOTH, True),
    fiftyone_coco: ("COCO, labels.json with data/", BOTH, True),
    fiftyone_voc: ("VOC, all images", BOTH, False),
    cvat_masks: ("VOC, listed in default.txt", BOTH, True),
    cvat_gray_masks: ("VOC, listed in default.txt", BOTH, True),
    roboflow_masks: ("Roboflow, described by _classes.csv", SPLITS, True),
    roboflow_tags: ("Roboflow, described by _classes.csv", [*BOTH, ("c", (), "train")], False),
    class_folders: (
        "one folder of images per class",
        [("background/c", (), "train"), ("cat/a", (0,), "train"), ("dog/a", (1,), "train")],
        False,
    ),
    class_folders_of_splits: (
        "one folder of images per class",
        [
            ("Validation/cat/c", (0,), "val"),
            ("train/cat/a", (0,), "train"),
            ("train/dog/b", (1,), "train"),
        ],
        False,
    ),
    yolo_folders: ("YOLO, described by data.yaml", YOLO, True),
    yolo_boxes: ("YOLO, described by data.yaml", YOLO, False),
    label_studio_yolo: ("YOLO, described by classes.txt", BOTH, True),
    voc_of_main: (
        "VOC, listed in train.txt, val.txt",
        [("x1", (1,), "train"), ("x2", (0, 1), "train"), ("y1", (1,), "val")],
        False,
    ),
    voc_without_lists: (
        "VOC, all images",
        [("x1", (1,), "train"), ("x2", (0, 1), "train")],
        False,
    ),
}


@pytest.mark.parametrize("make", KINDS, ids=[make.__name__ for make in KINDS])
def test_each_kind_is_recognized_and_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    title, rows, masks = KINDS[make]
    make(tmp_path / "source")
    assert recognize(tmp_path / "source").title.startswith(title)
    index = read(tmp_path / "source", tmp_path / "out")
    known = ("cat", "dog") if make not in (fiftyone_voc,) else index.classes
    assert index.classes == known
    tags = [tuple(index.classes[tag] for tag in image.tags) for image in index.values()]
    assert [(p.id, t, p.split) for p, t in zip(index.values(), tags, strict=True)] == [
        (name, tuple(("cat", "dog")[tag] for tag in wanted), split) for name, wanted, split in rows
    ]
    for image in index.values():
        assert index.image(image.id).shape == (*SIZE, 3)
        assert index.has_masks(image.id) == masks
        if masks and image.tags:
            np.testing.assert_array_equal(
                read_semantic(index, image.id), BOXED * (image.tags[0] + 1)
            )
            if make is not roboflow_masks:
                assert read_instances(index, image.id)[1].tolist() == [image.tags[0]]
    assert [p for p in check("auto", tmp_path / "source").problems if p.level == "error"] == []


@pytest.mark.parametrize(
    "row",
    [
        '"cat,dog"',
        "cat;dog",
        "cat|dog",
        '"cat , dog"',
        "cat dog",
        "background;cat;dog",
        "\"['cat', 'dog']\"",
        "\"('cat', 'dog')\"",
        "\"{'cat', 'dog'}\"",
    ],
)
def test_separators_of_tags(tmp_path: Path, row: str) -> None:
    own = own_folder(tmp_path / "own", ["a,cat", "b,dog"])
    save(own / "images/c.png", noise(7))
    write(own / "labels.csv", f"image,classes\na,cat\nb,dog\nc,{row}\n")
    index = read(own, tmp_path / "out")
    assert (index.classes, index["c"].tags) == (("cat", "dog"), (0, 1))


@pytest.mark.parametrize("sign", [";", "\t"])
def test_tables_of_spreadsheets_may_have_other_delimiters(tmp_path: Path, sign: str) -> None:
    own = own_folder(tmp_path / "own", ["a,cat", "b,dog"])
    write(own / "labels.csv", f"image{sign}classes\na{sign}cat,dog\nb{sign}dog\n")
    index = read(own, tmp_path / "out")
    assert [index[name].tags for name in "ab"] == [(0, 1), (1,)]


@pytest.mark.parametrize("cell", ["nan", "None", "NULL", "n/a", ""])
def test_what_programs_write_for_no_tag_is_no_class(tmp_path: Path, cell: str) -> None:
    index = read(own_folder(tmp_path / "own", ["a,cat", f"b,{cell}"]), tmp_path / "out")
    assert (index.classes, index["b"].tags) == (("cat",), ())


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("cat/dog", "'cat/dog' is made of other classes"),
        ("cat\uff1bdog", "'cat\uff1bdog' is made of other classes"),
        ("cat & dog", "'&' has no letters"),
        ("Good", "'Good' is learned like an object"),
        ("hot-dog", None),
    ],
)
def test_doubtful_names_of_classes_are_reported(
    tmp_path: Path, cell: str, words: str | None
) -> None:
    own = own_folder(tmp_path / "own", ["a,cat", "b,dog", f"c,{cell}"])
    found = [p.what for p in check("auto", own).problems if "class '" in p.what]
    found = [what for what in found if "one image" not in what]
    assert found == ([] if words is None else [f"class {words}"])


@pytest.mark.parametrize(
    ("train", "test"),
    [("Training", "Testing"), ("Train", "Test"), ("seg_train/seg_train", "seg_test/seg_test")],
)
def test_folders_of_splits_above_those_of_classes(tmp_path: Path, train: str, test: str) -> None:
    for k, place in enumerate((f"{train}/cat/a", f"{train}/train station/b", f"{test}/cat/c")):
        save(tmp_path / f"source/{place}.png", noise(k))
    index = read(tmp_path / "source", tmp_path / "out")
    assert index.classes == ("cat", "train station")
    assert [image.split for image in index.values()].count("test") == 1
    assert index.select("train") == [f"{train}/cat/a", f"{train}/train station/b"]


@pytest.mark.parametrize("place", ["cat/a_mask.png", "cat/a_mask_1.png", "ground_truth/cat/a.png"])
def test_masks_among_the_images_of_a_class_are_no_images(tmp_path: Path, place: str) -> None:
    for k, name in enumerate(("cat/a", "mask/b")):
        save(tmp_path / f"source/{name}.png", noise(k))
    save(tmp_path / "source" / place, mask())
    assert [*read(tmp_path / "source", tmp_path / "out")] == ["cat/a", "mask/b"]
    problems = check("auto", tmp_path / "source").problems
    assert [p for p in problems if "files that are not read: 1" in p.what and place in p.what]


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ("cat\ndog", {0: 0, 1: 1, 2: 2}),
        ("__background__\ncat\ndog", {0: 0, 1: 1, 2: 2}),
        ("__ignore__\n_background_\ncat\ndog", {0: 0, 1: 1, 2: 2}),
        ("cat\ndog\nvoid", {0: 0, 1: 1, 2: 2, 3: 255}),
        ("background\ncat\n__ignore__\ndog", {0: 0, 1: 1, 2: 255, 3: 2}),
    ],
)
def test_names_for_no_class_keep_their_mask_values(
    tmp_path: Path, names: str, values: dict[int, int]
) -> None:
    own = own_folder(tmp_path / "own")
    write(own / "classes.txt", names)
    index = read(own, tmp_path / "out")
    assert index.classes == ("cat", "dog")
    assert index.mask_values == {**values, 255: 255}


def test_areas_to_ignore_in_coco_are_void(tmp_path: Path) -> None:
    categories = ((3, "cat"), (5, "background"), (9, "ignore"))
    rows = [annotation(3, BOX), annotation(5, [[9, 0, 12, 0, 12, 4]]), annotation(9, BOX, image=8)]
    coco_folder(tmp_path / "coco", rows, categories)
    index = read(tmp_path / "coco", tmp_path / "out")
    assert (index.classes, [image.tags for image in index.values()]) == (("cat",), [(0,), ()])
    first, second = index
    np.testing.assert_array_equal(read_semantic(index, first), BOXED)
    np.testing.assert_array_equal(read_semantic(index, second), BOXED * 255)


@pytest.mark.parametrize("flag", [0, 0.0, "0", False, "false", None])
def test_flags_of_crowds_in_any_notation(tmp_path: Path, flag: object) -> None:
    row = annotation(3, BOX)
    row["iscrowd"] = flag
    coco_folder(tmp_path / "coco", [row, annotation(9, BOX, image=8, crowd=1)])
    index = read(tmp_path / "coco", tmp_path / "out")
    assert [image.tags for image in index.values()] == [(0,), ()]


def test_masks_painted_in_cvat_are_objects(tmp_path: Path) -> None:
    """CVAT flags them as crowds (its issue 7030); tags and instances would be lost in silence."""
    row = {**annotation(3, BOX, crowd=1), "attributes": {"occluded": False}}
    coco_folder(tmp_path / "coco", [row, annotation(9, BOX, image=8, crowd=1)])
    index = read(tmp_path / "coco", tmp_path / "out")
    first, second = index
    assert [image.tags for image in index.values()] == [(0,), ()]
    np.testing.assert_array_equal(read_instances(index, first)[0], BOXED)
    np.testing.assert_array_equal(read_semantic(index, second), BOXED * 255)


@pytest.mark.parametrize("size", [{}, {"height": None, "width": None}, {"height": "?"}])
def test_a_missing_size_is_that_of_the_image(tmp_path: Path, size: dict[str, object]) -> None:
    save(tmp_path / "coco/images/a.png", noise())
    coco_json(tmp_path / "coco/result.json", {"a.png": 1}, **size)
    content = json.loads((tmp_path / "coco/result.json").read_text())
    if not size:
        del content["images"][0]["height"]
    write(tmp_path / "coco/result.json", json.dumps(content))
    index = read(tmp_path / "coco", tmp_path / "out")
    np.testing.assert_array_equal(read_semantic(index, "a"), BOXED)


@pytest.mark.parametrize("make", [voc_folder, own_folder])
def test_names_match_in_any_normalization(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Image, annotation and mask of é are each written decomposed, as macOS does."""
    root = make(tmp_path / "source")
    decomposed = unicodedata.normalize("NFD", "é")
    if make is voc_folder:
        write(root / "ImageSets/Segmentation/train.txt", "É\nx1\n")
        save(root / f"JPEGImages/{decomposed}.JPG", noise(4))
        text = "<a><object><name>cat</name></object></a>"
        write(root / f"Annotations/{decomposed.upper()}.Xml", text)
        save(root / f"SegmentationClass/{decomposed}.PNG", BOXED)
    else:
        write(root / "labels.csv", "image,classes\nÉ,cat\na,cat\nb,dog\n")
        save(root / f"images/{decomposed}.PNG", noise(4))
        save(root / f"masks/{decomposed}.PNG", BOXED)
    index = read(root, tmp_path / "out")
    assert index["é"].tags == (0,)
    np.testing.assert_array_equal(read_semantic(index, "é"), BOXED)


@pytest.mark.parametrize("nothing", [[], [[]], None, [[5, 5, 6, 6]]])
def test_a_box_without_an_outline_leaves_its_image_without_a_mask(
    tmp_path: Path, nothing: object
) -> None:
    rows = [annotation(3, BOX), annotation(9, nothing), annotation(3, BOX, image=8)]
    coco_folder(tmp_path / "coco", rows)
    index = read(tmp_path / "coco", tmp_path / "out")
    assert [(image.tags, index.has_masks(image.id)) for image in index.values()] == [
        ((0, 1), False),
        ((0,), True),
    ]


def test_equal_names_in_two_folders_of_coco(tmp_path: Path) -> None:
    for k, split in enumerate(("train2017", "val2017")):
        save(tmp_path / f"coco/{split}/a.png", noise(k))
        save(tmp_path / f"coco/{split}/{split}.png", noise(k + 2))
        images = {"a.png": k + 1, f"{split}.png": 1}
        coco_json(tmp_path / f"coco/annotations/instances_{split}.json", images)
    index = read(tmp_path / "coco", tmp_path / "out")
    assert {image.id: (image.split, image.tags) for image in index.values()} == {
        "train2017/a": ("train", (0,)),
        "train2017": ("train", (0,)),
        "val2017/a": ("val", (1,)),
        "val2017": ("val", (0,)),
    }


def test_class_names_of_annotations_without_a_list(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc")
    (voc / "classes.txt").unlink()
    write(voc / "Annotations/x1.xml", "<a><object><name>scratch</name></object></a>")
    assert read(voc, tmp_path / "out").classes == ("cat", "dog", "scratch")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "Pixel Value, Class\n0, background\n1, dog\n",
            "lists other classes than the _classes.csv",
        ),
        ("Pixel Value, Class\none, cat\n", "is neither `pixel value, class` nor `filename, CLASS"),
        ("filename, cat, dog\na.jpg, 1\n", "is neither"),
        ("", "is neither"),
    ],
)
def test_damaged_tables_of_roboflow(tmp_path: Path, table: str, message: str) -> None:
    roboflow_masks(tmp_path)
    write(tmp_path / "valid/_classes.csv", table)
    (problem,) = check("auto", tmp_path).problems
    assert (problem.level, str(tmp_path / "valid/_classes.csv") in problem.where) == ("error", True)
    assert message in problem.what


def test_images_of_roboflow_without_mask_or_row(tmp_path: Path) -> None:
    roboflow_masks(tmp_path / "masks")
    roboflow_tags(tmp_path / "tags")
    for root in (tmp_path / "masks", tmp_path / "tags"):
        save(root / "train/extra.jpg", noise(9))
    found = [problem.what for problem in check("auto", tmp_path / "tags").problems]
    assert found[0] == "has no row in _classes.csv"
    index = read(tmp_path / "masks", tmp_path / "out")
    assert (index["extra"].tags, index.has_masks("extra")) == ((), False)
    write(tmp_path / "tags/train/_classes.csv", "filename, cat, dog\na.jpg, 1, 0\nz.jpg, 0, 1\n")
    assert "z.jpg" in str(
        [p for p in check("auto", tmp_path / "tags").problems if p.level == "error"]
    )

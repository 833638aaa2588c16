"""Hand-made tables in all the forms that spreadsheets and editors give them."""

from pathlib import Path

import pytest

from pipeline.data.problems import DatasetError
from pipeline.readers.folder import names_in, read_classes, read_labels, split_cell
from tests.support.sources import write


def test_byte_order_mark_crlf_blank_lines_and_quotes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "labels.csv",
        'image,classes,split\r\n"a, b",cat,val\r\n\r\n ü , dog ,\r\n',
        "utf-8-sig",
    )
    rows = read_labels(path)
    assert [(row.image, row.cell, row.split) for row in rows] == [
        ("a, b", "cat", "val"),
        ("ü", "dog", None),
    ]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:4"]


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("cat", {"cat"}),
        ("cat dog", {"cat", "dog"}),
        ("traffic light", {"traffic light"}),
        ("traffic light; cat ;", {"traffic light", "cat"}),
        ("", set()),
    ],
)
def test_cells(cell: str, names: set[str]) -> None:
    assert split_cell(cell, ("cat", "dog", "traffic light")) == names


def test_cells_with_semicolons_tell_which_names_hold_blanks(tmp_path: Path) -> None:
    rows = read_labels(
        write(
            tmp_path / "l.csv", "image,classes\na,traffic light;cat\nb,traffic light\nc,dog cow\n"
        )
    )
    assert names_in(rows) == ("cat", "cow", "dog", "traffic light")


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "image,classes\na,cat,dog\nb,cat\nc\n")
    with pytest.raises(DatasetError) as caught:
        read_labels(path)
    assert [problem.where for problem in caught.value.problems] == [f"{path}:2", f"{path}:4"]
    assert "separate class names with ;" in str(caught.value)


@pytest.mark.parametrize("text", ["", "a,cat\n", "image;classes\na;cat\n", "image,classes,when\n"])
def test_the_first_line_is_checked(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        DatasetError, match=r"l\.csv:1: the first line is .* it must be image,classes"
    ):
        read_labels(write(tmp_path / "l.csv", text))


def test_other_encodings_are_named_with_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "l.csv", "image,classes\na,cat\nb,müll\n", "latin-1")
    with pytest.raises(DatasetError, match=r"l\.csv:3: is not UTF-8"):
        read_labels(path)


def test_classes_with_and_without_background(tmp_path: Path) -> None:
    with_it = read_classes(write(tmp_path / "1", "Background\ncat\n\ntraffic light\n", "utf-8-sig"))
    assert (
        with_it
        == read_classes(write(tmp_path / "2", "cat\ntraffic light"))
        == ("cat", "traffic light")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [("cat\ndog\ncat\n", "lists cat more than once"), ("background\n", "lists no class")],
)
def test_bad_classes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_classes(write(tmp_path / "classes.txt", text))

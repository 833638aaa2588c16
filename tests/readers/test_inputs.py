"""Images that a person names: folders, patterns and files, and what of them is refused."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.readers.inputs import find_given


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ in the working directory: two images, one more in a sub-folder, and files that are
    none.
    """
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.JPG",
        "a.png",
        "sub/a.webp",
        "notes.txt",
        "c.heic",
        ".hidden.png",
        ".cache/x.png",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["photos"], ["a.png", "b.JPG", "sub/a.webp"]),
        (["photos/"], ["a.png", "b.JPG", "sub/a.webp"]),
        (["photos/**/*"], ["a.png", "b.JPG", "sub/a.webp"]),
        (["photos/*.png"], ["a.png"]),
        (["photos/sub/a.webp"], ["a.webp"]),
        (["photos/a.png", "photos/sub/a.webp"], ["a.png", "sub/a.webp"]),
        (["photos/sub", "photos/b.JPG"], ["b.JPG", "sub/a.webp"]),
        (["photos", "photos/a.png", "./photos/../photos/a.png"], ["a.png", "b.JPG", "sub/a.webp"]),
        (["photos/c.heic"], ["c.heic"]),
    ],
)
def test_names_keep_the_folders_below_what_holds_everything(
    arguments: list[str], names: list[str]
) -> None:
    given = find_given(arguments)
    assert list(given.files) == names
    assert all(path.is_file() for path in given.files.values())


def test_folders_and_what_is_left_out_are_told() -> None:
    given = find_given(["photos", "photos/a.png"])
    assert given.folders == (Path("photos"),)
    assert given.foreign == (Path("photos/c.heic"),)
    assert find_given(["photos/c.heic"]).foreign == ()


def test_a_name_with_brackets_is_a_name_before_it_is_a_pattern(photos: Path) -> None:
    (photos / "[1].png").touch()
    assert list(find_given(["photos/[1].png"]).files) == ["[1].png"]


def test_links_to_folders_are_not_followed(photos: Path) -> None:
    (photos / "sub/back").symlink_to(photos)
    assert list(find_given(["photos"]).files) == ["a.png", "b.JPG", "sub/a.webp"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["photos", "photos/*.gif"], r"photos/\*.gif: holds no image \(.jpg, .jpeg"),
        (["photos/*.heic"], r"1 of kinds that are not read \(.heic\): save them as JPEG"),
        (["photos/.cache/y*"], "holds no image"),
    ],
)
def test_what_leads_to_no_image_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_given(arguments)


def test_two_images_never_share_a_result(photos: Path) -> None:
    (photos / "a.jpg").touch()
    with pytest.raises(
        UserError, match=r"photos/a\.jpg and photos/a\.png differ in their endings alone"
    ):
        find_given(["photos"])

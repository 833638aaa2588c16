"""Images named by folders, patterns and files, and arguments that are refused."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.readers.inputs import find_images


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ in the working directory: two images, one more in a sub-folder, and files that are
    none.
    """
    monkeypatch.chdir(tmp_path)
    names = "b.JPG a.png sub/a.webp notes.txt c.heic .hidden.png .cache/x.png"
    for name in names.split():
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
    ],
)
def test_names_are_paths_below_the_common_folder(arguments: list[str], names: list[str]) -> None:
    inputs = find_images(arguments)
    assert list(inputs.files) == names
    assert all(path.is_file() for path in inputs.files.values())


def test_searched_folders_and_skipped_files_are_listed() -> None:
    inputs = find_images(["photos", "photos/a.png"])
    assert inputs.folders == (Path("photos"),)
    assert inputs.foreign == (Path("photos/c.heic"),)


@pytest.mark.parametrize(
    "argument",
    ["photos/in [1]/[1].png", "photos/in [1]/*.png", "photos/in [1]", "~/in [1]/*", "~/in*/[1].*"],
)
def test_brackets_and_a_quoted_tilde_may_belong_to_names(
    photos: Path, monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    (photos / "in [1]").mkdir()
    (photos / "in [1]/[1].png").touch()
    monkeypatch.setenv("HOME", str(photos))
    assert [Path(name).name for name in find_images([argument]).files] == ["[1].png"]


def test_links_to_folders_are_not_followed(photos: Path) -> None:
    (photos / "sub/back").symlink_to(photos)
    assert list(find_images(["photos"]).files) == ["a.png", "b.JPG", "sub/a.webp"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["photos", "photos/*.gif"], r"photos/\*.gif: no images \(.jpg, .jpeg"),
        (["photos/*.heic"], r"1 in other formats \(.heic\): convert to JPEG"),
        (["photos/a.png", "photos/c.heic"], r"c.heic: no images .*1 in other .*: convert to JPEG"),
        (["photos/.cache/y*"], "no images"),
    ],
)
def test_argument_without_images_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_images(arguments)


def test_two_images_with_one_result_are_refused(photos: Path) -> None:
    (photos / "a.jpg").touch()
    with pytest.raises(UserError, match=r"a\.jpg and photos/a\.png differ only in their suffix"):
        find_images(["photos"])

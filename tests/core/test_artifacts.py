"""The artifact files: what is written comes back, equal content gives equal bytes, and what is
wrong is named.
"""

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline.core.artifacts import (
    LAYOUTS,
    ArtifactError,
    Reader,
    Writer,
    merge,
    validate_record,
)

CLASSES = ("cat", "dog", "Hündin")
IDS = sorted(["a/b", "a%2Fb", ".hidden", "..", "two words", "Кошка", "猫", "plain", "a", "%"])
Records = dict[str, dict[str, np.ndarray]]


def record(format_: str, number: int, empty: bool = False) -> dict[str, np.ndarray]:
    """An image of odd size; `empty` is one without classes or instances."""
    rng = np.random.default_rng(number)
    height, width, count = 13 + number % 5, 9 + number % 3, 0 if empty else 1 + number % 4
    shapes = {
        "embeddings": (count, 4, 3),
        "stability": (count,),
        "iou": (count,),
        "cams": (count, 4, 3),
        "maps": (count, 4, 3),
        "background": (4, 3),
        "labels": (count,),
        "size": (2,),
        "features": (5, 4, 3),
        "stride": (1,),
        "boundary": (4, 3),
        "displacement": (2, 4, 3),
        "classes": (count,),
        "scores": (count,),
        "evidence": (count, height, width),
        "objects": (count, 3),
        "boxes": (count, 7),
        "gated": (count,),
    }
    layout = LAYOUTS[format_]
    made = {}
    for key, (dtype, _) in {**layout.datasets, **layout.attributes}.items():
        masks = key == "instances" and layout.datasets[key][1] == 3
        values = rng.random((count, height, width) if masks else shapes.get(key, (height, width)))
        made[key] = (values if dtype.startswith("f") else values * 4).astype(dtype)
    return made


def write(path: Path, format_: str, records: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    with Writer(path, format_, CLASSES) as writer:
        for name in sorted(records):
            writer.write(name, records[name])
    return path.read_bytes()


def records_of(format_: str, names: list[str] = IDS) -> Records:
    return {
        name: record(format_, number, empty=number % 3 == 2) for number, name in enumerate(names)
    }


@pytest.mark.parametrize("format_", LAYOUTS)
def test_what_is_written_comes_back(tmp_path: Path, format_: str) -> None:
    """In the dtypes of the layout, whatever they were."""
    records = records_of(format_)
    wide = {
        name: {key: array.astype(float) for key, array in own.items()}
        for name, own in records.items()
    }
    write(tmp_path / "x.h5", format_, wide)
    reader = Reader(tmp_path / "x.h5", format_)
    assert (reader.format, reader.classes, reader.names, len(reader)) == (
        format_,
        CLASSES,
        IDS,
        len(IDS),
    )
    assert list(reader) == IDS
    assert "a" in reader
    assert "b" not in reader
    for name, expected in records.items():
        found = reader[name]
        assert set(found) == set(expected)
        for key, array in expected.items():
            assert found[key].dtype == array.dtype
            np.testing.assert_array_equal(found[key], array)


def test_labels_of_an_image_crowded_with_instances(tmp_path: Path) -> None:
    many = record("labels", 0) | {"classes": np.ones(40_000, "u1"), "scores": np.ones(40_000, "f4")}
    write(tmp_path / "x.h5", "labels", {"a": many, "b": record("labels", 1)})
    merge([tmp_path / "x.h5"], tmp_path / "y.h5", "labels", CLASSES)
    assert len(Reader(tmp_path / "y.h5")["a"]["scores"]) == 40_000


@pytest.mark.parametrize("format_", LAYOUTS)
def test_equal_content_gives_equal_bytes_at_any_time(tmp_path: Path, format_: str) -> None:
    first = write(tmp_path / "x.h5", format_, records_of(format_))
    time.sleep(1.1 if format_ == "labels" else 0)  # HDF5's time stamps count seconds
    assert write(tmp_path / "elsewhere.h5", format_, records_of(format_)) == first


@pytest.mark.parametrize("format_", LAYOUTS)
@settings(max_examples=2, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(owners=st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_shards_of_any_split_join_to_what_one_writer_writes(
    tmp_path_factory: pytest.TempPathFactory, owners: list[int], format_: str
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    records = records_of(format_, sorted(f"p/{number}" for number in range(12)))
    direct = write(folder / "direct.h5", format_, records)
    paths = [folder / f"{owner}.h5" for owner in range(4)]
    for owner, path in enumerate(paths):
        mine = [name for name, o in zip(records, owners, strict=True) if o == owner]
        write(path, format_, {name: records[name] for name in mine})
    merge(paths, folder / "merged.h5", format_, CLASSES)
    assert (folder / "merged.h5").read_bytes() == direct


def test_merging_holds_few_files_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    paths = [tmp_path / f"{number:03d}.h5" for number in range(80)]
    for number, path in enumerate(paths):
        write(path, "seeds", {f"{number:03d}": record("seeds", number)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = max(map(int, os.listdir("/dev/fd")))  # by earlier tests of this process, too
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, hard))
    try:
        merge(paths, tmp_path / "merged.h5", "seeds", CLASSES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(Reader(tmp_path / "merged.h5")) == 80


def test_items_are_one_chunk_of_a_filter_that_all_tools_know(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", "seeds", {"a": record("seeds", 0)})
    with h5py.File(tmp_path / "x.h5") as file:
        item = file["seeds/a"]
        assert item.chunks == item.shape
        assert (item.compression, item.compression_opts, item.shuffle) == ("gzip", 1, True)


def _first(reader: Reader) -> tuple[str, int]:
    return reader.names[0], int(reader[reader.names[0]]["seeds"].sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_reader_goes_into_other_processes(tmp_path: Path, method: str) -> None:
    write(tmp_path / "x.h5", "seeds", records_of("seeds"))
    reader = Reader(tmp_path / "x.h5")
    here = _first(reader)
    assert _first(pickle.loads(pickle.dumps(reader))) == here
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_first, (reader,)) == here
    assert _first(reader) == here


def test_an_unknown_image_is_a_key_error_with_file_and_image(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", "seeds", records_of("seeds"))
    with pytest.raises(KeyError, match=r"x\.h5 has no image 'nobody'"):
        Reader(tmp_path / "x.h5")["nobody"]


def _edit(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        with h5py.File(path, "a") as file:
            change(file)

    return edit


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "no such file"),
        (lambda path: path.write_text("not HDF5"), "not a readable HDF5"),
        (lambda path: path.write_bytes(b""), "not a readable HDF5"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "not a readable HDF5"),
        (_edit(lambda file: file.attrs.modify("format", "mine")), "not an artifact of this pipel"),
        (_edit(lambda file: file.attrs.modify("format", "weakmask/new")), "unknown format 'new'"),
        (_edit(lambda file: file.attrs.modify("version", 99)), "version 99, this program reads v"),
        (_edit(lambda file: file.attrs.pop("complete")), "incomplete"),
        (_edit(lambda file: file.pop("seeds/plain")), "10 names but"),
        (_edit(lambda file: file.attrs.pop("classes")), "damaged, or of another version"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "x.h5"
    write(path, "seeds", {name: record("seeds", 0) for name in IDS})
    with pytest.raises(ArtifactError, match=r"x\.h5: holds seeds, expected cams"):
        Reader(path, "cams")
    spoil(path)
    with pytest.raises(ArtifactError, match=message) as caught:
        Reader(path)
    assert str(path) in str(caught.value)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype="u1")
    write(path, "seeds", {"a": {"seeds": noise}, "b": {"seeds": noise}})
    with h5py.File(path) as file:
        start, length = (lambda info: (info.byte_offset, info.size))(
            file["seeds/b"].id.get_chunk_info(0)
        )
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    reader = Reader(path)
    np.testing.assert_array_equal(reader["a"]["seeds"], noise)
    with pytest.raises(ArtifactError, match=r"x\.h5: 'b' is damaged"):
        reader["b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cams": np.full((2, 3, 3), np.nan)}, "not finite"),
        ({"cams": np.full((2, 3, 3), 1e6)}, "not finite in float16"),
        ({"cams": np.zeros((3, 3))}, "2 dimensions, expected 3"),
        ({"labels": np.array([300])}, "values from 300 to 300, which uint8 cannot hold"),
        ({"labels": np.array([-1])}, "cannot hold"),
        ({"labels": np.array([0.5])}, "cannot hold"),
        ({"labels": np.array([np.nan])}, "cannot hold"),
        ({"labels": np.array(["cat"])}, "expected numbers"),
        ({"size": None}, "missing arrays: size"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_and_leaves_the_old_file(
    tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    good = record("cams", 1)
    bad = {key: value for key, value in (good | change).items() if value is not None}
    before = write(tmp_path / "x.h5", "cams", {"old": good})
    with pytest.raises(ArtifactError, match=message) as caught:
        write(tmp_path / "x.h5", "cams", {"a": good, "the bad one": bad})
    assert str(tmp_path / "x.h5") in str(caught.value)
    assert "the bad one" in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.h5"]
    assert (tmp_path / "x.h5").read_bytes() == before


@pytest.mark.defect("irn-10")
def test_a_displacement_that_is_not_finite_is_refused_before_the_walk() -> None:
    field = record("fields", 0)
    field["displacement"][1, 2, 1] = np.nan
    with pytest.raises(ArtifactError, match="displacement has values that are not finite"):
        validate_record("fields", field)


@pytest.mark.parametrize("names", [("b", "a"), ("a", "a")], ids=["unsorted", "twice"])
def test_names_must_be_sorted_and_unique(tmp_path: Path, names: tuple[str, str]) -> None:
    with Writer(tmp_path / "x.h5", "seeds", CLASSES) as writer:
        writer.write(names[0], record("seeds", 0))
        with pytest.raises(ArtifactError, match="names must be sorted and unique"):
            writer.write(names[1], record("seeds", 0))

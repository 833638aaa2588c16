"""Unfinished work: how far a stage has come, also while it goes on (see mapping, training and work
for what it leaves behind).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.core.artifacts import ArtifactError, Reader, Record
from pipeline.errors import UserError
from pipeline.views.inspection.artifacts import describe
from pipeline.views.inspection.networks import describe_checkpoint
from pipeline.views.inspection.words import bytes_of, count, listed

CHECKPOINT = "checkpoint.pt"


class Shards(Mapping[str, Record]):
    """The whole shards of one folder as one artifact."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.format, self.classes = readers[0].format, readers[0].classes
        self._where = {name: reader for reader in readers for name in reader.names}

    def __getitem__(self, name: str) -> Record:
        return self._where[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._where))

    def __len__(self) -> int:
        return len(self._where)


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds shards or a checkpoint itself."""
    return (folder / CHECKPOINT).is_file() or any(folder.glob("shard-*.h5*"))


def folders(root: Path) -> list[Path]:
    """The folders of unfinished work at, in, or two levels below `root`."""
    below = [path for pattern in ("*/", "*/*/") for path in sorted(root.glob(pattern))]
    return [path for path in [root, *below] if is_unfinished(path)]


def describe_unfinished(folder: Path) -> list[str]:
    """Lines of text on one folder STAGE/FINGERPRINT: what is done, what is being written, and what
    is odd in it.
    """
    lines = [
        f"unfinished work of stage {folder.parent.name}, fingerprint {folder.name.partition('-')[0]}"
    ]
    try:
        if (folder / CHECKPOINT).is_file():
            lines += describe_checkpoint(folder / CHECKPOINT)
        elif (shards := whole(folder))[0] or shards[1]:
            lines += _describe_shards(folder, *shards)
        lines += _being_written(folder)
    except FileNotFoundError:
        return [*lines, "gone while it was looked at: the stage has ended"]
    return lines


def whole(folder: Path) -> tuple[list[Reader], list[str]]:
    """Readers of the shards that are whole, and the names of those that are not."""
    readers, broken = [], []
    for path in sorted(folder.glob("shard-*.h5")):
        try:
            reader = Reader(path)
        except ArtifactError:
            broken.append(path.name)
            continue
        reader.close()
        readers.append(reader)
    return readers, broken


def shards_of(folder: Path) -> Shards:
    """The whole shards as one artifact; raises UserError where there is none yet."""
    readers, _ = whole(folder)
    if not readers:
        raise UserError(f"{folder}: no shard is whole yet")
    return Shards(readers)


def _describe_shards(folder: Path, readers: Sequence[Reader], broken: Sequence[str]) -> list[str]:
    done, size = sum(map(len, readers)), folder.name.partition("-")[2]
    of = f" of at most {size}" if size else ""
    lines = [f"done: {count(done, 'image')} in {count(len(readers), 'shard')}{of}"]
    skipped = sorted(name for reader in readers for name in reader.skipped)
    lines += [f"left out, as they failed: {listed(skipped)}"] if skipped else []
    there = {int(re.sub(r"\D", "", path.stem)) for path in folder.glob("shard-*.h5")}
    missing = sorted(set(range(max(there, default=-1))) - there)
    lines += (
        [f"shards before the last that are still to be made: {listed(list(map(str, missing)))}"]
        if missing
        else []
    )
    lines += [f"odd: damaged, will be made again: {listed(broken)}"] if broken else []
    return [*lines, *(describe(Shards(readers)) if readers else [])]


def _being_written(folder: Path) -> list[str]:
    """The files that are not whole yet, which nobody can read."""
    parts = [(path.name, path.stat().st_size) for path in sorted(folder.glob("*.part"))]
    return [f"being written: {name}, {bytes_of(size)} so far" for name, size in parts]

"""Inspection of one entry: its image and masks decoded, measured, compared and digested."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.core.artifacts import IGNORE
from pipeline.data.images import (
    DO_IMAGE,
    DatasetError,
    Problem,
    decode_image,
    encode_png,
    error,
    read_bytes,
    smallest_dtype,
    warning,
)
from pipeline.data.masks import (
    INSTANCES,
    SEMANTIC,
    color_ids,
    color_values,
    decode_values,
    number_instances,
    to_labels,
)
from pipeline.readers.source import DO_COPY, OUTSIDE, Entry, leaves

Rendered = tuple[bytes, bytes]
"""PNG files of the semantic and the instance mask, the latter empty if there is none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the files of an entry turned out to be.

    size: (H, W); (0, 0) if the image is unreadable. digest: of all files. semantic, instances:
    usable masks. rendered: their content if the source has outlines or colors. shown: labels in the
    semantic mask besides 0, None without a mask file.
    """

    size: tuple[int, int]
    digest: str
    semantic: str | None
    instances: str | None
    problems: tuple[Problem, ...]
    rendered: Rendered | None
    shown: frozenset[int] | None


def inspect(
    root: Path, labels: Mapping[str, int], values: Mapping[int, int], entry: Entry
) -> Finding:
    """Inspect the files of an entry below `root`.

    labels: class name -> label in use; values: value in a mask file -> label.
    """
    return _Inspection(root, labels, values, entry).run()


class _Inspection:
    """One inspection in progress: digest and problems so far."""

    def __init__(
        self, root: Path, labels: Mapping[str, int], values: Mapping[int, int], entry: Entry
    ) -> None:
        self.root, self.labels, self.values, self.entry = root, labels, values, entry
        self.digest = hashlib.blake2b(digest_size=16)
        self.problems: list[Problem] = []
        self.shown: frozenset[int] | None = None

    def run(self) -> Finding:
        """Inspect the image, then its masks unless the image is unreadable."""
        size = self._image_size()
        semantic = instances = rendered = None
        if size != (0, 0) and self.entry.render is not None:
            rendered = self._render(size)
        elif size != (0, 0):
            semantic, instances, rendered = self._masks(size)
        if rendered is not None:
            semantic = SEMANTIC.format(self.entry.id)
            instances = INSTANCES.format(self.entry.id) if rendered[1] else None
        digest, problems = self.digest.hexdigest(), tuple(self.problems)
        return Finding(size, digest, semantic, instances, problems, rendered, self.shown)

    def _image_size(self) -> tuple[int, int]:
        """Return (H, W) of the decoded image; (0, 0), and a problem, if it is unreadable."""
        try:
            data, path = self._read(self.entry.path)
            height, width = decode_image(data, path).shape[:2]
        except DatasetError as problem:
            self.problems += problem.problems
            return 0, 0
        return height, width

    def _masks(self, size: tuple[int, int]) -> tuple[str | None, str | None, Rendered | None]:
        """Return the mask files that can be used; color masks as PNG files of labels."""
        colors = self.entry.colors
        decode = decode_values if colors is None else partial(color_values, colors=colors)
        semantic = self._mask_values(self.entry.semantic, size, decode)
        decode = decode_values if colors is None else color_ids
        ids = self._mask_values(self.entry.instances, size, decode)
        labels = None
        if semantic is not None and self.entry.semantic is not None:
            try:
                labels = to_labels(semantic, self.values, self.root / self.entry.semantic)
            except DatasetError as problem:
                self.problems += problem.problems
        if labels is None:
            return self.entry.semantic, None, None
        self.shown = frozenset(np.unique(labels).tolist()) - {0}
        if ids is not None and not self._is_complete(labels, ids):
            ids = None
        if colors is None:
            return self.entry.semantic, None if ids is None else self.entry.instances, None
        return None, None, (encode_png(labels), b"" if ids is None else encode_png(ids))

    def _render(self, size: tuple[int, int]) -> Rendered | None:
        """Return both masks as PNG files; None, and a problem, if the outlines are invalid."""
        assert self.entry.render is not None
        try:
            semantic, instances = self.entry.render(self.labels, size)
        except ValueError as problem:
            do = "fix or delete the annotation"
            self.problems.append(error(self.entry.where, str(problem), do))
            return None
        files = encode_png(semantic), encode_png(smallest_dtype(instances))
        for data in files:
            self.digest.update(data)
        return files

    def _read(self, path: str) -> tuple[bytes, Path]:
        """Return the content and the full path of a file, and add it to the digest."""
        full = self.root / path
        if leaves(self.root, path):
            raise DatasetError(error(full, OUTSIDE, DO_COPY))
        data = read_bytes(full, DO_IMAGE)
        self.digest.update(data)
        return data, full

    def _mask_values(
        self, path: str | None, size: tuple[int, int], decode: Callable[[bytes, Path], np.ndarray]
    ) -> np.ndarray | None:
        if path is None:
            return None
        try:
            data, full = self._read(path)
            values = decode(data, full)
            if values.shape != size:
                have, want = f"{values.shape[1]} x {values.shape[0]}", f"{size[1]} x {size[0]}"
                what = f"mask of {have} pixels on an image of {want} (upright)"
                do = "resize the mask to the image; rotate it if the image has an EXIF orientation"
                raise DatasetError(error(full, what, do))
        except DatasetError as problem:
            self.problems += problem.problems
            return None
        return values

    def _is_complete(self, labels: np.ndarray, ids: np.ndarray) -> bool:
        """Return whether every class of the label map has an instance; warn otherwise."""
        classes = number_instances(ids, labels)[1]
        found = {0, IGNORE, *(int(label) + 1 for label in classes)}
        missing = set(np.unique(labels).tolist()) - found
        if missing:
            names = sorted(name for name, label in self.labels.items() if label in missing)
            what = f"has no instance of {', '.join(names)}, but the semantic mask has"
            do = "the image is left out of instance scores"
            self.problems.append(warning(self.root / str(self.entry.instances), what, do))
        return not missing

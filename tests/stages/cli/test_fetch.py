"""`weakmask fetch` on small archives behind a local server that can be cut off."""

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from scipy.io import savemat

from pipeline.data.index import Index
from pipeline.data.masks import read_semantic
from pipeline.readers.build import build
from stages.cli import fetch
from stages.cli.main import main
from tests.support.sources import SIZE, annotation, coco_folder, mask, voc_folder


class Server(ThreadingHTTPServer):
    """Serves `files` by name with ranges; `limit` bytes at most per answer, if any."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.limit: int | None = None
        self.ranges: list[str | None] = []

    def archive(self, name: str, data: bytes) -> fetch.Archive:
        """Serve a file; return how it is downloaded."""
        self.files[name] = data
        url = f"http://127.0.0.1:{self.server_port}/{name}"
        return fetch.Archive(url, hashlib.md5(data).hexdigest())


class Handler(BaseHTTPRequestHandler):
    """Answers with a file from the byte asked for."""

    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(wanted[len("bytes=") : -1]) if wanted else 0
        data = self.server.files[self.path[1:]][start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: self.server.limit])

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def packed(folder: Path, kind: str, base: str | None = None) -> bytes:
    """Return an archive of a folder, or of what is in it under `base`."""
    return Path(shutil.make_archive(f"{folder}-{base}", kind, folder, base)).read_bytes()


@pytest.fixture
def voc12(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """VOC with x1 and x2 to train on and y1 held out; SBD outlines x2, y1 and s1."""
    voc = voc_folder(tmp_path / "made/VOCdevkit/VOC2012", ["x1", "x2", "s1"], ["y1"])
    (voc / "ImageSets/Segmentation/train.txt").write_text("x1\nx2\n")
    sbd = tmp_path / "sbd/benchmark_RELEASE/dataset"
    (sbd / "cls").mkdir(parents=True)
    for name in ("x2", "y1", "s1"):
        savemat(sbd / f"cls/{name}.mat", {"GTcls": {"Segmentation": mask((0, 0, 4, 4, 2))}})
    (sbd / "train.txt").write_text("x2\ny1\n")
    (sbd / "val.txt").write_text("s1\n")
    found = (
        server.archive("voc.tgz", packed(tmp_path / "made", "gztar")),
        server.archive("sbd.tgz", packed(tmp_path / "sbd", "gztar")),
    )
    monkeypatch.setattr(fetch, "archives", lambda _: found)
    monkeypatch.chdir(tmp_path)


def follow(output: str) -> dict:
    """Run the command that fetch printed; return the section `dataset` that it wrote."""
    (words,) = re.findall(r"^  weakmask (init .*)$", output, re.MULTILINE)
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 0, result.output
    return yaml.safe_load(Path("params.yaml").read_text())["dataset"]


@pytest.mark.usefixtures("voc12")
def test_voc12_is_ready_for_its_preset(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["fetch", "voc12", "--to", "got"])
    assert result.exit_code == 0, result.output
    assert "train_aug lists 3 images" in result.output
    assert "\n  dvc repro\n" in result.output
    section = follow(result.output)
    assert (section["format"], section["voc"]) == ("voc", {"train": "train_aug", "val": "val"})
    index = build("voc", Path(section["source"]), tmp_path / "out", lists=section["voc"])
    assert (index.select("train"), index.select("val")) == (["s1", "x1", "x2"], ["y1"])
    assert [name for name in index if index.has_masks(name)] == ["s1", "x2"]
    np.testing.assert_array_equal(read_semantic(index, "s1"), mask((0, 0, 4, 4, 2)))


@pytest.mark.usefixtures("voc12")
def test_an_interrupted_download_continues(server: Server) -> None:
    command = ["fetch", "voc12", "--to", "got"]
    server.limit = 100
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 1
    assert "run the command again to continue" in first.output
    server.limit = None
    assert CliRunner().invoke(main, command).exit_code == 0
    assert server.ranges == [None, "bytes=100-", None]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert len(server.ranges) == 3, "nothing is downloaded twice"


@pytest.mark.usefixtures("voc12")
def test_a_wrong_checksum_is_refused(server: Server) -> None:
    server.files["voc.tgz"] += b"more"
    result = CliRunner().invoke(main, ["fetch", "voc12", "--to", "got"])
    assert result.exit_code == 1
    assert "does not have the MD5 checksum" in result.output
    assert not Path("got/VOCdevkit").exists()


def test_coco14_is_ready_for_its_preset(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco = coco_folder(tmp_path / "coco", [annotation(3, [[2, 1, 8, 1, 8, 6, 2, 6]])])
    text = (coco / "annotations/instances_train2017.json").read_text()
    for split in ("train", "val"):
        content = json.loads(text)
        for row in content["images"]:
            row["file_name"] = f"{split}_{row['file_name']}"
            (coco / f"{split}2014").mkdir(exist_ok=True)
            data = (coco / "train2017" / row["file_name"].removeprefix(f"{split}_")).read_bytes()
            (coco / f"{split}2014" / row["file_name"]).write_bytes(data)
        (coco / f"annotations/instances_{split}2014.json").write_text(json.dumps(content))
    found = [
        server.archive(f"{name}.zip", packed(coco, "zip", name))
        for name in ("annotations", "val2014", "train2014")
    ]
    monkeypatch.setattr(fetch, "archives", lambda _: found)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["fetch", "coco14", "--to", "got"])
    assert result.exit_code == 0, result.output
    section = follow(result.output)
    named = {
        split: (section["coco"][split], section["coco"][f"{split}_images"])
        for split in ("train", "val")
    }
    index = build("coco", Path(section["source"]), tmp_path / "out", annotations=named)
    assert len(index.select("train")) == len(index.select("val")) == 2
    assert index.size(index.select("val")[0]) == SIZE
    assert Index.load(tmp_path / "out") == index


@pytest.mark.parametrize("name", ["voc12", "coco14"])
def test_the_archives_are_the_publishers(name: str) -> None:
    for archive in fetch.archives(name):
        assert re.fullmatch(r"https?://.*\.(tar|tgz|zip)", archive.url)
        assert re.fullmatch("[0-9a-f]{32}", archive.md5)

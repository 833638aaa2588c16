"""Every command printed in the README and in docs/ works as printed.

The blocks of shell commands of a section run one after the other in a repository whose graph has
run, unless a comment above a block says what it needs: `<!-- test: minutes -->`, `photos` (minutes,
in the project of the README's own images), `example` (minutes, after the five steps of
CONTRIBUTING.md), `network`, `gpu` or `data`. `DOCS=minutes,photos,example pytest
tests/stages/test_docs.py` runs the first three as well. Of all, names are checked: targets of make,
subcommands and options of weakmask, parameters after -S.
"""

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import yaml
from PIL import Image

from stages.cli.main import main
from tests.support.repository import ROOT, commit, run

NEEDS = ("minutes", "photos", "example", "network", "gpu", "data")
RUN = ("", *os.environ.get("DOCS", "").split(","))
"""Needs that are met in this run."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- test: (\w+) -->\n)?^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
OWN_IMAGES = "weakmask init --source photos --force"
SHELL = f"""
weakmask() {{
    case $1 in
    browse) timeout --signal INT 20 weakmask "$@" || test $? = 124;;
    export-onnx) {'command weakmask "$@"' if "minutes" in RUN else 'test -f "$2"'};;
    init) command weakmask "$@" && PYTHONPATH={ROOT} python -m tests.support.repository;;
    *) command weakmask "$@";;
    esac
}}
dvc() {{
    command dvc "$@"
    if [ "$1 $2" = "queue start" ]; then
        while [[ $(command dvc queue status) =~ Queued|Running ]]; do sleep 2; done
    fi
}}
"""
"""Commands that end: what serves is interrupted, trainings are short, a queue is waited for.
ONNX exports take a minute each and run only with `DOCS=minutes`; test_export_onnx makes small ones.
"""


class Block(NamedTuple):
    """A block of shell commands: where it is printed, and in which section; what it needs beyond a
    finished run; its text.
    """

    where: str
    section: str
    needs: str
    text: str

    def commands(self) -> list[str]:
        """Return the single commands, without comments and line continuations."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        plain = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
        return [
            part.strip() for line in plain for part in re.split(r"&&|;(?!;)", line) if part.strip()
        ]


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            name = str(page.relative_to(ROOT))
            line = text.count("\n", 0, match.start(2))
            heading = re.findall(r"^#+ (.*)", text[: match.start()], re.MULTILINE)[-1]
            section = f"{name}: {heading}"
            yield Block(f"{name}:{line}", section, match.group(1) or "", match.group(2))


BLOCKS = {block.where: block for block in blocks()}


def test_markers_are_known_and_pages_have_commands() -> None:
    assert {block.needs for block in BLOCKS.values()} - {""} <= set(NEEDS)
    assert len(BLOCKS) > 10


@pytest.mark.parametrize("where", BLOCKS)
def test_names_in_commands_exist(where: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in BLOCKS[where].commands():
        words = shlex.split(re.sub(r"\bfor\b.*\bdo\b|\bdone\b", "", command))
        words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        if words[:1] == ["make"]:
            assert set(words[1:]) <= set(targets), command
        if words[:1] == ["weakmask"] and len(words) > 1:
            check_options(words[1:], command)
        for before, setting in pairwise(words):
            if before in ("-S", "--set-param"):
                check_parameter(setting.partition("=")[0].lstrip("+"), command)


def check_options(words: list[str], command: str) -> None:
    sub: click.Command | None = main
    while isinstance(sub, click.Group):
        sub, words = sub.get_command(click.Context(sub), words[0]), words[1:]
    assert sub is not None, command
    known = {name for option in sub.params for name in (*option.opts, *option.secondary_opts)}
    used = {word.partition("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
    assert used <= known | {"--help"}, command


def check_parameter(name: str, command: str) -> None:
    section = yaml.safe_load((ROOT / "params.yaml").read_text())
    for part in name.split("."):
        assert part in section, f"{command}: {name} is not a parameter"
        section = section[part]


@pytest.fixture(scope="module")
def home(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with what the pages suppose there: two photographs, another model's masks of one."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "photos").mkdir()
    scenes = sorted((finished / "data/dataset/images").iterdir())
    for name, scene in zip(("beach", "farm"), scenes, strict=False):
        with Image.open(scene) as image:
            image.save(folder / f"photos/{name}.jpg")
            width, height = image.size
    box = [width // 4, height // 4, width // 3, height // 3]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "score": 0.9}
    coco = {
        "images": [{"id": 1, "file_name": "farm.jpg", "width": width, "height": height}],
        "categories": [{"id": 1, "name": "cow"}],
        "annotations": [annotation],
    }
    (folder / "sam3.json").write_text(json.dumps(coco))
    return folder


@pytest.fixture
def demo(finished: Path, tmp_path: Path) -> Path:
    """A repository as the demo leaves it: dvc.lock is not committed."""
    folder = shutil.copytree(finished, tmp_path / "repository", symlinks=True)
    run(folder, "git", "reset", "-q", "HEAD~1")
    return folder


@pytest.fixture
def photos(demo: Path, home: Path) -> Path:
    """A repository of the README's own images, in which the whole graph has run."""
    bash(demo, next(block.text for block in BLOCKS.values() if OWN_IMAGES in block.text), home)
    return demo


@pytest.fixture
def example(demo: Path) -> Path:
    """A repository to which the classifier of CONTRIBUTING.md was added in its five steps."""
    method, section = re.findall(
        r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
    )
    (demo / "pipeline/classifiers/hide").mkdir()
    (demo / "pipeline/classifiers/hide/__init__.py").write_text(method)
    registry, types = "pipeline/classifiers/__init__.py", "pipeline/params/pseudo_labels.py"
    values = "\nclassifier:\n  hide: {cells: 4, share: 0.5}\n"
    for name, old, new in (
        (
            registry,
            "\n\nCLASSIFIERS",
            "\nfrom pipeline.classifiers.hide import Hide\n\nCLASSIFIERS",
        ),
        (registry, '"frozen": Frozen,', '"frozen": Frozen, "hide": Hide,'),
        (types, '"s2c", "frozen"', '"s2c", "frozen", "hide"'),
        (types, "    frozen: Frozen\n", "    frozen: Frozen\n    hide: Hide\n"),
        (types, "\n\nclass Classifier(", f"\n\n{section}\n\nclass Classifier("),
        ("params.yaml", "\nclassifier:\n", values),
        ("pipeline/presets/base.yaml", "\nclassifier:\n", values),
    ):
        text = (demo / name).read_text()
        assert text.count(old) == 1, f"{name}: {old}"
        (demo / name).write_text(text.replace(old, new))
    commit(demo)
    return demo


def bash(folder: Path, text: str, home: Path) -> None:
    """Run commands with the code of a repository, as if it were installed there."""
    command = ("bash", "-e", "-o", "pipefail", "-c", SHELL + text)
    run(folder, *command, HOME=str(home), PYTHONPATH=str(folder))


@pytest.mark.slow
@pytest.mark.timeout(3600)  # for what takes minutes
@pytest.mark.parametrize(
    "section", dict.fromkeys(block.section for block in BLOCKS.values() if block.needs in RUN)
)
def test_commands_work_as_printed(section: str, home: Path, request: pytest.FixtureRequest) -> None:
    chosen = [block for block in BLOCKS.values() if block.section == section and block.needs in RUN]
    special = {block.needs for block in chosen} & {"photos", "example"}
    folder = request.getfixturevalue(special.pop() if special else "demo")
    for block in chosen:
        bash(folder, block.text, home)

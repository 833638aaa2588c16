"""Every command printed in the README and in docs/ works as printed.

A block of shell commands runs in a repository whose graph has run, unless a comment above it says
what it needs: `<!-- test: minutes -->`, `network` or `gpu`. Of those, names are checked: targets of
make, subcommands and options of weakmask, parameters after -S.
"""

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

from stages.cli.main import main
from tests.support.repository import ROOT, run

NEEDS = ("minutes", "network", "gpu")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- test: (\w+) -->\n)?^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of shell commands: where it is printed, what it needs beyond a finished run, its
    text.
    """

    where: str
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
            line = text.count("\n", 0, match.start(2))
            yield Block(f"{page.relative_to(ROOT)}:{line}", match.group(1) or "", match.group(2))


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


@pytest.mark.slow
@pytest.mark.parametrize("where", [where for where, block in BLOCKS.items() if not block.needs])
def test_command_works_as_printed(where: str, repository: Path) -> None:
    shutil.rmtree(repository / "out", ignore_errors=True)  # of another block
    run(repository, "bash", "-e", "-o", "pipefail", "-c", BLOCKS[where].text)

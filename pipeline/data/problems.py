"""Problems of a dataset: where, what is wrong, and what to do about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UserError

MAX_SHOWN = 4000
"""Characters of a part of a message above which its middle is omitted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: `where` (file, or file and row), `what` is wrong, what to `do` about it.

    Errors stop the build, warnings do not.
    """

    level: Literal["error", "warning"]
    where: str
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.do}"


class DatasetError(UserError):
    """Unusable images, tags, masks or index; the message lists all of `problems`, one a line."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type["DatasetError"], tuple[list[Problem]]]:
        return type(self), (self.problems,)


def error(where: object, what: str, do: str) -> Problem:
    """Return a problem that stops the build."""
    return Problem("error", one_line(str(where)), one_line(what), one_line(do))


def warning(where: object, what: str, do: str) -> Problem:
    """Return a problem that does not stop the build."""
    return Problem("warning", one_line(str(where)), one_line(what), one_line(do))


def one_line(text: str) -> str:
    """Return the text as a terminal can print it on one line.

    Control characters and invalid Unicode (from file names) are escaped; a very long text loses its
    middle.
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    half = MAX_SHOWN // 2
    return text if len(text) <= MAX_SHOWN else f"{text[:half]} ... {text[-half:]}"


def stop_at_errors(problems: Iterable[Problem]) -> None:
    """Raise DatasetError with all errors of the problems, if there are any."""
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        raise DatasetError(errors)

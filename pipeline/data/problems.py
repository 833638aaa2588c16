"""What can be wrong with a source of images, in words for the person who has to mend it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UserError

LONGEST = 4000
"""Letters of a message's part from which on its middle is left out."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `where` (file, or file and row), `what`, and what to `do`. Errors
    stop, warnings do not.
    """

    level: Literal["error", "warning"]
    where: str
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.do}"


class DatasetError(UserError):
    """Images, tags, masks or an index cannot be used; the message lists every error, `problems`
    holds them.
    """

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type["DatasetError"], tuple[list[Problem]]]:
        return type(self), (self.problems,)


def error(where: object, what: str, do: str) -> Problem:
    """A problem that stops."""
    return Problem("error", one_line(str(where)), one_line(what), one_line(do))


def warning(where: object, what: str, do: str) -> Problem:
    """A problem that does not stop."""
    return Problem("warning", one_line(str(where)), one_line(what), one_line(do))


def one_line(text: str) -> str:
    """The text as a terminal can show it on a line: control characters and broken Unicode, as
    hostile file names hold them, as escapes; the middle of a very long one is left out.
    """
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def stop_at_errors(problems: Iterable[Problem]) -> None:
    """Raise DatasetError with all errors among the problems, if there are any."""
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        raise DatasetError(errors)

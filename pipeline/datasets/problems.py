"""What can be wrong with a source of pictures, in words for the person who has to mend it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UserError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `where` (file, or file and row), `what`, and what to `do`. Errors stop,
    warnings do not."""

    level: Literal["error", "warning"]
    where: str
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.do}"


class DatasetError(UserError):
    """Pictures, tags, masks or an index cannot be used; the message lists every error, `problems` holds
    them."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type["DatasetError"], tuple[list[Problem]]]:
        return type(self), (self.problems,)


def error(where: object, what: str, do: str) -> Problem:
    """A problem that stops."""
    return Problem("error", str(where), what, do)


def warning(where: object, what: str, do: str) -> Problem:
    """A problem that does not stop."""
    return Problem("warning", str(where), what, do)


def stop_at_errors(problems: Iterable[Problem]) -> None:
    """Raise DatasetError with all errors among the problems, if there are any."""
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        raise DatasetError(errors)

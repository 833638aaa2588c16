"""Numbers and names in words, as every description writes them."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TypeVar

from pipeline.errors import UserError

Entry = TypeVar("Entry")
SHOWN = 5
"""How many images are named for each oddity."""


def count(number: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`; many: a plural that is not made with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str], whole: int | None = None) -> str:
    """The first few names; whole: how many there are, where not all are given."""
    more = ", ..." if (len(names) if whole is None else whole) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def bytes_of(number: int) -> str:
    """A file size in the unit that a person would use."""
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"


def known(table: Mapping[str, Entry], format_: str) -> Entry:
    """The entry of a format; raises ValueError that lists those there are."""
    if format_ not in table:
        raise ValueError(
            f"nothing is known about the format {format_!r}; known are {', '.join(table)}"
        )
    return table[format_]


def not_there(place: object, name: str, names: Sequence[str]) -> UserError:
    """The error for an id that is not there, with some that are."""
    if not names:
        return UserError(f"{place}: no image {name!r}; it has none at all")
    near = [other for other in names if name in other] or get_close_matches(name, names)
    hint = f"near: {listed(near)}" if near else f"it has {', '.join(names[:3])} ..."
    return UserError(f"{place}: no image {name!r}; {hint}")

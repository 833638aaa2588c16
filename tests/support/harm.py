"""Damaged files: random bytes, and valid ones with flips, cuts, insertions and swaps."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pipeline.errors import UserError

LONG = int(os.environ.get("WEAKMASK_FUZZ", "0"))
"""Examples per test, new ones in every run; 0 for a few that are always the same."""

HARD = settings(
    max_examples=LONG or 60,
    derandomize=not LONG,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
"""Settings of tests whose examples write the same file again."""


@st.composite
def harmed(draw: st.DrawFn, sound: bytes) -> bytes:
    """Draw a valid file with one to four kinds of damage, or random bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        place, length = draw(st.integers(0, len(data))), draw(st.integers(1, 40))
        how = draw(st.sampled_from(["flip", "cut", "remove", "insert", "swap"]))
        if how == "flip" and place < len(data):
            data[place] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del data[place:]
        elif how == "remove":
            del data[place : place + length]
        elif how == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=length))
        elif how == "swap":
            other = draw(st.integers(0, len(data)))
            first, second = data[place : place + length], data[other : other + length]
            data[place : place + length], data[other : other + length] = second, first
    return bytes(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def changed(draw: st.DrawFn, sound: Any) -> Any:
    """Draw a tree of mappings and lists with one value replaced or removed."""
    if isinstance(sound, dict) and sound and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(sound)))
        rest = {name: value for name, value in sound.items() if name != key}
        return rest if draw(st.integers(0, 5)) == 0 else {**rest, key: draw(changed(sound[key]))}
    if isinstance(sound, list) and sound and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(sound) - 1))
        return [*sound[:place], draw(changed(sound[place])), *sound[place + 1 :]]
    return draw(json_values)


def result_or_message(work: Callable[[], Any], named: Path | str) -> Any:
    """Return the result of `work`, or None for a UserError that names the file; raise others."""
    try:
        return work()
    except UserError as error:
        message = str(error)
    assert str(named) in message
    return None

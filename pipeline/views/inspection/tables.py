"""What scores, tables and curves hold, in words."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.views.charts import number
from pipeline.views.inspection.words import count, listed
from pipeline.views.report_data import read_rows

ONE_A_IMAGE = ("images", "failures")
"""Tables with one row an image."""


def describe_scores(path: Path) -> list[str]:
    """Lines of text on the few scores of a step; raises UserError for a file that holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        steps = {step: dict(values) for step, values in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: no scores of this version; make them again with `dvc repro -f scores`"
        ) from error
    lines = []
    for step, values in steps.items():
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        lines.append(f"scores of {step}: {shown or 'none, as no image has a pixel mask'}")
        odd = [
            name
            for name, value in values.items()
            if not (number(value) is not None and 0 <= value <= 1)
        ]
        lines.append(f"odd: outside [0, 1]: {listed(odd)}" if odd else "nothing odd")
    return lines


def describe_table(path: Path) -> list[str]:
    """Lines of text on a csv file: rows, ranges of its columns, values that are empty or not
    finite, ids that come twice.
    """
    rows = read_rows(path)
    if not rows:
        return [f"{path.stem}: no rows", "odd: nothing in it"]
    lines, odd = [f"{path.stem}: {count(len(rows), 'row')}, columns {', '.join(rows[0])}"], []
    for name in (column for column in rows[0] if column != "id"):
        texts = [row[name] for row in rows if row[name]]
        values = [value for value in map(number, texts) if value is not None]
        if values:
            empty = f", {len(rows) - len(texts)} empty" if len(texts) < len(rows) else ""
            lines.append(
                f"{name}: {min(values):.4g} to {max(values):.4g}{_course(rows, name, values)}{empty}"
            )
        if broken := len(texts) - len(values) if values else 0:
            odd.append(f"odd: {name} is no finite number in {count(broken, 'row')}")
    if path.stem in ONE_A_IMAGE:
        twice = [name for name, n in Counter(row.get("id", "") for row in rows).items() if n > 1]
        odd += [f"odd: ids that come twice: {listed(twice)}"] if twice else []
    return [*lines, *(odd or ["nothing odd"])]


def rows_of(path: Path, name: str) -> list[str]:
    """Lines of text with the rows of one image in a table; none where it has none. Raises
    UserError.
    """
    own = [row for row in read_rows(path) if row.get("id") == name]
    return [
        f"{path.parent.name}/{path.stem}: "
        + ", ".join(f"{key} {value or '-'}" for key, value in row.items() if key != "id")
        for row in own
    ]


def ids_of(path: Path) -> list[str]:
    """The ids in a table, each once; raises UserError."""
    return list(dict.fromkeys(row["id"] for row in read_rows(path) if "id" in row))


def _course(rows: Sequence[Mapping[str, str]], name: str, found: Sequence[float]) -> str:
    """Where a training curve goes."""
    return (
        f", from {found[0]:.4g} to {found[-1]:.4g}"
        if "step" in rows[0] and name not in ("step", "lr")
        else ""
    )

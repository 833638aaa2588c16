"""What the pictures of the grid can be sorted and filtered by, and the sequence that a query makes of them."""

from collections.abc import Mapping, Sequence

from pipeline.browser.disagreements import Disagreements, Progress
from pipeline.browser.listing import DIFFER, Measures, Query, Values, select
from pipeline.browser.runs import SCORED, Run
from pipeline.errors import UserError
from pipeline.views.summary import TITLES

GAIN = "gain"


class Selection:
    """The pictures of the first run; scores of all runs, of which the first counts and the others are compared with it."""

    def __init__(self, runs: Sequence[Run], disagreements: Disagreements) -> None:
        self.run, self.others, self._disagreements = runs[0], tuple(runs[1:]), disagreements

    def names(self, query: Query) -> list[str]:
        """The ids that a query asks for, in its order."""
        return select(self.run.index, query, self.measures(query))

    def measures(self, query: Query) -> Measures:
        """Numbers by picture: mIoU by step, what another run gained, and the disagreement if the query asks for it."""
        values: dict[str, Values] = dict(self.scores())
        for run in self.others:
            for step in SCORED:
                before, after = values.get(step, {}), _miou(run, step)
                gains = {name: after[name] - before[name] for name in after if name in before}
                if gains:
                    values[f"{GAIN}:{step}:{run.name}"] = gains
        if DIFFER in (query.sort, query.by):
            # a copy, as the computation goes on adding to it
            values[DIFFER] = dict(self.progress(query).values)
        return Measures(values, frozenset({DIFFER}))

    def scores(self) -> Mapping[str, Values]:
        """mIoU by picture of every step that the first run has scores of."""
        return {step: values for step in SCORED if (values := _miou(self.run, step))}

    def progress(self, query: Query) -> Progress:
        """How far the disagreement that a query asks for has come."""
        return self._disagreements.ask(self.run, *query.differ)

    def titles(self) -> dict[str, str]:
        """What can be sorted by, and how it is called."""
        titles = {"id": "id"} | {step: f"mIoU of {TITLES[step].lower()}" for step in self.scores()}
        for name in self.measures(Query()).values:
            kind, _, rest = name.partition(":")
            if kind == GAIN:
                step, _, run = rest.partition(":")
                titles[name] = f"gain of {TITLES[step].lower()}, {run}"
        return titles | {DIFFER: "disagreement"}

    def problems(self) -> list[str]:
        """What is wrong with artefacts and score tables of any run, a line each."""
        found = []
        for run in (self.run, *self.others):
            found += [run.problem(key) for key in dict.fromkeys([*run.places.artefacts, *run.places.lacking])]
            found += [_table_problem(run, step) for step in SCORED]
        return list(dict.fromkeys(text for text in found if text))


def _miou(run: Run, step: str) -> Values:
    """mIoU by picture; none for a damaged table, which `problems` names."""
    return {} if _table_problem(run, step) else run.miou(step)


def _table_problem(run: Run, step: str) -> str | None:
    try:
        run.miou(step)
    except UserError as error:
        return str(error)
    return None

"""Whether an experiment answers what is asked, and the scores it has for it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stages._command import DATA
from stages.experiments import experiments, lineage
from stages.experiments.experiments import Experiment
from stages.experiments.plan import Run
from stages.experiments.table import MEASURES, STEPS, Score


@dataclass(frozen=True)
class Verdict:
    """How an experiment answers what is asked.

    missing: asked steps it has not scored. differences: what made the scores of the asked steps
    that is not as asked now. other: the same for the steps it has scored beyond those. scored: all
    steps it has scored.
    """

    missing: Sequence[str]
    differences: Sequence[str]
    other: Sequence[str]
    scored: Sequence[str]

    @property
    def whole(self) -> bool:
        """Whether nothing need run again."""
        return not self.missing and not self.differences


def judge(run: Run, experiment: Experiment, steps: Sequence[str]) -> Verdict:
    """Compare an experiment with what is asked; nothing that the asked steps do not depend on
    counts.
    """
    made = {step: lineage.made_by(experiment.lock, f"scores@{step}") for step in STEPS}
    scored = [step for step in STEPS if made[step]]

    def differences(wanted: Iterable[str]) -> list[str]:
        """Parameters and files that made these steps' scores and are not so now."""
        stages = list(dict.fromkeys(stage for step in wanted for stage in made[step]))
        changed = lineage.parameter_differences(experiment.lock, stages, run.parameters)
        return changed + [
            f"{path} has changed" for path in experiments.changed_files(experiment, stages)
        ]

    asked = [step for step in scored if step in steps]
    return Verdict(
        missing=[step for step in steps if step not in scored],
        differences=differences(asked),
        other=differences([step for step in scored if step not in steps]),
        scored=scored,
    )


def best(
    run: Run, found: Sequence[Experiment], steps: Sequence[str]
) -> tuple[Experiment, Verdict] | None:
    """Of the experiments of one name the first that answers what is asked, else the first."""
    judged = [(experiment, judge(run, experiment, steps)) for experiment in found]
    return next((pair for pair in judged if pair[1].whole), judged[0] if judged else None)


def scores_of(
    run: Run, experiment: Experiment, verdict: Verdict, steps: Sequence[str]
) -> list[Score]:
    """The scores of the asked steps that the experiment has itself made."""
    found = []
    for step, name, _ in MEASURES:
        if step in steps and step in verdict.scored:
            metrics = experiment.metrics.get((DATA / "scores" / f"{step}.json").as_posix(), {})
            value = (metrics.get(step) or {}).get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                found.append(Score(run.method, run.seed, step, name, float(value)))
    return found

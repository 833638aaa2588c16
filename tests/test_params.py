"""The parameters: every preset fits the models, and every mistake is explained before work starts."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from pipeline.params import ParameterError, Parameters, parse

ROOT = Path(__file__).resolve().parents[1]
PRESETS = sorted((ROOT / "pipeline" / "presets").glob("*.yaml"))


def values(name: str = "scenes") -> dict[str, Any]:
    return yaml.safe_load(
        (ROOT / "pipeline" / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    )


def changed(**changes: Any) -> dict[str, Any]:
    """The scenes preset with values set by double-underscored path."""
    made = copy.deepcopy(values())
    for path, value in changes.items():
        *sections, last = path.split("__")
        section = made
        for part in sections:
            section = section[part]
        section[last] = value
    return made


def problems(given: dict[str, Any]) -> str:
    with pytest.raises(ParameterError) as caught:
        parse(given)
    return str(caught.value)


def sections(model: type[BaseModel] = Parameters) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation)


@pytest.mark.defect("irn-26", "s2c-6-7")
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_valid(path: Path) -> None:
    given = values(path.stem)
    # Compared through yaml, because tuples and lists, 3 and 3.0 are the same there.
    assert yaml.safe_load(yaml.safe_dump(parse(given).model_dump(mode="json"))) == given


def test_the_parameters_of_the_repository_are_the_scenes() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (
        ROOT / "pipeline" / "presets" / "scenes.yaml"
    ).read_bytes()


@pytest.mark.defect("irn-26")
def test_every_parameter_is_described_and_has_no_default() -> None:
    for section in sections():
        assert section.__doc__, section
        for name, field in section.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            assert nested or field.description, f"{section.__name__}.{name}"
            assert field.is_required(), (
                f"{section.__name__}.{name}: defaults live in params.yaml alone"
            )


def test_sections_are_frozen() -> None:
    parameters = parse(values())
    with pytest.raises(ValidationError, match="frozen"):
        parameters.base.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        parameters.classifier.optimizer.lr = 1.0


def test_an_unknown_name_gets_the_nearest_and_all_valid_ones() -> None:
    text = problems(changed(seeds__forground=0.5))
    assert "seeds.forground: no such parameter; did you mean 'foreground'?" in text
    assert "background, crf, foreground" in text
    text = problems(changed(labels__walk__zzz=1))
    assert "labels.walk.zzz: no such parameter; valid here: beta, radius, steps" in text
    assert "did you mean 'cams'" in problems(changed(cam={}))


@pytest.mark.defect("irn-14")
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "classifier__optimizer__name",
            "adam",
            "classifier.optimizer.name: Input should be 'adamw' or 'sgd'",
        ),
        ("classifier__batch", 0, "greater than or equal to 1"),
        ("classifier__batch", 1.5, "integer"),
        ("classifier__optimizer__lr", 0, "greater than 0"),
        ("classifier__optimizer__lr", float("inf"), "finite"),
        ("classifier__optimizer__lr", "fast", "number"),
        ("seeds__background", 0.9, r"seeds: background \(0.9\) must not exceed foreground"),
        ("seeds__foreground", 1.5, "less than or equal to 1"),
        (
            "classifier__resize",
            [300, 200],
            r"classifier.resize: must be \[smallest, largest\], got \[300, 200\]",
        ),
        ("irnet__scale", [1.5, 0.5], r"irnet.scale: must be \[smallest, largest\]"),
        ("semantic__scale", [0.5, 1, 2], "semantic.scale"),
        ("cams__scales", [], "at least 1"),
        ("cams__scales", [1.0, -1], "cams.scales.1: Input should be greater than 0, got -1"),
        ("runtime__precision", "half", "'auto', 'float32', 'bfloat16' or 'float16', got 'half'"),
        ("base", 3, "base: .*got 3"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(path: str, value: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        parse(changed(**{path: value}))
    assert path.replace("__", ".").split(".")[0] in str(caught.value)
    assert len(str(caught.value)) < 400, "a message shows the value, not the whole section"


def test_every_problem_is_listed_at_once() -> None:
    wrong = changed(seeds__forground=0.5, irnet__batch=0)
    del wrong["cams"]["flip"]
    text = problems(wrong)
    assert all(f"  {name}: " in text for name in ("seeds.forground", "irnet.batch", "cams.flip"))
    assert len(text.splitlines()) == 4


def test_exponents_without_a_point_are_numbers() -> None:
    """YAML 1.1 reads 1e-3 as text, and so does PyYAML; people mean a number."""
    assert yaml.safe_load("1e-3") == "1e-3"
    assert parse(changed(classifier__optimizer__lr="1e-3")).classifier.optimizer.lr == 0.001


@pytest.mark.defect("irn-14")
def test_a_truth_value_is_no_number() -> None:
    """YAML reads `yes` and `on` as true, which would count as 1."""
    for path in ("classifier__epochs", "classifier__batch", "base__seed", "irnet__scale"):
        value = yaml.safe_load("[yes, 1]" if path == "irnet__scale" else "yes")
        assert "got True" in problems(changed(**{path: value}))

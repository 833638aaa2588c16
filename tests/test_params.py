"""Parameters and presets: every preset is valid, every mistake is explained before any work."""

import io
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from pipeline.classifiers.puzzlecam import check_grid
from pipeline.errors import UserError
from pipeline.params import ParameterError, Parameters, check_names, parse, presets

ROOT = Path(__file__).resolve().parents[1]


@cache
def scenes() -> dict[str, Any]:
    return presets.load("scenes")


def changed(**changes: Any) -> dict[str, Any]:
    """The scenes preset with values set by double-underscored path."""
    made = deepcopy(scenes())
    for path, value in changes.items():
        *sections, last = path.split("__")
        section = made
        for part in sections:
            section = section[part]
        section[last] = value
    return made


def message(values: dict[str, Any]) -> str:
    with pytest.raises(ParameterError) as caught:
        parse(values)
    return str(caught.value)


def all_sections(model: type[BaseModel] = Parameters) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from all_sections(field.annotation)


@pytest.mark.defect("irn-26", "s2c-6-7")
@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_valid(name: str) -> None:
    values = presets.load(name)
    parameters = parse(values)
    # Compared through yaml, because tuples and lists, 3 and 3.0 are the same there.
    assert yaml.safe_load(yaml.safe_dump(parameters.model_dump(mode="json"))) == values
    classifier = parameters.classifier
    check_grid(classifier.crop, classifier.puzzlecam.grid, classifier.puzzlecam.margin)


def test_params_yaml_is_the_preset_scenes() -> None:
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == presets.text("scenes")


def test_merged_presets_keep_comments_under_their_own_head() -> None:
    text = presets.text("voc12-seenet")
    assert text.startswith("# PASCAL VOC 2012 with SeeNet's classifier")
    assert "built-in scenes" not in text
    assert "# how the work is done on this machine" in text
    assert "extends" not in text


def test_an_unknown_preset_lists_the_valid_ones() -> None:
    for name in ("voc13", "base"):
        with pytest.raises(UserError, match="choose from coco14, folder, folder-gpu, "):
            presets.load(name)


@pytest.mark.defect("irn-26")
def test_every_parameter_is_described_and_has_no_default() -> None:
    for section in all_sections():
        assert section.__doc__, section
        for name, field in section.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            assert nested or field.description, f"{section.__name__}.{name}"
            assert field.is_required(), f"{section.__name__}.{name}: only params.yaml has values"


def test_sections_are_frozen() -> None:
    parameters = parse(presets.load("scenes"))
    with pytest.raises(ValidationError, match="frozen"):
        parameters.classifier.optimizer.lr = 1.0


@pytest.mark.parametrize("name", presets.names())
def test_dvc_can_rewrite_a_parameter_file_without_wrapping_its_lines(name: str) -> None:
    """As `dvc exp run -S` does, with ruamel's width of 80; what it wraps ends with a blank."""
    editor, stream = YAML(), io.StringIO()
    editor.dump(editor.load(presets.text(name)), stream)
    wrapped = [line for line in stream.getvalue().splitlines() if line.endswith(" ")]
    assert not wrapped, "write these sections of base.yaml with a line per parameter"


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("wlak.beta=3", "-S wlak.beta=3: wlak: no such parameter; did you mean 'walk'?"),
        ("seeds.forground=0.5", "seeds.forground: no such parameter; did you mean 'foreground'?"),
        ("seeds.crf.x=1", "valid here: bilateral_rgb"),
        ("walk.beta.x=1", "walk.beta.x: no such parameter; valid here: none"),
        ("+walk.new=1", "+walk: no such parameter; did you mean 'walk'?"),
    ],
)
def test_names_of_settings_are_checked(setting: str, text: str) -> None:
    check_names(["walk.beta=10", "seeds.crf.iterations=0,3", "classifier.method=cam,s2c"])
    with pytest.raises(ParameterError, match=re.escape(text)):
        check_names([setting])


@pytest.mark.defect("irn-14")
@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("classifier__optimizer__name", "adam", "optimizer.name: Input should be 'adamw' or 'sgd'"),
        ("fields__flip", "maybe", r"fields\.flip: .*boolean"),
        ("fields__flip", None, r"fields\.flip: .*boolean"),
        ("segments__sam__points_per_side", 148, "less than or equal to 147"),
        ("classifier__batch", 0, "greater than or equal to 1"),
        ("classifier__batch", 1.5, "integer"),
        ("classifier__optimizer__lr", float("inf"), "finite"),
        ("classifier__optimizer__lr", "fast", "number"),
        ("classifier__optimizer__schedule", "cosine", "schedule.*'poly'"),
        ("classifier__optimizer__schedule", [0.5, 2], "less than or equal to 1, got 2"),
        ("seeds__background", 0.9, r"seeds: background \(0.9\) must not exceed foreground"),
        ("seeds__foreground", 1.5, "less than or equal to 1"),
        ("classifier__resize", [300, 200], r"must be \[smallest, largest\], got \[300, 200\]"),
        ("semantic__scale", [0.5, 1, 2], "semantic.scale"),
        ("cams__scales", [], "at least 1"),
        ("cams__scales", [1.0, -1], "cams.scales.1: Input should be greater than 0, got -1"),
        ("instance__sparseinst__groups", 3, r"groups \(3\) must divide width \(128\)"),
        ("classifier__seenet__background", 0.8, r"background \(0.8\) must not exceed erase"),
        ("base", 3, "base: .*got 3"),
        ("base__seed", "x" * 999, r"base.seed: .*x \.\.\. x"),
        # YAML reads `yes` and `on` as booleans, which would count as 1.
        ("classifier__epochs", True, "must not be a boolean, got True"),
        ("irnet__scale", [True, 1], "must not be a boolean, got True"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(path: str, value: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=words) as caught:
        parse(changed(**{path: value}))
    assert path.split("__")[0] in str(caught.value)
    assert len(str(caught.value)) < 600, "a message shows the value, not the whole section"


def test_every_problem_is_listed_at_once() -> None:
    wrong = changed(seeds__forground=0.5, irnet__batch=0)
    del wrong["cams"]["flip"]
    wrong["cam"] = {}
    text = message(wrong)
    unknown = "seeds.forground: no such parameter; did you mean 'foreground'", "cam: no such param"
    assert all(f"  {one}" in text for one in (*unknown, "irnet.batch: ", "cams.flip: missing; "))
    assert len(text.splitlines()) == 5


def test_exponents_without_a_point_are_numbers() -> None:
    """YAML 1.1, and so PyYAML, reads 1e-3 as text."""
    assert yaml.safe_load("1e-3") == "1e-3"
    assert parse(changed(classifier__optimizer__lr="1e-3")).classifier.optimizer.lr == 0.001

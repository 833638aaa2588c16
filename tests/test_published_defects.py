"""The defects of the published codes, and the tests that show ours has none of them: of IRNet's
(its specification, section 15) first.

23, object ids in exported COCO files, is not listed: exports do not exist yet.
"""

import ast
import importlib
import pkgutil
import resource
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

import pipeline
from pipeline.core import engine, trainer
from pipeline.core.artifacts import Reader
from pipeline.core.device import Runtime
from pipeline.irnet.walk import random_walk
from pipeline.params import ParameterError, parse
from pipeline.readers.build import build
from tests.support.runtimes import runtime

TESTS = Path(__file__).resolve().parent
HERE = "test_published_defects.py"
DEFECTS: Mapping[int, tuple[str, tuple[str, ...]]] = {
    1: ("lists of ids such as 2007_000032 cannot be read", (f"{HERE}::test_any_id_goes_through",)),
    2: ("names that numpy has dropped", (f"{HERE}::test_every_module_imports",)),
    3: (
        "images above 512 pixels are cropped and the walk fails",
        (
            "irnet/test_network.py::test_a_image_above_512_pixels_is_not_cropped",
            "irnet/test_walk.py::test_a_image_wider_than_512_pixels_walks",
        ),
    ),
    4: (
        "fewer than 20 images divide by zero",
        (
            f"{HERE}::test_few_images_in_any_number_of_workers",
            "metrics/test_evaluation.py::test_fewer_than_twenty_images_are_scored",
        ),
    ),
    5: (
        "fewer images than a batch lose the training",
        (
            f"{HERE}::test_fewer_images_than_a_batch_train",
            "irnet/test_irnet_training.py::test_without_images_there_is_no_shift",
        ),
    ),
    6: (
        "without a GPU nothing happens",
        (
            f"{HERE}::test_few_images_in_any_number_of_workers",
            "test_runtime.py::test_auto_takes_what_there_is",
            "test_runtime.py::test_what_this_machine_has_not_is_named",
        ),
    ),
    7: (
        "images without classes fail",
        (
            "test_seeds.py::test_a_image_without_classes_is_background",
            "test_crf.py::test_one_label_leaves_nothing_to_refine",
            "test_labels.py::test_without_any_evidence_all_is_background",
            "classifiers/test_extraction.py::test_a_image_without_tags_has_no_maps",
        ),
    ),
    8: (
        "gray and RGBA images fail, only .jpg is read",
        (
            "datasets/test_images.py::test_gray_becomes_three_equal_channels",
            "datasets/test_images.py::test_alpha_is_dropped_and_not_blended",
            "datasets/test_images.py::test_color_is_read_exactly",
        ),
    ),
    9: (
        "ids must look like YYYY_NNNNNN",
        (f"{HERE}::test_any_id_goes_through", "datasets/test_folder.py::test_ids"),
    ),
    10: (
        "a nan in the displacement is an index error",
        ("irnet/test_centroids.py::test_nan_in_the_field_is_refused",),
    ),
    11: (
        "no foreground is an error",
        (
            "irnet/test_centroids.py::test_nothing_above_the_background_is_no_instance",
            "test_labels.py::test_without_any_evidence_all_is_background",
        ),
    ),
    12: (
        "20 classes are wired in",
        (
            "classifiers/test_cam.py::test_any_number_of_classes",
            "test_seeds.py::test_more_classes_than_voc_has",
            "test_seeds.py::test_any_class_id_is_mapped",
            "irnet/test_losses.py::test_every_label_below_255_is_a_class",
        ),
    ),
    13: (
        "the optimizer loses its momentum",
        (f"{HERE}::test_momentum_and_weight_decay_reach_sgd",),
    ),
    14: (
        "switches and numbers are read as text",
        (
            f"{HERE}::test_switches_are_what_they_say",
            "test_params.py::test_a_wrong_value_is_named_with_what_is_allowed",
            "test_params.py::test_a_truth_value_is_no_number",
        ),
    ),
    15: (
        "an all-zero class map becomes nan",
        (
            "classifiers/test_extraction.py::test_an_empty_map_stays_empty_and_is_never_nan",
            "test_labels.py::test_an_empty_class_beside_another_is_left_out",
            "irnet/test_walk.py::test_all_zero_maps_stay_zero",
        ),
    ),
    16: (
        "wrong checkpoints run with random heads",
        (
            "irnet/test_network.py::test_weights_that_do_not_fit_are_refused_and_named",
            "test_weights.py::test_restoring_is_strict",
            "test_backbones.py::test_a_missing_tensor_is_named",
        ),
    ),
    17: (
        "a weak class vanishes beside a strong one",
        ("test_labels.py::test_a_weak_class_survives_under_its_own_maximum",),
    ),
    18: (
        "class maps are shifted against each other",
        (
            "classifiers/test_extraction.py::test_no_scale_and_no_flip_is_shifted",
            "test_seeds.py::test_maps_are_enlarged_about_the_centers_of_their_cells",
        ),
    ),
    19: (
        "eval() and train() return nothing and change nothing",
        ("irnet/test_network.py::test_the_backbone_stays_in_evaluation_mode_and_gets_no_gradient",),
    ),
    20: (
        "scaling an image without labels takes its first row",
        ("test_augmentation.py::test_the_scale_is_drawn_from_its_range",),
    ),
    21: (
        "the mean shift depends on the list that is labeled",
        (
            "irnet/test_irnet_training.py::test_every_image_counts_alike_whatever_its_size_and_place",
            "irnet/test_network.py::test_saved_and_restored_to_the_same_fields",
        ),
    ),
    22: (
        "small fragments are kept with score zero",
        (
            "test_labels.py::test_fragments_below_the_area_are_dropped_and_not_scored_zero",
            "irnet/test_centroids.py::test_small_fragments_are_dropped_not_kept_without_score",
        ),
    ),
    23: (
        "annotation ids repeat, classes count from 0, and json fails on numpy's numbers",
        (
            "export/test_coco_export.py::test_the_coco_api_reads_the_very_masks",
            "export/test_coco_export.py::test_this_project_reads_it_as_a_source",
        ),
    ),
    24: (
        "weight files get their suffix twice",
        ("irnet/test_network.py::test_saved_and_restored_to_the_same_fields",),
    ),
    25: (
        "memory grows with the square of the cells",
        (
            f"{HERE}::test_a_image_of_a_million_pixels_walks_in_little_memory",
            "irnet/test_network.py::test_a_checkpoint_holds_weights_and_the_shift_and_no_tables",
        ),
    ),
    26: (
        "defaults are not the settings that were run",
        (
            "test_params.py::test_every_parameter_is_described_and_has_no_default",
            "test_params.py::test_every_preset_is_valid",
        ),
    ),
    27: (
        "no two runs agree",
        (
            f"{HERE}::test_two_trainings_give_the_same_weights",
            "test_augmentation.py::test_nothing_but_torchs_generator_decides",
            "test_crf.py::test_reused_kernels_equal_fresh_ones",
        ),
    ),
}

SPARSE = "sparseinst/test_sparseinst"
SEE, PUZZLE, S2C, EVERYTHING = (
    f"classifiers/test_{name}.py" if name != "sam" else "segmenters/test_sam_everything.py"
    for name in ("seenet", "puzzlecam", "s2c", "sam")
)
CLASSIFIERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "SeeNet 1": ("the sign is never reversed", (f"{SEE}::test_the_sign_does_reverse",)),
    "SeeNet 2": (
        "erased places leak gradient in all channels but one",
        (
            f"{SEE}::test_the_gradient_of_the_features_is_the_mask_where_they_are_above_0_in_every_channel",
        ),
    ),
    "SeeNet 3": (
        "one image's mask serves the batch",
        (
            f"{SEE}::test_every_image_has_its_own_mask_so_the_loss_of_a_batch_is_the_mean_of_its_images",
        ),
    ),
    "SeeNet 4": (
        "twenty classes, and all is erased without a label",
        (
            f"{SEE}::test_any_number_of_classes",
            f"{SEE}::test_without_attention_nothing_is_erased_reversed_or_called_background",
        ),
    ),
    "SeeNet 5": (
        "labels pile up from class to class",
        (f"{SEE}::test_maps_depend_on_the_tags_given_and_on_no_earlier_ones",),
    ),
    "SeeNet 6": (
        "no third branch, no losses",
        (f"{SEE}::test_the_loss_is_the_sum_of_the_branches_and_the_background_has_no_classes",),
    ),
    "Puzzle-CAM 1": ("momentum is lost", (f"{HERE}::test_momentum_and_weight_decay_reach_sgd",)),
    "Puzzle-CAM 2": (
        "an eighth of the images is scored",
        ("metrics/test_evaluation.py::test_fewer_than_twenty_images_are_scored",),
    ),
    "Puzzle-CAM 3": (
        "the model is selected on pixel truth",
        (
            "stages/test_graph.py::test_pixel_masks_are_read_by_scores_report_and_the_upper_bound_alone",
        ),
    ),
    "Puzzle-CAM 5": (
        "odd crops are split into three strips",
        (f"{PUZZLE}::test_odd_crop_sizes_are_refused_with_one_that_works",),
    ),
    "Puzzle-CAM 6": (
        "the last, smaller batch cannot be merged",
        (f"{PUZZLE}::test_any_number_of_classes_and_images",),
    ),
    "Puzzle-CAM 7": ("names that numpy has dropped", (f"{HERE}::test_every_module_imports",)),
    "S2C 1": (
        "every crop is encoded again",
        (f"{S2C}::test_one_pass_through_the_network_a_step_and_no_image_is_encoded_again",),
    ),
    "S2C 2": (
        "the temperature multiplies",
        (
            "classifiers/test_s2c_contrast.py::test_two_orthogonal_segments_cost_log_1_plus_e_to_the_minus_1_over_t",
        ),
    ),
    "S2C 3": (
        "the surest segment wins, not the smallest",
        (f"{EVERYTHING}::test_smallest_segment_owns_a_pixel_in_any_order",),
    ),
    "S2C 4": (
        "raw logits are the stability",
        (f"{S2C}::test_confidence_is_stability_times_the_mean_activation_over_the_mask",),
    ),
    "S2C 5": (
        "a counter that stays 0 divides",
        ("test_training.py::test_a_long_curve_is_thinned_to_means",),
    ),
    "S2C 6, 7": (
        "options that do not exist, or are needed and undefined",
        (
            "test_params.py::test_every_preset_is_valid",
            "stages/test_run_variants.py::test_other_methods_run_to_their_scores",
        ),
    ),
    "S2C 8": (
        "paths of the authors' machine",
        (
            "stages/test_graph.py::test_the_library_knows_no_stage_no_parameter_file_and_no_artifact_path",
        ),
    ),
    "S2C 9": (
        "no pseudo-masks, no final model",
        ("stages/test_run.py::test_every_artifact_is_there_and_scored",),
    ),
    "S2C 10": ("momentum is lost", (f"{HERE}::test_momentum_and_weight_decay_reach_sgd",)),
    "S2C, segments": (
        "more than 255 segments wrap; the first is lost where all is covered",
        (
            f"{EVERYTHING}::test_more_segments_than_a_byte_can_number_survive_and_leave_no_gap",
            f"{EVERYTHING}::test_covered_image_loses_no_segment",
        ),
    ),
    "S2C, peaks": (
        "the strongest peak is dropped or doubled",
        (
            "classifiers/test_s2c_peaks.py::test_the_strongest_comes_first_and_never_twice",
            "classifiers/test_s2c_peaks.py::test_peaks_on_the_border_count",
        ),
    ),
}
"""Those of SeeNet, Puzzle-CAM and S2C (their specification, sections 1.9, 2.7 and 3.8; Puzzle-CAM 4
is a name in the paper alone).
"""


SPARSEINST: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "SparseInst 4": (
        "small targets vanish",
        (f"{SPARSE}_targets.py::test_small_objects_vanish_only_in_the_published_resizing",),
    ),
    "SparseInst 9.1": (
        "loss weights are not the paper's, and hard-coded",
        (f"{SPARSE}_losses.py::test_the_weights_are_the_published_ones",),
    ),
    "SparseInst 9.3": (
        "scores are not the equation",
        (f"{SPARSE}_detections.py::test_scores_are_the_equation",),
    ),
    "SparseInst 9.4": (
        "thresholds of training and use differ unsaid",
        (f"{SPARSE}_losses.py::test_terms_are_the_equations",),
    ),
    "SparseInst 9.5, 9.10": (
        "a parameter without effect",
        (f"{SPARSE}_head.py::test_weights_of_a_map_sum_to_one_and_nothing_is_inert",),
    ),
    "SparseInst 9.6": (
        "other than four groups mix queries",
        (f"{SPARSE}_head.py::test_any_number_of_groups_is_what_a_loop_over_queries_gives",),
    ),
    "SparseInst 9.7": (
        "a batch without targets fails",
        (f"{SPARSE}_training.py::test_a_batch_without_instances_is_finite_and_has_a_gradient",),
    ),
    "SparseInst 9.8": (
        "more targets than queries spoil the next images",
        (
            f"{SPARSE}_losses.py::test_after_a_image_with_more_instances_than_queries_the_next_ones_are_right",
        ),
    ),
    "SparseInst 9.9": (
        "two thresholds for one score",
        (
            f"{SPARSE}_detections.py::test_the_threshold_of_the_score_is_the_product_of_class_and_objectness",
        ),
    ),
    "SparseInst 6.5": (
        "nothing kept is an error downstream",
        (f"{SPARSE}_detections.py::test_nothing_found_is_a_result_too",),
    ),
    "SparseInst 9.12": (
        "padding changes an image's result",
        (f"{SPARSE}_detections.py::test_a_images_result_does_not_depend_on_the_others",),
    ),
    "SparseInst 9.13": (
        "terms are normalized by rank",
        (f"{SPARSE}_training.py::test_terms_averaged_over_ranks_are_those_of_the_whole_batch",),
    ),
    "SparseInst 3": (
        "a single cell has no coordinate",
        (f"{SPARSE}_head.py::test_a_single_cell_has_finite_coordinates",),
    ),
    "SparseInst 10": (
        "invalid entries stop the matching",
        (f"{SPARSE}_matching.py::test_what_is_not_finite_is_matched_all_the_same",),
    ),
}
"""Those of SparseInst (its specification, sections 3 to 10)."""


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(nodes, id=str(key))
        for key, (_, nodes) in [*DEFECTS.items(), *CLASSIFIERS.items(), *SPARSEINST.items()]
    ],
)
def test_every_defect_has_its_tests(nodes: tuple[str, ...]) -> None:
    assert nodes
    for node in nodes:
        file, name = node.split("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        found = {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}
        assert name in found, node


def test_every_defect_is_listed() -> None:
    assert set(DEFECTS) == set(range(1, 28))


@pytest.fixture(name="runtime")
def two_in_a_shard(tmp_path: Path) -> Runtime:
    return runtime(tmp_path, batch=8, shard=2)


def test_any_id_goes_through(tmp_path: Path, runtime: Runtime) -> None:
    """From the source to an artifact and back, as text and in text's order."""
    names = ["2007_000032", "20070032", "0", "IMG 17.b", "a/b/é", "straße_1"]
    for name in names:
        path = tmp_path / "source" / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 12, 3), len(name), np.uint8)).save(path)
    rows = "".join(f"{name},cat\n" for name in names)
    (tmp_path / "source" / "labels.csv").write_text("image,classes\n" + rows, encoding="utf-8")
    index = build("folder", tmp_path / "source", tmp_path / "out")
    assert set(index) == set(names)

    def record(name: str) -> dict[str, np.ndarray]:
        return {"seeds": index.image(name)[..., 0]}

    artifact = tmp_path / "seeds.h5"
    engine.run(
        engine.Task(record),
        list(index),
        artifact,
        stage="seeds",
        format_="seeds",
        classes=index.classes,
        fingerprint="x",
        runtime=runtime,
    )
    reader = Reader(artifact, "seeds")
    assert reader.names == sorted(names)
    assert all((reader[name]["seeds"] == len(name)).all() for name in names)


def test_every_module_imports() -> None:
    """With the numpy and torch that are installed; the test suite makes errors of their warnings."""
    modules = [m.name for m in pkgutil.walk_packages(pipeline.__path__, "pipeline.") if not m.ispkg]
    assert len(modules) > 40
    for name in modules:
        importlib.import_module(name)


def load(name: str) -> int:
    return int(name)


def compute(names: list[str], numbers: list[int]) -> list[int]:
    return numbers


def finish(name: str, number: int) -> dict[str, np.ndarray]:
    return {"seeds": np.full((3, 4), number, np.uint8)}


@pytest.mark.parametrize(("count", "workers"), [(1, 1), (19, 1), (2, 3)])
def test_few_images_in_any_number_of_workers(
    tmp_path: Path, runtime: Runtime, count: int, workers: int
) -> None:
    """On a machine without a GPU; less than one image a worker included."""
    names = [f"{number:02d}" for number in range(count)]
    engine.run(
        engine.Task(load, finish, compute),
        names,
        tmp_path / "seeds.h5",
        stage="seeds",
        format_="seeds",
        classes=("a",),
        fingerprint="x",
        runtime=replace(runtime, workers=workers),
    )
    reader = Reader(tmp_path / "seeds.h5", "seeds")
    assert reader.names == names
    assert all((reader[name]["seeds"] == int(name)).all() for name in names)


class Line(nn.Module):
    """y = w x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def steepness(network: nn.Module, batch: Tensor, ranks: trainer.Ranks) -> Mapping[str, Tensor]:
    return {"loss": network(batch).mean()}


def plan(**changes: Any) -> trainer.TrainConfig:
    values = {"epochs": 1, "batch": 4, "name": "sgd", "lr": 0.1, "head_lr": 1, "weight_decay": 0.0}
    return trainer.TrainConfig(
        **values | {"momentum": 0.0, "power": 0.0, "warmup": 0.0, "seed": 0} | changes
    )


def train(
    runtime: Runtime, folder: Path, samples: list[Tensor], schedule: trainer.TrainConfig
) -> Tensor:
    network = trainer.train(
        Line(),
        samples,
        steepness,
        schedule,
        new=[],
        stage="line",
        fingerprint="x",
        runtime=runtime,
        curve=folder / "curve.csv",
    )
    return network.weight.detach().clone()


def test_fewer_images_than_a_batch_train(runtime: Runtime, tmp_path: Path) -> None:
    """Two images in batches of four: each is seen twice, and the step is made."""
    samples = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    weight = train(runtime, tmp_path, samples, plan(epochs=1))
    assert torch.allclose(weight, torch.full((2,), -0.05))


def test_momentum_and_weight_decay_reach_sgd(runtime: Runtime, tmp_path: Path) -> None:
    """Three steps of a constant gradient, by hand: v <- m v + g + d w, w <- w - lr v."""
    lr, m, d = 0.1, 0.9, 0.01
    velocity = weight = 0.0
    for _ in range(3):
        velocity = m * velocity + 1.0 + d * weight
        weight -= lr * velocity
    schedule = plan(epochs=3, batch=1, lr=lr, momentum=m, weight_decay=d)
    assert train(runtime, tmp_path, [torch.ones(2)], schedule).tolist() == pytest.approx(
        [weight] * 2
    )


def test_two_trainings_give_the_same_weights(runtime: Runtime, tmp_path: Path) -> None:
    class Noise:
        """Samples drawn again at each access, as augmentation does."""

        def __len__(self) -> int:
            return 7

        def __getitem__(self, number: int) -> Tensor:
            return torch.rand(2) + number

    def once(seed: int, disturb: int) -> Tensor:
        torch.manual_seed(disturb)
        return train(runtime, tmp_path, Noise(), plan(epochs=3, seed=seed))  # type: ignore[arg-type]

    assert torch.equal(once(0, 1), once(0, 2))
    assert not torch.equal(once(0, 1), once(5, 1))


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("false", False), ("no", False), ("'false'", False)]
)
def test_switches_are_what_they_say(text: str, value: bool) -> None:
    parameters = yaml.safe_load((TESTS.parent / "params.yaml").read_text())
    parameters["fields"]["flip"] = yaml.safe_load(text)
    assert parse(parameters).fields.flip is value
    for wrong in ("maybe", 2, None):
        parameters["fields"]["flip"] = wrong
        with pytest.raises(ParameterError, match=r"fields\.flip"):
            parse(parameters)


def test_a_image_of_a_million_pixels_walks_in_little_memory() -> None:
    """65,536 cells, whose dense matrix alone takes 16 GiB."""
    boundary = torch.rand(256, 256, generator=torch.Generator().manual_seed(0))
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    (walked,) = random_walk([boundary], [torch.rand(2, 256, 256)], steps=4)
    assert walked.shape == (2, 256, 256)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < 500e6

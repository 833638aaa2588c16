"""The benchmark of the least time: what it counts, and that the two walks it compares are the same
walk.
"""

import pytest
import torch
from click.testing import CliRunner

from benchmarks import floor

CPU = torch.device("cpu")


def test_bytes_are_those_read_and_written() -> None:
    one, other = torch.ones(1000), torch.ones(1000)
    with floor.Traffic() as traffic:
        (one + other).view(10, 100)[:5]
    assert traffic.bytes == 3 * 4000


def test_operations_of_a_product_are_counted_once() -> None:
    one, other = torch.ones(8, 16), torch.ones(16, 4)
    part = floor.counted("product", lambda: one @ other, 1)
    assert (part.operations, part.bytes) == (2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4))


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
def test_a_convolutions_gradients_take_twice_its_operations(
    kind: type[torch.nn.Module], groups: int
) -> None:
    layer, inputs = kind(8, 8, 3, groups=groups), torch.ones(2, 8, 6, 7, requires_grad=True)
    forward = floor.counted("forward", lambda: layer(inputs), 1)
    both = floor.counted("both", lambda: layer(inputs).sum().backward(), 1)
    assert both.operations == 3 * forward.operations


def test_both_walks_are_the_same_walk() -> None:
    ours, dense = floor.walking(12, 17, 1, CPU), floor.squaring(12, 17, CPU)
    (walked,) = ours.call()
    torch.testing.assert_close(walked.flatten(1), dense.call(), atol=2e-4, rtol=0)


def test_the_walks_work_grows_with_the_images_and_the_squarings_with_the_cells_cubed() -> None:
    one, three = floor.walking(12, 16, 1, CPU), floor.walking(12, 16, 3, CPU)
    assert (three.operations, three.bytes) == (3 * one.operations, 3 * one.bytes)
    small, large = floor.squaring(6, 8, CPU), floor.squaring(12, 8, CPU)
    assert large.operations == 8 * small.operations


def test_a_table_of_all_parts_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "SECONDS", 0.0)
    monkeypatch.setattr(floor, "MATRIX", {"cpu": 64})
    monkeypatch.setattr(floor, "COPY", {"cpu": 1000})
    sizes = [
        "--device",
        "cpu",
        "--walk",
        "12",
        "16",
        "--images",
        "2",
        "--crop",
        "64",
        "--batch",
        "2",
    ]
    done = CliRunner().invoke(floor.main, sizes)
    assert done.exit_code == 0, done.output
    rows = [line for line in done.output.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 5
    assert all(float(row.split("|")[-2]) > 0 for row in rows)

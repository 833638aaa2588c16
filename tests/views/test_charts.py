import pytest

from pipeline.views import charts


def coordinates(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())]


def test_every_column_of_numbers_over_the_first() -> None:
    rows = [{"step": str(i), "lr": 0.1, "loss": f"{1 / (i + 1)}", "name": "cat"} for i in range(5)]
    assert [(c.title, c.x_title) for c in charts.charts(rows)] == [("loss", "step"), ("lr", "step")]
    assert charts.charts([]) == []


def test_larger_values_are_higher_and_inside_the_box() -> None:
    (chart,) = charts.charts([{"step": i, "loss": (i - 3) ** 2 - 2.0} for i in range(8)])
    points = coordinates(chart.lines[0].path)
    assert len(points) == 8
    assert all(charts.LEFT <= x <= charts.WIDTH - charts.RIGHT for x, _ in points)
    assert all(charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM for _, y in points)
    assert min(points, key=lambda p: p[1]) == points[7] == chart.lines[0].mark
    assert max(points, key=lambda p: p[1]) == points[3]
    assert chart.note == "last 14"


def test_threshold_curves_mark_their_best_and_what_was_chosen() -> None:
    low = [(t / 10, 50 - 10 * abs(t - 3)) for t in range(1, 8)]
    high = [(x, y + 40) for x, y in low]
    chart = charts.curve(
        "mIoU", "threshold", {"CAM": low, "walk": high, "none": []}, {"CAM": 0.5, "walk": 0.55}
    )
    assert chart is not None
    assert chart.note == "CAM best 50.0 at 0.3, walk best 90.0 at 0.3"
    for line in chart.lines:
        assert line.mark == min(coordinates(line.path), key=lambda p: p[1])
    first, second = chart.lines
    assert first.chosen == [coordinates(first.path)[4]]
    assert second.chosen == [], "no such point on the line"
    assert first.mark[1] > second.mark[1], "one scale for both"
    assert charts.curve("mIoU", "threshold", {"CAM": []}, {}) is None


def test_gaps_and_broken_numbers_are_left_out() -> None:
    rows = [{"step": i, "loss": v} for i, v in enumerate(["1", "", "nan", "inf", None, "2"])]
    (chart,) = charts.charts(rows)
    assert len(coordinates(chart.lines[0].path)) == 2
    assert charts.number("x") is charts.number(float("nan")) is None


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_flat_curve_of_one_point_can_be_drawn(value: float) -> None:
    (chart,) = charts.charts([{"step": 1, "loss": value}])
    assert len(coordinates(chart.lines[0].path)) == 1
    assert chart.y_ticks


def test_ticks_are_round_and_inside() -> None:
    assert charts.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert charts.ticks(0.01, 0.99) == [0.2, 0.4, 0.6, 0.8]
    assert charts.ticks(-3, 11) == [0, 5, 10]
    assert charts.ticks(2, 2) == [2]


def test_confusion_as_shares_of_the_ground_truth() -> None:
    counts = {("a", "a"): 90, ("a", "b"): 10, ("b", "a"): 30, ("b", "b"): 30, ("c", "c"): 0}
    rows = [
        {"actual": a, "predicted": p, "pixels": counts.get((a, p), 0)} for a in "abc" for p in "abc"
    ]
    found = charts.heat_map(rows)
    assert found.names == ["a", "b"]
    assert [cell[:3] for cell in found.cells] == [
        (0, 0, 0.9),
        (0, 1, 0.1),
        (1, 0, 0.5),
        (1, 1, 0.5),
    ]
    assert found.confused == [("b", "a", 0.5, 0.75), ("a", "b", 0.1, 0.25)]
    assert found.cells[2][3] == "b taken for a: 50.0 %"

"""The scenes: reproducible, exact masks, varied, and no class that the background gives away."""

import hashlib
import itertools
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.readers.scenes import (
    CLASSES,
    SIZES,
    Scene,
    arrange,
    compose,
    draw,
    visible_instances,
)
from pipeline.readers.scenes.backdrops import BACKDROPS, HABITATS, paint_backdrop
from pipeline.readers.scenes.parts import part_of
from pipeline.readers.scenes.shapes import area, capsule, ellipse, move, ribbon, rotate
from pipeline.readers.scenes.toys import (
    PALETTE,
    PATTERNS,
    SHAPES,
    Body,
    Sprite,
    Toy,
    Window,
    draw_toy,
    render,
    silhouettes,
)


def digest(scene: Scene) -> str:
    arrays = (scene.image, scene.instances, scene.classes)
    return hashlib.blake2b(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw(index, seed=3) for index in range(100)]


def touching(instances: np.ndarray, one: int, other: int) -> bool:
    near = cv2.dilate((instances == one).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return int((near & (instances == other)).sum()) >= 8


def same_class_pairs(scene: Scene) -> list[tuple[int, int]]:
    pairs = itertools.combinations(range(1, len(scene.classes) + 1), 2)
    return [(a, b) for a, b in pairs if scene.classes[a - 1] == scene.classes[b - 1]]


def bodied(shape: str, feet: bool = True) -> Body:
    return Body(shape, 0.6, "spots", feet)


def test_an_image_depends_only_on_seed_and_index() -> None:
    alone = digest(draw(5))
    for index in (0, 1, 2):
        draw(index)
    np.random.default_rng(0).random(10)
    assert digest(draw(5)) == alone
    assert digest(draw(5, seed=1)) != alone
    assert len({digest(draw(index, seed)) for index in range(3) for seed in range(3)}) == 9


@pytest.mark.slow
def test_masks_are_consistent(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.dtype == np.uint8
        assert scene.instances.dtype == np.uint16
        assert scene.classes.dtype == np.uint8
        assert scene.image.shape == (*scene.instances.shape, 3)
        ids = np.unique(scene.instances)
        assert ids[ids > 0].tolist() == list(range(1, len(scene.classes) + 1))
        assert scene.semantic.dtype == np.uint8
        for label in range(len(CLASSES) + 1):
            mine = [k + 1 for k, c in enumerate(scene.classes) if c + 1 == label] if label else [0]
            np.testing.assert_array_equal(scene.semantic == label, np.isin(scene.instances, mine))
        assert scene.tags == tuple(np.unique(scene.semantic)[1:] - 1)


def test_every_count_and_every_class_are_common(scenes: list[Scene]) -> None:
    counts = Counter(len(scene.classes) for scene in scenes)
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) >= 0.1 * len(scenes)
    tags = Counter(tag for scene in scenes for tag in scene.tags)
    assert min(tags[label] for label in range(len(CLASSES))) >= 0.05 * len(scenes)


def test_same_class_neighbors_often_touch(scenes: list[Scene]) -> None:
    several = [scene for scene in scenes if same_class_pairs(scene)]
    meeting = [
        scene
        for scene in several
        if any(touching(scene.instances, a, b) for a, b in same_class_pairs(scene))
    ]
    assert len(several) >= 0.25 * len(scenes)
    assert len(meeting) >= 0.2 * len(several)
    mixed = [scene for scene in scenes if len(scene.tags) > 1]
    assert len(mixed) >= 0.3 * len(scenes)


def test_images_have_several_sizes_and_shapes(scenes: list[Scene]) -> None:
    sizes = Counter(scene.instances.shape for scene in scenes)
    assert set(sizes) == set(SIZES)
    assert all(144 <= side <= 224 for size in sizes for side in size)
    assert len({height / width for height, width in sizes}) >= 4
    assert max(sizes.values()) <= 0.3 * len(scenes)


def test_objects_are_large(scenes: list[Scene]) -> None:
    sides = []
    for scene in scenes:
        for k in range(1, len(scene.classes) + 1):
            ys, xs = np.nonzero(scene.instances == k)
            sides.append(max(np.ptp(ys), np.ptp(xs)) / np.sqrt(scene.instances.size))
    assert np.quantile(sides, 0.1) > 0.35
    assert np.quantile(sides, 0.9) < 0.65


@pytest.mark.parametrize("seed", range(12))
def test_every_object_and_its_part_are_visible(seed: int) -> None:
    height, width = SIZES[seed % len(SIZES)]
    rng = np.random.default_rng(seed)
    toys = arrange(rng, [int(label) for label in rng.integers(0, 3, 4)], height, width)
    sprites = [render(toy, PALETTE[k]) for k, toy in enumerate(toys)]
    instances = visible_instances(sprites, (height, width))
    for k, (toy, sprite) in enumerate(zip(toys, sprites, strict=True), start=1):
        seen = instances == k
        assert seen.sum() >= max(60, 0.15 * sprite.cover.sum())
        part = silhouettes(toy, height, width)[1]
        assert (part & seen).sum() >= 0.6 * part.sum()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CLASSES)
def test_parts_are_small_and_at_an_end_or_side(name: str, shape: str) -> None:
    toy = Toy(CLASSES.index(name), bodied(shape), 100.0, 100.0, 45.0, 0.0, False, 0.14, 0.5)
    whole, part = silhouettes(toy, 200, 200)
    assert 0.08 <= part.sum() / whole.sum() <= 0.16
    ys, xs = np.nonzero(part)
    assert max(np.ptp(ys), np.ptp(xs)) >= 16
    # away from the body's middle: beyond half of its length or above most of its height
    assert xs.mean() > 100 + 0.5 * 45 or ys.mean() < 100 - 0.6 * 0.6 * 45
    assert not part[95:105, 90:110].any()


def test_part_colors_differ_from_each_other_and_from_all_bodies() -> None:
    colors = [part_of(name).color for name in CLASSES]
    for one, other in itertools.combinations(colors, 2):
        assert np.linalg.norm(np.subtract(one, other)) > 60
    for color, body in itertools.product(colors, PALETTE):
        assert np.linalg.norm(np.subtract(color, body)) > 60


def test_bodies_do_not_depend_on_the_class() -> None:
    for seed in range(20):
        bodies = {
            draw_toy(np.random.default_rng(seed), label, 40.0).body for label in range(len(CLASSES))
        }
        assert len(bodies) == 1
    drawn = [draw_toy(np.random.default_rng(seed), 0, 40.0) for seed in range(200)]
    assert {toy.body.shape for toy in drawn} == set(SHAPES)
    assert {toy.body.pattern for toy in drawn} == set(PATTERNS)
    assert 0.35 < np.mean([toy.flipped for toy in drawn]) < 0.65
    assert max(abs(toy.turn) for toy in drawn) <= np.deg2rad(25)


def test_flipping_a_toy_flips_its_pixels() -> None:
    toy = Toy(1, bodied("bean"), 64.0, 50.0, 40.0, 0.3, False, 0.14, 0.0)
    twin = Toy(1, bodied("bean"), 64.0, 50.0, 40.0, -0.3, True, 0.14, 0.0)
    canvas = np.full((100, 128, 3), 90, np.uint8)
    one = compose(canvas, render(toy, PALETTE[0])).astype(int)
    other = compose(canvas, render(twin, PALETTE[0])).astype(int)
    assert (np.abs(one - canvas).max(-1) > 20).sum() > 2000
    assert np.abs(one - other[:, ::-1]).mean() < 2.0


def test_a_pixel_belongs_to_the_largest_share_of_its_color() -> None:
    def sprite(cover: list[float], color: float) -> Sprite:
        pixels = np.full((1, len(cover), 3), color, np.float32)
        return Sprite(Window(0, 0, 1, len(cover)), pixels, np.array([cover], np.float32))

    below, above = sprite([1.0, 1.0, 0.4, 0.9], 200), sprite([0.0, 0.6, 0.0, 0.4], 50)
    # shares of ground, below, above: (0,1,0) (0,.4,.6) (.6,.4,0) (.06,.54,.4)
    assert visible_instances([below, above], (1, 4)).tolist() == [[1, 2, 0, 1]]


def test_sprites_may_extend_beyond_the_image() -> None:
    cover, pixels = np.ones((3, 3), np.float32), np.full((3, 3, 3), 9, np.float32)
    sprite = Sprite(Window(-1, -2, 3, 3), pixels, cover)
    assert np.argwhere(visible_instances([sprite], (4, 4))).tolist() == [[0, 0], [1, 0]]
    image = compose(np.full((4, 4, 3), 250, np.uint8), sprite)
    assert (image[:2, 0] == 9).all()


def test_color_and_mask_agree_at_the_border() -> None:
    """A lone toy differs from the empty ground where its mask is, up to the soft shadow."""
    ground = np.full((160, 160, 3), 235, np.uint8)
    toy = Toy(6, bodied("box"), 80.0, 80.0, 45.0, 0.2, False, 0.14, 0.0)
    sprite = render(toy, PALETTE[6])
    painted = compose(ground, replace(sprite, color=np.zeros_like(sprite.color)))
    bare = compose(ground, replace(sprite, cover=0 * sprite.cover))
    assert (bare == ground).all()  # no cover, no shadow either
    mine = visible_instances([sprite], (160, 160)) == 1
    # the shadow takes at most 42 % of the ground, a mask pixel at least half of what is left of it
    assert painted[mine].max() <= 0.5 * 235 + 1
    assert painted[~mine].min() >= 0.5 * 0.58 * 235 - 5
    hard = silhouettes(toy, 160, 160)[0]
    assert (hard != mine).sum() < 0.05 * mine.sum()


def test_borders_of_objects_are_the_strongest_edges(scenes: list[Scene]) -> None:
    outer, inside, ground = [], [], []
    kernel = np.ones((3, 3), np.uint8)
    for scene in scenes[:60]:
        lab = cv2.cvtColor(scene.image, cv2.COLOR_RGB2LAB).astype(np.float32)
        slopes = [cv2.Sobel(lab, cv2.CV_32F, dx, dy) ** 2 for dx, dy in ((1, 0), (0, 1))]
        edge = cv2.dilate(np.sqrt(np.sum(slopes, axis=(0, 3))), kernel)
        high, low = cv2.dilate(scene.instances, kernel), cv2.erode(scene.instances, kernel)
        outer.append(edge[high != low].mean())
        inside.append(edge[low > 0].mean())
        ground.append(edge[high == 0].mean())
    assert np.mean(outer) > 3 * np.mean(inside)
    assert np.mean(outer) > 3 * np.mean(ground)


def test_backdrops_correlate_with_a_class_but_do_not_tell_it(scenes: list[Scene]) -> None:
    assert {scene.backdrop for scene in scenes} == set(BACKDROPS)
    for name, (backdrop, _) in HABITATS.items():
        label = CLASSES.index(name)
        at_home = [scene.backdrop == backdrop for scene in scenes if label in scene.tags]
        elsewhere = [scene.backdrop == backdrop for scene in scenes if label not in scene.tags]
        assert np.mean(at_home) > 2 * np.mean(elsewhere)
        assert np.mean(elsewhere) > 0.02
        assert np.mean(at_home) < 0.9
    boats = [scene.backdrop == "water" for scene in scenes if CLASSES.index("boat") in scene.tags]
    assert 0.55 < np.mean(boats) < 0.85


@pytest.mark.parametrize("name", BACKDROPS)
def test_backdrops_are_textured_and_differ(name: str) -> None:
    one, other = (paint_backdrop(np.random.default_rng(seed), name, 176, 208) for seed in (1, 2))
    assert one.shape == (176, 208, 3)
    assert one.std((0, 1)).min() > 4
    assert np.abs(one.astype(int) - other).mean() > 4


def test_outlines_have_the_areas_of_geometry() -> None:
    assert area(np.array([(0, 0), (3, 0), (3, 2), (0, 2)], float)) == 6
    assert area(ellipse(5, -2, 3, 2, 0.7, count=400)) == pytest.approx(6 * np.pi, rel=1e-3)
    assert area(capsule(2, 1, count=400)) == pytest.approx(np.pi + 4, rel=1e-3)
    line = np.array([(0.0, 0.0), (1.0, 0.0), (4.0, 0.0)])
    assert area(ribbon(line, np.full(3, 0.5))) == pytest.approx(2.0)
    np.testing.assert_allclose(rotate(np.array([(1.0, 0.0)]), np.pi / 2), [(0.0, 1.0)], atol=1e-12)
    np.testing.assert_allclose(move(np.array([(1.0, 2.0)]), 3, -1), [(4.0, 1.0)])

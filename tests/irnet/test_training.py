"""Training of IRNet: crops and their labels, the loss, the mean displacement."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.core.artifacts import Reader, Writer
from pipeline.core.engine import ImageError
from pipeline.data.augmentation import RandomScale
from pipeline.data.index import Index
from pipeline.irnet.network import IRNet, fields_of
from pipeline.irnet.training import (
    SeedCrops,
    mean_displacements,
    mean_shift,
    show_boundaries,
    training_loss,
)
from tests.support.runtimes import runtime
from tests.support.sources import painted
from tests.support.steps import single_rank

SMALL = "test_resnet"
MEAN = (0.5, 0.5, 0.5)
COLORS = {0: (10, 40, 10), 1: (220, 30, 40), 2: (30, 60, 230)}


def label_map() -> np.ndarray:
    labels = np.zeros((72, 96), np.uint8)
    labels[16:48, 8:40], labels[24:64, 56:88] = 1, 2
    return labels


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Index, Reader]:
    """One image painted as its label map says."""
    table = np.array([COLORS[k] for k in range(3)], np.uint8)
    index = painted(tmp_path, table[label_map()], ("a", "b"), (0, 1))
    with Writer(tmp_path / "seeds.h5", "seeds", ("a", "b")) as writer:
        writer.write("p", {"seeds": label_map()})
    return index, Reader(tmp_path / "seeds.h5", "seeds")


def crops_of(sources: tuple[Index, Reader], scale: tuple[float, float], crop: int) -> SeedCrops:
    index, seeds = sources
    return SeedCrops(index, seeds.names, RandomScale(*scale), crop, MEAN, seeds)


@pytest.mark.parametrize(
    ("scale", "crop"), [((1.0, 1.0), 64), ((0.5, 1.5), 64), ((1.5, 1.5), 48), ((0.4, 0.6), 96)]
)
def test_labels_lie_where_the_colors_do(
    sources: tuple[Index, Reader], scale: tuple[float, float], crop: int
) -> None:
    crops = crops_of(sources, scale, crop)
    assert len(crops) == 1
    seen, flipped = set(), set()
    for seed in range(12):
        torch.manual_seed(seed)
        image, labels = crops[0]
        assert (tuple(image.shape), image.dtype) == ((3, crop, crop), torch.uint8)
        assert (tuple(labels.shape), labels.dtype) == ((crop // 4, crop // 4), torch.uint8)
        assert type(labels) is Tensor
        palette = torch.tensor([*COLORS.values(), (128, 128, 128)])
        pixels = image[:, 2::4, 2::4].permute(1, 2, 0).long()
        distance = (pixels[:, :, None] - palette).abs().sum(-1)
        nearest = torch.tensor([0, 1, 2, 255])[distance.argmin(-1)]
        clear = distance.amin(-1) < 30  # not on a border that resizing has blended
        assert clear.float().mean() > 0.6
        assert (nearest == labels)[clear].float().mean() > 0.98
        seen |= set(labels.unique().tolist())
        columns = [(labels == k).nonzero()[:, 1].float().mean() for k in (1, 2)]
        if not any(c.isnan() for c in columns):
            flipped.add(bool(columns[0] > columns[1]))
    assert {0, 1, 2} <= seen
    assert flipped == {False, True}


@pytest.mark.parametrize("crop", [61, 62, 63, 65])
def test_any_crop_has_a_label_for_every_cell_of_the_network(
    sources: tuple[Index, Reader], crop: int
) -> None:
    image, labels = crops_of(sources, (1.0, 1.0), crop)[0]
    logits, _ = IRNet(SMALL)(image[None])
    assert logits.shape[2:] == labels.shape


def test_training_loss_decreases(sources: tuple[Index, Reader]) -> None:
    torch.manual_seed(0)
    network, step = IRNet(SMALL).train(), single_rank()
    crops = crops_of(sources, (1.0, 1.0), 64)
    pairs = [crops[0] for _ in range(4)]
    batch = (
        torch.stack([image for image, _ in pairs]),
        torch.stack([labels for _, labels in pairs]),
    )
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(15):
        terms = training_loss(network, batch, step, radius=5)
        assert set(terms) == {"loss", "pos", "neg", "disp_fg", "disp_bg"}
        losses.append(float(terms["loss"].detach()))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(48, 64), (50, 70), (33, 90), (48, 64)]
    return [
        torch.randint(0, 256, (1, 3, *size), generator=generator, dtype=torch.uint8)
        for size in sizes
    ]


def means_of(network: IRNet) -> Tensor:
    return torch.cat([mean_displacements(network, image) for image in images()])


@pytest.mark.parametrize("canvas", [0, 96])
def test_after_the_shift_the_average_displacement_is_zero(canvas: int) -> None:
    """Of any sizes, those included that are no multiple of 16; on a canvas its padding counts."""
    network = IRNet(SMALL, canvas=canvas).eval()
    network.mean_shift = means_of(network).mean(0).float()
    assert network.mean_shift.abs().max() > 1e-3
    inputs = [network.on_canvas(network.backbone.normalize(image)) for image in images()]
    assert not canvas or {image.shape[2:] for image in inputs} == {(canvas, canvas)}
    means = [fields_of(network, image, flip=True)[1].mean((0, 2, 3)) for image in inputs]
    assert torch.stack(means).mean(0).abs().max() < 1e-5


def test_mean_displacement_does_not_depend_on_the_batch() -> None:
    network = IRNet(SMALL).eval()
    batch = torch.cat([images()[0], images()[3], images()[0].flip(3)])
    alone = torch.cat([mean_displacements(network, image[None]) for image in batch])
    assert torch.equal(mean_displacements(network, batch), alone)
    assert alone.shape == (3, 2)
    assert alone.dtype == torch.float64
    field = network(batch[1:2])[1].detach().double()
    assert torch.allclose(alone[1], field.flatten(2).mean(2)[0])


def test_earlier_shift_is_ignored() -> None:
    network = IRNet(SMALL).eval()
    fresh = means_of(network)
    network.mean_shift = torch.tensor([5.0, -7.0])
    assert torch.equal(means_of(network), fresh)


@dataclass(frozen=True)
class Source:
    """Images by number; `3` cannot be read."""

    def image(self, name: str) -> np.ndarray:
        if name == "3":
            raise OSError("unreadable")
        return images()[int(name)][0].permute(1, 2, 0).numpy()

    def size(self, name: str) -> tuple[int, ...]:
        return tuple(images()[int(name)].shape[2:])


def shift(network: IRNet, folder: Path, *names: str, rank: int = 0, world_size: int = 1) -> Tensor:
    here = runtime(folder, rank=rank, world_size=world_size)
    return mean_shift(network, Source(), names, here)  # type: ignore[arg-type]


@pytest.mark.defect("irn-21")
def test_every_image_counts_alike_whatever_its_size_and_place(tmp_path: Path) -> None:
    network = IRNet(SMALL).eval()
    expected = means_of(network)[:3].mean(0).float()
    assert torch.equal(shift(network, tmp_path, "0", "1", "2"), expected)
    assert torch.allclose(shift(network, tmp_path, "2", "0", "1"), expected, atol=1e-6)
    assert not torch.allclose(shift(network, tmp_path, "0", "1"), expected, atol=1e-6)


@pytest.mark.defect("irn-5")
def test_without_images_there_is_no_shift(tmp_path: Path) -> None:
    assert shift(IRNet(SMALL).eval(), tmp_path).tolist() == [0, 0]


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="irnet: 3: unreadable"):
        shift(IRNet(SMALL).eval(), tmp_path, "0", "3")


@pytest.mark.parametrize("names", [("0", "1", "2"), ("1",), ()])
def test_ranks_share_the_images(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also fewer images than ranks."""
    network, held = IRNet(SMALL).eval(), list[Tensor]()
    alone = shift(network, tmp_path, *names)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda means: held.append(means.clone()))
    for rank in (0, 1):
        shift(network, tmp_path, *names, rank=rank, world_size=2)
    assert not (held[0].bool() & held[1].bool()).any()
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda means: means.add_(held[1]))
    assert torch.equal(shift(network, tmp_path, *names, rank=0, world_size=2), alone)


@pytest.mark.parametrize(
    ("maps", "shown"),
    [
        ([[0, 1]], True),
        ([[0, 0], [1, 2]], True),
        ([[0, 255], [1, 255], [2, 2]], False),
        ([[255, 255]], False),
        ([], False),
    ],
)
def test_boundary_needs_two_confident_labels_in_one_image(
    maps: list[list[int]], shown: bool, tmp_path: Path
) -> None:
    with Writer(tmp_path / "seeds.h5", "seeds", ("a", "b")) as writer:
        for number, row in enumerate(maps):
            writer.write(str(number), {"seeds": np.array([row], np.uint8)})
    assert show_boundaries(Reader(tmp_path / "seeds.h5", "seeds")) == shown

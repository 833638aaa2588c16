"""What every classifier method is tested for: a test class of each method inherits this one."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from torch import Tensor, nn

from pipeline.classifiers import CLASSIFIERS, load_classifier, new_classifier
from pipeline.classifiers.base import Classifier, TrainingData
from pipeline.core.distributed import DistributedContext
from pipeline.core.trainer import LossFn, TrainState
from pipeline.data.augmentation import color_changes
from pipeline.nets.backbones import Backbone, fix_batch_norm

SMALL = "test_resnet"
PARAMETERS = yaml.safe_load((Path(__file__).resolve().parents[2] / "params.yaml").read_text())


def step(progress: float = 0.5, epoch: float = 5.0) -> TrainState:
    return TrainState(DistributedContext(), progress, epoch)


def random_images(count: int, height: int = 64, width: int = 64) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


def batch_of(method: str, data: TrainingData, seed: int = 0) -> list[Tensor]:
    """Return all samples of the data as one batch."""
    torch.manual_seed(seed)
    samples = CLASSIFIERS[method].dataset(data)
    return torch.utils.data.default_collate([samples[n] for n in range(len(samples))])


class HalfPrecision(nn.Module):
    """A network in bfloat16, wrapped as the training loop wraps it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.module = network

    def forward(self, *inputs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.module(*inputs)


class ClassifierTester:
    """Tests of the network, samples and loss of `method`."""

    method: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    """What differs from params.yaml."""
    falling: ClassVar[tuple[str, ...]] = ("loss",)
    """Terms of the loss whose sum falls while a network learns a batch."""

    def all_options(self, **changes: Any) -> dict[str, Any]:
        return PARAMETERS["classifier"][self.method] | self.options | changes

    def network(self, classes: int = 2) -> Classifier:
        torch.manual_seed(0)
        names = [f"class {number}" for number in range(classes)]
        return new_classifier(self.method, names, Backbone(SMALL), self.all_options())[0].eval()

    def loss_fn(self, data: TrainingData, **changes: Any) -> LossFn:
        kind, options = CLASSIFIERS[self.method], self.all_options(**changes)
        return kind.loss_fn(data, **{k: v for k, v in options.items() if k not in kind.OPTIONS})

    @pytest.mark.defect("irn-12", "puzzlecam-6", "seenet-4")
    @pytest.mark.parametrize("classes", [1, 2, 20, 254])
    def test_any_number_of_classes(self, classes: int) -> None:
        network, tags = self.network(classes), (torch.rand(2, classes) < 0.5).float()
        normalized = network.backbone.normalize(random_images(2, 32, 48))
        maps = network.maps(normalized, tags)
        assert maps.shape == (2, classes, 2, 3)
        assert maps.isfinite().all()

    def test_maps_of_a_batch_are_those_of_its_images(self) -> None:
        network, tags = self.network(3), torch.tensor([[1.0, 1, 0], [0, 0, 1], [0, 0, 0]])
        normalized = network.backbone.normalize(random_images(3))
        together = network.maps(normalized, tags)
        for n in range(3):
            alone = network.maps(normalized[n : n + 1], tags[n : n + 1])
            assert torch.allclose(together[n : n + 1], alone, atol=1e-4)

    @pytest.mark.defect("seenet-3")
    def test_loss_of_a_batch_is_the_mean_of_its_images(self, data: TrainingData) -> None:
        network, loss_fn, batch = (
            self.batch_network(),
            self.loss_fn(data),
            batch_of(self.method, data),
        )
        together = loss_fn(network, batch, step())
        alone = [
            loss_fn(network, [part[n : n + 1] for part in batch], step())
            for n in range(len(data.names))
        ]
        for name, value in together.items():
            mean = sum(terms[name].item() for terms in alone) / len(alone)
            assert value.item() == pytest.approx(mean, rel=1e-4)

    def batch_network(self) -> nn.Module:
        return self.network()

    @pytest.mark.parametrize("tag", [0.0, 1.0])
    def test_step_in_bfloat16_is_finite_and_learns(self, data: TrainingData, tag: float) -> None:
        network, batch = self.network().train(), batch_of(self.method, data)
        network.backbone.freeze(2)
        fix_batch_norm(network)
        batch[1] = torch.full_like(batch[1], tag)
        terms = self.loss_fn(data)(HalfPrecision(network), batch, step())
        assert all(v.dtype == torch.float32 and v.isfinite() for v in terms.values())
        terms["loss"].backward()
        gradients = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
        assert all(g is not None and g.isfinite().all() for g in gradients.values())
        stages = {name.split(".")[2] for name in gradients if name.startswith("backbone")}
        assert stages == {"layer2", "layer3", "layer4"}

    def test_learns_and_leaves_what_is_frozen_alone(self, data: TrainingData) -> None:
        network, batch, loss_fn = (
            self.network().train(),
            batch_of(self.method, data),
            self.loss_fn(data),
        )
        network.backbone.freeze(2)
        fix_batch_norm(network)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer, course = torch.optim.Adam(learning, 1e-3), []
        for _ in range(12):
            terms: Mapping[str, Tensor] = loss_fn(network, batch, step())
            course.append(sum(terms[name].item() for name in self.falling))
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
        assert course[-1] < course[0]
        changed = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
        still = ("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")
        assert not [n for n in changed if n.startswith(still) or "running" in n or "tracked" in n]
        new = {id(p) for p in network.new_parameters()}
        assert new
        assert {n for n, p in network.named_parameters() if id(p) in new} <= changed

    def test_unknown_classes_teach_nothing(self, data: TrainingData) -> None:
        network, batch = self.network(), batch_of(self.method, data)
        batch[1][:, 1] = -1
        self.loss_fn(data)(network, batch, step())["loss"].backward()
        rows = [p.grad for n, p in network.named_parameters() if "head" in n and len(p) == 2]
        assert rows
        for gradient in rows:
            assert gradient is not None
            assert gradient[0].any()
            assert not gradient[1].any()

    def test_samples_are_tagged_crops(self, data: TrainingData) -> None:
        samples = CLASSIFIERS[self.method].dataset(data)
        assert len(samples) == len(data.names)
        for number, name in enumerate(data.names):
            image, tags, *_ = samples[number]
            assert (tuple(image.shape), image.dtype) == ((3, 96, 96), torch.uint8)
            assert tags.nonzero().flatten().tolist() == list(data.index[name].tags)
        gray = replace(data, colors=color_changes((0, 0, 0, 0), 0, 1))
        image = CLASSIFIERS[self.method].dataset(gray)[0][0]
        assert (image == image[:1]).all()

    def test_header_rebuilds_the_network(self) -> None:
        backbone = Backbone(SMALL, output_stride=8, dilated=True)
        options, classes = self.all_options(), ("cat", "dog", "cow")
        network, header = new_classifier(self.method, classes, backbone, options)
        assert set(header) == {"method", "backbone", "stride", "dilated", "classes", "options"}
        again = load_classifier(json.loads(json.dumps(header)))
        again.load_state_dict(network.state_dict(), strict=True)
        normalized, tags = torch.randn(1, 3, 64, 64), torch.ones(1, 3)
        maps = again.eval().maps(normalized, tags)
        assert maps.shape == (1, 3, 8, 8)
        assert torch.equal(maps, network.eval().maps(normalized, tags))

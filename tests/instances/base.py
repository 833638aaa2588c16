"""What must hold for every instance model; each model's test class inherits these tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from torch import Tensor

from pipeline.core.weights import load_network, save_weights
from pipeline.instances import INSTANCE_MODELS, rebuild
from pipeline.instances.base import InstanceModel
from tests.support.steps import single_rank

ROOT = Path(__file__).resolve().parents[2]
SMALL = "test_resnet"
CLASSES = ("cat", "dog", "cow")


def square_batch(instances: int = 2, side: int = 64, ignored: bool = False) -> list[Tensor]:
    """Return two crops with a bright square of class 2 each, of which the first `instances` are
    labeled; otherwise all pixels are background, or ignored.
    """
    images = torch.full((2, 3, side, side), 40, dtype=torch.uint8)
    square = (..., slice(side // 4, 3 * side // 4), slice(side // 8, 5 * side // 8))
    images[square] = 220
    ids = torch.full((2, side, side), 255 if ignored else 0, dtype=torch.uint8)
    ids[:instances][square] = 1
    classes = torch.full((2, 4), 255, dtype=torch.uint8)
    classes[:instances, 0] = 2
    return [images, ids, classes, torch.ones(2, 4)]


class InstanceModelTester:
    """Tests of the model `method`; `options` are small values of all its parameters."""

    method: ClassVar[str]
    options: ClassVar[Mapping[str, Any]]
    terms: ClassVar[set[str]]

    @property
    def shape(self) -> dict[str, Any]:
        """The options that shape the network."""
        return {name: self.options[name] for name in INSTANCE_MODELS[self.method].OPTIONS}

    def model(self, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        return INSTANCE_MODELS[self.method](len(CLASSES), SMALL, **self.shape)

    def detecting(self) -> InstanceModel:
        """Return a model in evaluation mode that detects something with score 0."""
        model: InstanceModel = self.model().eval()
        return model

    def loss(self, model: InstanceModel, batch: list[Tensor]) -> Mapping[str, Tensor]:
        rest = {name: value for name, value in self.options.items() if name not in self.shape}
        return model.loss_fn(**rest)(model, batch, single_rank())

    def test_options_are_those_of_the_parameters(self) -> None:
        parameters = yaml.safe_load((ROOT / "params.yaml").read_text())["instance"]
        assert set(self.options) == set(parameters[self.method])
        assert set(self.shape) <= set(self.options)

    def test_new_parameters_are_all_but_the_backbone(self) -> None:
        model = self.model()
        new, old = set(model.new_parameters()), set(model.backbone.parameters())
        assert not new & old
        assert new | old == set(model.parameters())

    def test_saved_and_rebuilt_from_the_header(self, tmp_path: Path) -> None:
        model, path = self.model(), tmp_path / "instance.safetensors"
        header = {"method": self.method, "backbone": SMALL, "classes": CLASSES}
        save_weights(path, model, "instance", **header, options=self.shape)
        again = load_network(path, "instance", rebuild, torch.device("cpu"))
        assert type(again) is type(model)
        state = again.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    @pytest.mark.parametrize(
        ("instances", "ignored"), [(0, False), (0, True), (1, False), (2, False)]
    )
    def test_terms_are_finite_with_a_gradient(self, instances: int, ignored: bool) -> None:
        model = self.model().train()
        terms = self.loss(model, square_batch(instances, ignored=ignored))
        assert set(terms) == {"loss", *self.terms}
        assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
        assert float(terms["loss"].detach()) > 0
        terms["loss"].backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        backbone = [p.grad for p in model.backbone.parameters()]
        assert any(gradient is not None and gradient.any() for gradient in backbone)

    @pytest.mark.parametrize("side", [64, 50])
    def test_loss_decreases(self, side: int) -> None:
        model, batch, losses = self.model().train(), square_batch(side=side), []
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
        for _ in range(10):
            torch.manual_seed(0)
            loss = self.loss(model, batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.8 * losses[0]

    @pytest.mark.parametrize(
        ("size", "sides", "seen"),
        [
            ((64, 96), None, (64, 96)),
            ((64, 96), (128, 400), (128, 192)),
            ((64, 96), (128, 160), (128, 160)),
            ((150, 64), (128, 180), (192, 96)),
        ],
    )
    def test_network_sees_images_at_the_given_sides(
        self, size: tuple[int, int], sides: tuple[int, int] | None, seen: tuple[int, int]
    ) -> None:
        """Padded to multiples of 32, and not resized by torchvision."""
        model, shapes = self.detecting(), list[tuple[int, ...]]()
        network: Any = model.backbone
        network.register_forward_pre_hook(
            lambda module, inputs: shapes.append(tuple(inputs[0].shape[2:]))
        )
        model.predict([torch.zeros(3, *size)], score=0.5, sides=sides)
        assert shapes == [seen]

    @pytest.mark.defect("sparseinst-9.12")
    @pytest.mark.parametrize("sides", [None, (48, 80)])
    def test_detections_fit_and_do_not_depend_on_other_images(
        self, sides: tuple[int, int] | None
    ) -> None:
        model, generator = self.detecting(), torch.Generator().manual_seed(1)
        sizes = [(50, 70), (64, 96), (33, 65), (90, 40), (8, 8), (50, 70)]
        images = [torch.randint(0, 256, (3, *size), generator=generator) for size in sizes]
        together = model.predict(images, score=0.0, sides=sides)
        for image, found in zip(images, together, strict=True):
            assert found.masks.shape[1:] == image.shape[1:]
            assert found.masks.dtype == torch.bool
            assert found.masks.flatten(1).any(1).all()
            assert len(found.masks) == len(found.classes) == len(found.scores)
            assert ((found.classes >= 0) & (found.classes < len(CLASSES))).all()
            (alone,) = model.predict([image], score=0.0, sides=sides)
            assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
        assert sum(len(found.scores) for found in together) > 6
        assert all(len(found.scores) == 0 for found in model.predict(images, score=1.0))
        assert model.predict([], score=0.0) == []

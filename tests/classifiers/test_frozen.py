"""The frozen classifier: windows of stored features, what learns, and that its maps are those of
the features that it learned from.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.classifiers import CLASSIFIERS
from pipeline.classifiers.base import Classifier, TrainingData
from pipeline.core.artifacts import Reader, Writer
from pipeline.nets.backbones import Backbone, pad_to_multiple
from tests.classifiers.base import SMALL, ClassifierTester, HalfPrecision, batch_of, step

STRIDE = 16


def stored(backbone: Backbone, image: np.ndarray) -> np.ndarray:
    """Return what stage features stores of an image [H,W,3]: f2 [D,h,w]."""
    normalized = backbone.normalize(torch.from_numpy(image).permute(2, 0, 1)[None])
    with torch.inference_mode():
        features: Tensor = backbone(pad_to_multiple(normalized, STRIDE))[-1][0]
    return features.half().numpy()


@pytest.fixture
def data(data: TrainingData, tmp_path: Path) -> TrainingData:
    """The data set with features of the network that TestFrozen.network returns."""
    torch.manual_seed(0)
    backbone, stride = Backbone(SMALL).eval(), np.array([STRIDE], np.int32)
    with Writer(tmp_path / "features.h5", "features", data.index.classes) as writer:
        for name in data.names:
            features = stored(backbone, data.index.image(name))
            writer.write(name, {"features": features, "stride": stride})
    return replace(data, features=Reader(tmp_path / "features.h5", "features"))


class TestFrozen(ClassifierTester):
    method = "frozen"

    def network(self, classes: int = 2) -> Classifier:
        network = super().network(classes)
        assert not network.backbone.training
        return network

    @pytest.mark.parametrize("tag", [0.0, 1.0])
    def test_step_in_bfloat16_is_finite_and_learns(self, data: TrainingData, tag: float) -> None:
        network, batch = self.network().train(), batch_of(self.method, data)
        batch[1] = torch.full_like(batch[1], tag)
        terms = self.loss_fn(data)(HalfPrecision(network), batch, step())
        assert all(v.dtype == torch.float32 and v.isfinite() for v in terms.values())
        terms["loss"].backward()
        learning = {name for name, p in network.named_parameters() if p.requires_grad}
        assert learning == {"head.weight"}
        assert network.get_parameter("head.weight").grad is not None

    def test_samples_are_tagged_crops(self, data: TrainingData) -> None:
        samples = CLASSIFIERS[self.method].dataset(data)
        assert len(samples) == len(data.names)
        assert data.features is not None
        for number, name in enumerate(data.names):
            window, tags = samples[number]
            whole = torch.from_numpy(data.features[name]["features"])
            assert (window.shape[1:], window.dtype) == ((96 // STRIDE,) * 2, torch.float16)
            assert tags.nonzero().flatten().tolist() == list(data.index[name].tags)
            places = range(whole.shape[2] - 5)
            assert any(torch.equal(window, whole[:, :6, x : x + 6]) for x in places)

    def test_window_larger_than_the_image_ends_in_zeros(self, data: TrainingData) -> None:
        window, _ = CLASSIFIERS[self.method].dataset(replace(data, crop=150))[0]
        assert window.shape[1:] == (10, 10)
        assert window[:, :6, :8].any()
        assert not window[:, 6:].any()
        assert not window[:, :, 8:].any()

    def test_images_without_features_are_left_out(self, data: TrainingData) -> None:
        names = [*data.names, "e"]
        assert len(CLASSIFIERS[self.method].dataset(replace(data, names=names))) == 4

    def test_logits_are_the_means_of_the_maps(self, data: TrainingData) -> None:
        """Learned from stored features, applied to images: equal up to the storage in float16."""
        network = self.network()
        image = data.index.image("a")
        logits: Tensor = network(torch.from_numpy(stored(network.backbone, image))[None])
        normalized = network.backbone.normalize(torch.from_numpy(image).permute(2, 0, 1)[None])
        maps = network.maps(pad_to_multiple(normalized, STRIDE), torch.ones(1, 2))
        assert torch.allclose(logits, maps.mean((2, 3)), rtol=1e-3, atol=1e-3)
        assert logits.abs().max() > 0.01

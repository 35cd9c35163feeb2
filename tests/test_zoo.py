import math

import pytest
import timm
import torch
import torchvision
from torch import nn

from fer_ray.config import ModelConfig
from fer_ray.errors import UserError
from fer_ray.models import zoo

PRINTED_MILLIONS = {
    # As the ratio study prints them; those with True count the 1,000 ImageNet classes.
    "ResNet18": (11, False),
    "ResNet50": (23, False),
    "EfficientNetB0": (5, True),
    "MobileNetV3-Large": (5.4, True),
    "ShuffleNetV2-x1.0": (1.3, False),
    "DenseNet121": (8, True),
    "ConvNeXt-Tiny": (28, False),
}


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def library_model(name: str, num_classes: int) -> nn.Module:
    architecture = zoo.ZOO[name]
    if architecture.library == "timm":
        return timm.create_model(architecture.key, num_classes=num_classes)
    return torchvision.models.get_model(architecture.key, num_classes=num_classes)


def test_the_zoo_holds_the_seven_networks_of_the_ratio_study() -> None:
    assert list(zoo.ZOO) == list(PRINTED_MILLIONS)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_a_network_of_the_zoo_starts_at_chance_and_learns(name: str) -> None:
    torch.manual_seed(0)
    model = zoo.build(ModelConfig(name=name), 7)
    labels = torch.arange(4) % 7
    for size in (32, 48):
        logits = model(torch.randn(4, 3, size, size))
        assert logits.shape == (4, 7)
        assert nn.functional.cross_entropy(logits, labels).item() == pytest.approx(math.log(7), abs=1e-6)
    # A zero classifier still has a gradient, unless everything before it is zero too.
    nn.functional.cross_entropy(logits, labels).backward()
    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert classifier.weight.grad is not None
    assert classifier.weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize("name", zoo.ZOO)
def test_parameters_are_those_of_the_library_and_near_the_printed_count(name: str) -> None:
    count = num_parameters(zoo.build(ModelConfig(name=name), 7))
    assert count == num_parameters(library_model(name, 7))
    printed, with_imagenet_head = PRINTED_MILLIONS[name]
    features = zoo.build(ModelConfig(name=name), 1000) if with_imagenet_head else None
    compared = num_parameters(features) if features else count
    assert compared / 1e6 == pytest.approx(printed, rel=0.06)


def test_initialisation_follows_the_global_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in zoo.build(ModelConfig(name="ShuffleNetV2-x1.0"), 3).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("name", ["ResNet18", "MobileNetV3-Large", "ShuffleNetV2-x1.0", "ConvNeXt-Tiny"])
def test_dropout_acts_in_training_only(name: str) -> None:
    torch.manual_seed(0)
    model = zoo.build(ModelConfig(name=name, dropout=0.5), 7).eval()
    nn.init.normal_([module for module in model.modules() if isinstance(module, nn.Linear)][-1].weight)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.train()
        model.training = True  # timm calls the functional form
        assert not torch.equal(model(images), model(images))


def test_a_typo_in_the_name_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no architecture 'resnet_18' in the zoo; did you mean 'ResNet18'"):
        zoo.build(ModelConfig(name="resnet_18"), 7)


@pytest.mark.parametrize("name", ["ResNet18", "ShuffleNetV2-x1.0"])
def test_pretrained_weights_without_a_network_are_a_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(UserError, match=rf"weights of {name} could not be fetched .*--weights none"):
        zoo.build(ModelConfig(name=name, weights="imagenet"), 7)
    with pytest.raises(OSError, match="not known"):  # without pretrained weights it is no matter of the network
        zoo.build(ModelConfig(name=name), 7)

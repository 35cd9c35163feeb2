import math
from itertools import pairwise

import pytest
import timm
import torch
import torchvision
from torch import nn

from fer_ray import cli
from fer_ray.config import ModelConfig, RunConfig
from fer_ray.errors import UserError
from fer_ray.models import cost, zoo
from fer_ray.models.__main__ import command
from fer_ray.run_data import normalization

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

PUBLISHED = {
    # Parameters with 1,000 classes, as torchvision's pages give them, and features before the classifier.
    "ResNet18": (11_689_512, 512),
    "ResNet34": (21_797_672, 512),
    "ResNet50": (25_557_032, 2048),
    "EfficientNetB0": (5_288_548, 1280),
    "EfficientNetV2-S": (21_458_488, 1280),
    "MobileNetV3-Large": (5_483_032, 1280),
    "MobileNetV3-Small": (2_542_856, 1024),
    "ShuffleNetV2-x1.0": (2_278_604, 1024),
    "DenseNet121": (7_978_856, 1024),
    "ConvNeXt-Tiny": (28_589_128, 768),
}

SCRATCH = {"ResNet18": {"avg_down": True}, "ResNet50": {"avg_down": True}}


def library_model(name: str, num_classes: int) -> nn.Module:
    """As finished trials built it: the library's network with its classifier, before blocks start as the identity."""
    architecture = zoo.ZOO[name]
    if architecture.library == "timm":
        return timm.create_model(architecture.key, num_classes=num_classes, **SCRATCH.get(name, {}))
    return torchvision.models.get_model(architecture.key)


def small(name: str, **options: object) -> ModelConfig:
    return ModelConfig(name=name, **options)


def shapes(config: ModelConfig, num_classes: int, image_size: int = 32) -> nn.Module:
    """A network without values, for what shapes alone tell."""
    with torch.device("meta"):
        return zoo.build(config, num_classes, image_size=image_size)


def last_side(backbone: nn.Module, image_size: int) -> int:
    """Width of the last map that a 3 x 3 or larger kernel sees."""
    sides: list[int] = []
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1:
            module.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    backbone(torch.zeros(1, 3, image_size, image_size, device="meta"))
    return sides[-1]


def test_the_zoo_holds_the_seven_networks_of_the_ratio_study_and_those_of_the_other_systems() -> None:
    assert list(zoo.RATIO_STUDY) == list(PRINTED_MILLIONS)
    assert set(zoo.ZOO) == {*PUBLISHED, "VGG19-BN", "FourBlockCNN", "ResNet9", "ResEmoteNet"}


LARGE = ("ResNet34", "ResNet50", "EfficientNetV2-S", "DenseNet121", "VGG19-BN", "ResEmoteNet")


@pytest.mark.parametrize("name", [name for name in zoo.ZOO if name not in LARGE])
def test_a_network_of_the_zoo_starts_at_chance_and_learns(name: str) -> None:
    torch.manual_seed(0)
    network = zoo.build(small(name), 7, image_size=32)
    labels = torch.arange(4) % 7
    logits = network(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 7)
    assert nn.functional.cross_entropy(logits, labels).item() == pytest.approx(math.log(7), abs=1e-6)
    # A zero classifier still has a gradient, unless everything before it is zero too.
    nn.functional.cross_entropy(logits, labels).backward()
    classifier = [module for module in network.head.modules() if isinstance(module, nn.Linear)][-1]
    assert classifier.weight.grad is not None
    assert classifier.weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *((name, count - 993 * (features + 1)) for name, (count, features) in PUBLISHED.items()),
        # Without the three layers of 4,096, 4,096 and 1,000 units.
        ("VGG19-BN", 143_678_248 - (25_088 * 4096 + 4096) - (4096 * 4096 + 4096) - 4_097_000 + 7 * 513),
        # 3 x 3 kernels without biases, and two values a norm.
        ("FourBlockCNN", 9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256) + 2 * (32 + 64 + 128 + 256) + 7 * 257),
        (
            "ResNet9",
            9 * (3 * 32 + sum(before * after + 2 * after * after for before, after in pairwise((32, 64, 128, 256))))
            + 2 * (32 + 3 * (64 + 128 + 256))
            + 7 * 257,
        ),
        ("ResEmoteNet", 80_238_599),  # arXiv:2409.10545 prints 80.24 M
    ],
)
def test_parameters_with_seven_classes_are_those_that_the_authors_publish(name: str, count: int) -> None:
    assert cost.num_parameters(shapes(small(name), 7)) == count


@pytest.mark.parametrize("name", PRINTED_MILLIONS)
def test_the_counts_that_the_ratio_study_prints_are_near_three_of_them_with_a_1000_class_head(name: str) -> None:
    printed, with_imagenet_head = PRINTED_MILLIONS[name]
    count, features = PUBLISHED[name]
    assert (count if with_imagenet_head else count - 993 * (features + 1)) / 1e6 == pytest.approx(printed, rel=0.06)


def test_resnet18_with_one_channel_and_four_classes_has_the_stated_parameters() -> None:
    network = zoo.build(small("ResNet18", channels=1), 4, image_size=48)
    assert cost.num_parameters(network) == 11_689_512 - 513_000 - 2 * 64 * 49 + 4 * 513 == 11_172_292
    assert network(torch.rand(2, 1, 48, 48)).shape == (2, 4)


@pytest.mark.parametrize("name", PRINTED_MILLIONS)
def test_the_initial_weights_of_the_seven_are_the_librarys_draws(name: str) -> None:
    """Finished trials stay comparable: the draws do not depend on how the head is made."""
    torch.manual_seed(3)
    expected = library_model(name, 5).state_dict()
    torch.manual_seed(3)
    found = zoo.build(small(name, dropout=0.3), 5, image_size=32).backbone.state_dict()
    classifier = [key for key in expected if key not in found]
    assert [expected[key].ndim for key in classifier] == [2, 1]
    assert [key for key in expected if key in found] == list(found)
    zeroed = {key for key, value in found.items() if value.ndim == 1 and not value.any() and "weight" in key}
    assert all(torch.equal(value, expected[key]) for key, value in found.items() if key not in zeroed)


def test_residual_blocks_start_as_the_identity() -> None:
    for name, count in (("EfficientNetB0", 9), ("EfficientNetV2-S", 35), ("MobileNetV3-Large", 10), ("ResNet18", 8)):
        state = zoo.build(small(name), 7, image_size=32).backbone.state_dict()
        zeroed = [key for key, value in state.items() if key.endswith("weight") and value.ndim == 1 and not value.any()]
        assert len(zeroed) == count


def test_initialisation_follows_the_global_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        network = zoo.build(small("ShuffleNetV2-x1.0"), 3, image_size=32)
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("name", ["ResNet18", "MobileNetV3-Large", "ShuffleNetV2-x1.0"])
def test_dropout_acts_in_training_only(name: str) -> None:
    torch.manual_seed(0)
    network = zoo.build(small(name, dropout=0.5), 7, image_size=32).eval()
    nn.init.normal_([module for module in network.modules() if isinstance(module, nn.Linear)][-1].weight)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
        network.head.train()
        assert not torch.equal(network(images), network(images))


def test_any_other_name_of_timm_is_taken() -> None:
    network = zoo.build(small("tf_efficientnet_b0.ns_jft_in1k"), 8, image_size=64)
    assert (network.num_features, network(torch.rand(1, 3, 64, 64).repeat(2, 1, 1, 1)).shape) == (1280, (2, 8))
    assert zoo.gmac("tf_efficientnet_b0.ns_jft_in1k") == pytest.approx(zoo.gmac("EfficientNetB0"), abs=0.01)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet_18", "did you mean 'ResNet18'"),
        ("tf_efficientnet_b0.ns_jft_in1", "did you mean 'tf_efficientnet_b0.ns_jft_in1k'"),
        ("mobilenetv3_large_10", "did you mean 'mobilenetv3_large_100'"),
        ("hf-hub:someone/model", "in timm"),
        ("xyzzy", "known: ResNet18"),
    ],
)
def test_a_typo_in_the_name_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=rf"model.name: no architecture '{name}' in the zoo or in timm.*{hint}|in timm"):
        zoo.build(small(name), 7)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("ResNet18", 4),
        ("ConvNeXt-Tiny", 4),
        ("ShuffleNetV2-x1.0", 4),
        ("EfficientNetB0", 2),
        ("MobileNetV3-Small", 2),
    ],
)
def test_a_stride_1_stem_keeps_the_resolution_and_the_parameters(name: str, factor: int) -> None:
    network = shapes(small(name, stem="stride1"), 7, 64)
    assert last_side(network.backbone, 64) == 2 * factor  # 32 strides in all, less those of the stem
    count, features = PUBLISHED[name]
    assert cost.num_parameters(network) == count - 993 * (features + 1)


def test_a_stride_1_stem_with_one_channel_runs() -> None:
    network = zoo.build(small("ShuffleNetV2-x1.0", stem="stride1", channels=1), 3, image_size=48)
    assert network(torch.rand(2, 1, 48, 48)).shape == (2, 3)


@pytest.mark.parametrize("name", ["FourBlockCNN", "vit_tiny_patch16_224"])
def test_a_stride_1_stem_is_refused_where_it_makes_no_sense(name: str) -> None:
    with pytest.raises(UserError, match=rf"model.stem=stride1: .*{name}.* leave model.stem at standard"):
        zoo.build(small(name, stem="stride1"), 7, image_size=224)


@pytest.mark.parametrize("name", ["ResNet18", "ShuffleNetV2-x1.0", "FourBlockCNN"])
def test_one_channel_gives_what_three_equal_ones_give(name: str) -> None:
    torch.manual_seed(0)
    colour = zoo.build(small(name), 3, image_size=32).backbone.eval()
    torch.manual_seed(0)
    grey = zoo.build(small(name, channels=1), 3, image_size=32).backbone.eval()
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_an_image_too_small_for_a_network_is_a_message() -> None:
    with pytest.raises(UserError, match=r"data.image_size: inception_v3 cannot take images of 48 px .*larger"):
        zoo.build(small("inception_v3"), 7, image_size=48)
    with pytest.raises(UserError, match=r"data.image_size: vit_tiny_patch16_224 cannot take images of 48 px"):
        zoo.build(small("vit_tiny_patch16_224"), 7, image_size=48)


@pytest.mark.parametrize("name", ["ResNet18", "ShuffleNetV2-x1.0"])
def test_pretrained_weights_without_a_network_are_a_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(UserError, match=rf"weights of {name} could not be fetched .*--weights none"):
        zoo.build(small(name, weights="imagenet"), 7)
    with pytest.raises(OSError, match="not known"):  # without pretrained weights it is no matter of the network
        zoo.build(small(name), 7)


@pytest.mark.parametrize("name", ["FourBlockCNN", "efficientnetv2_s"])
def test_pretrained_weights_that_nobody_has_are_a_message(name: str) -> None:
    with pytest.raises(UserError, match=rf"model.weights=imagenet: .*{name}"):
        zoo.build(small(name, weights="imagenet"), 7, image_size=48)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "EfficientNetV2-S"])
def test_the_zoos_multiply_adds_are_those_of_torchvisions_pages(name: str) -> None:
    other = {"MobileNetV3-Large": "mobilenet_v3_large", "MobileNetV3-Small": "mobilenet_v3_small"}
    key = other.get(name, zoo.ZOO[name].key)
    weights = torchvision.models.get_model_weights(key).IMAGENET1K_V1
    assert zoo.gmac(name) == pytest.approx(weights.meta["_ops"], abs=0.008)


@pytest.mark.parametrize("name", ["VGG19-BN", "FourBlockCNN", "ResEmoteNet", "ResNet18"])
def test_the_zoos_multiply_adds_are_those_of_its_networks(name: str) -> None:
    assert zoo.gmac(name) == pytest.approx(cost.gmac(shapes(small(name), 7, 224), 224), abs=0.01)


def test_multiply_adds_are_those_of_a_hand_count_and_leave_the_mode_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1), nn.Flatten(), nn.Linear(8 * 16, 5))
    network[0].eval()
    assert cost.gmac(network, 8) == (4 * 4 * 8 * 27 + 128 * 5) / 1e9
    assert [module.training for module in network] == [False, True, True]


def test_the_command_lists_networks(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["ResNet18", "FourBlockCNN", "--image-size", "32", "--no-speed"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["ResNet18", "11.18", "0.037", "44.8"],
        ["FourBlockCNN", "0.39", "0.015", "1.6"],
    ]
    assert command(["ShuffleNetV2-x1.0", "--image-size", "32", "--rounds", "2"]) == 0
    assert "images/s, one thread" in capsys.readouterr().out
    assert cli.exit_code(command, ["ResNet81", "--no-speed"]) == cli.USAGE
    assert "did you mean 'ResNet18'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("EfficientNetB0", "imagenet"),
        ("tf_efficientnet_b0.ns_jft_in1k", "imagenet"),
        ("tf_efficientnetv2_s", "half"),
        ("vit_base_patch16_224", "half"),
        ("resnet18d", "imagenet"),
    ],
)
def test_pretrained_weights_get_the_input_that_they_were_trained_on(name: str, golden: str) -> None:
    asked = RunConfig.from_flat({"model.name": name, "model.weights": "imagenet"})
    assert normalization(asked) == golden
    assert normalization(asked.replace({"model.weights": "none"})) == "image"
    assert normalization(asked.replace({"data.normalization": "unit"})) == "unit"

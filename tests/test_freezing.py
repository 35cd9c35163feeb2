import pytest
import torch
from torch import nn

from fer_ray.config import ModelConfig
from fer_ray.errors import UserError
from fer_ray.models import freezing, zoo
from fer_ray.models.network import Network


def build(name: str = "ResNet18", **options: object) -> Network:
    torch.manual_seed(0)
    return zoo.build(ModelConfig(name=name, **options), 3, image_size=32)


def trained(network: Network) -> list[str]:
    """Names of layers with a trained parameter, in order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name, p in network.named_parameters() if p.requires_grad))


def step(network: Network, size: int = 32) -> None:
    """A training step with dropout, batch norm and weights all able to move."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 0.01)
    loss = nn.functional.cross_entropy(network(torch.randn(4, 3, size, size)), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    optimizer.step()


def changed(network: Network, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def test_layers_are_what_has_weights_or_statistics_in_the_order_of_definition() -> None:
    names = list(freezing.layers(build()))
    assert names[:4] == ["backbone.conv1", "backbone.bn1", "backbone.layer1.0.conv1", "backbone.layer1.0.bn1"]
    # 20 convolutions and norms each (with 3 shortcuts), and the classifier: a ResNet-18 of 41 layers.
    assert (len(names), names[-1]) == (41, "head.1")


def test_the_last_layers_count_those_of_the_head() -> None:
    network = build(head="efficientnetv2s-two-phase")
    for count, expected in (
        (1, ["head.2.1"]),
        (3, ["head.1.1", "head.1.3", "head.2.1"]),
        (6, ["backbone.layer4.1.bn2", "head.0.1", "head.0.3", "head.1.1", "head.1.3", "head.2.1"]),
    ):
        freezing.set_trainable(network, f"last-{count}")
        assert trained(network) == expected
    freezing.set_trainable(network, "head")
    assert trained(network) == expected[1:]
    freezing.set_trainable(network, "all")
    assert trained(network) == list(freezing.layers(network))


def test_from_a_block_trains_it_and_all_after_it() -> None:
    network = build()
    freezing.set_trainable(network, "from-layer4.1")
    assert trained(network) == [f"backbone.layer4.1.{name}" for name in ("conv1", "bn1", "conv2", "bn2")] + ["head.1"]
    freezing.set_trainable(network, "from-layer4")
    assert trained(network)[0] == "backbone.layer4.0.conv1"
    freezing.set_trainable(network, "from-conv1")
    assert len(trained(network)) == 41


def test_a_block_with_a_scale_of_its_own_is_frozen_with_it() -> None:
    network = build("ConvNeXt-Tiny")
    freezing.set_trainable(network, "from-stages.3.blocks.2")
    assert trained(network)[0] == "backbone.stages.3.blocks.2"
    assert not any(p.requires_grad for n, p in network.named_parameters() if n.startswith("backbone.stages.2"))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("from-layer5", r"no block 'layer5'; did you mean 'layer\d'"),
        ("from-maxpool", "no block 'maxpool'"),
        ("last-42", r"last-42 asks for more layers than the 41"),
    ],
)
def test_a_part_that_the_network_does_not_have_is_a_message(part: str, message: str) -> None:
    network = build()
    with pytest.raises(UserError, match=message):
        freezing.set_trainable(network, part)
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", ["ResNet18", "EfficientNetV2-S", "ResEmoteNet"])
def test_a_frozen_backbone_gives_the_same_features_through_training(name: str) -> None:
    network = build(name, head="efficientnetv2s-two-phase")
    freezing.set_trainable(network, "head")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    freezing.train_mode(network)
    features = network.backbone(images)
    for _ in range(2):
        step(network)
    assert torch.equal(network.backbone(images), features)  # neither dropout nor stochastic depth acts in it
    moved = changed(network, before)
    assert moved
    assert all(key.startswith("head.") for key in moved)
    assert {"head.0.1.weight", "head.0.3.running_mean", "head.2.1.weight"} <= moved


def test_statistics_move_where_a_layer_is_trained_and_nowhere_else() -> None:
    network = build()
    nn.init.normal_(network.head[1].weight)  # at zero it would hold back all gradients in the first step
    freezing.set_trainable(network, "from-layer4.1")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    freezing.train_mode(network)
    step(network)
    moved = changed(network, before)
    assert {"backbone.layer4.1.bn1.running_var", "backbone.layer4.1.conv2.weight", "head.1.weight"} <= moved
    assert all(key.startswith(("backbone.layer4.1.", "head.")) for key in moved)


def test_dropout_acts_in_the_trained_stages_of_a_head_only() -> None:
    network = build(head="efficientnetv2s-two-phase")
    for part, expected in (
        ("head", [True, True, True]),
        ("last-2", [False, True, True]),
        ("last-1", [False] * 2 + [True]),
    ):
        freezing.set_trainable(network, part)
        freezing.train_mode(network)
        assert [stage[0].training for stage in network.head] == expected


def test_everything_trains_again_after_a_frozen_phase() -> None:
    network = build()
    freezing.set_trainable(network, "head")
    freezing.train_mode(network)
    assert not network.backbone.training
    freezing.set_trainable(network, "all")
    freezing.train_mode(network)
    assert all(module.training for module in network.modules())


def test_a_norm_without_scale_follows_the_part_around_it() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = Network(plain, nn.Sequential(nn.Linear(4, 2)), 4)
    assert list(freezing.layers(network)) == ["backbone.0", "backbone.1", "head.0"]
    freezing.set_trainable(network, "head")
    freezing.train_mode(network)
    assert not plain[1].training
    freezing.set_trainable(network, "all")
    freezing.train_mode(network)
    assert plain[1].training

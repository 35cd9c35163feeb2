import pytest
import torch
from torch import nn

from fer_ray.config import ModelConfig
from fer_ray.errors import UserError
from fer_ray.models import cost, heads, zoo


def layers(head: nn.Module) -> list[str]:
    """Layers in order, in short: "Linear 512", "Dropout 0.3"."""
    found = []
    for module in head.modules():
        if isinstance(module, nn.Linear):
            found.append(f"Linear {module.out_features}")
        elif isinstance(module, nn.Dropout):
            found.append(f"Dropout {module.p:g}")
        elif not list(module.children()):
            found.append(type(module).__name__)
    return [name for name in found if name != "Dropout 0"]


def build(name: str, num_features: int, num_classes: int, num_affect: int = 0) -> nn.Module:
    return heads.build(ModelConfig(head=name), num_features, num_classes, num_affect)


def test_the_head_of_the_two_phase_system_has_its_790_535_parameters() -> None:
    head = build("efficientnetv2s-two-phase", 1280, 7)
    assert layers(head) == [
        *("Dropout 0.3", "Linear 512", "ReLU", "BatchNorm1d"),
        *("Dropout 0.3", "Linear 256", "ReLU", "BatchNorm1d"),
        *("Dropout 0.15", "Linear 7"),
    ]
    assert cost.num_parameters(head) == 790_535
    config = ModelConfig(name="EfficientNetV2-S", head="efficientnetv2s-two-phase")
    with torch.device("meta"):
        assert cost.num_parameters(zoo.build(config, 7, image_size=64)) == 20_968_023


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "affect-resnet50",
            ["Linear 512", "ReLU", "BatchNorm1d", "Dropout 0.5", "Linear 256", "ReLU", "Dropout 0.3", "Linear 10"],
        ),
        ("affect-efficientnetb0", ["Linear 512", "ReLU", "BatchNorm1d", "Dropout 0.5", "Linear 10"]),
        ("affect-cnn", ["Linear 512", "ReLU", "Dropout 0.5", "Linear 256", "ReLU", "Dropout 0.3", "Linear 10"]),
    ],
)
def test_the_heads_of_the_multi_task_system_are_as_written_down(name: str, expected: list[str]) -> None:
    assert layers(build(name, 64, 8, 2)) == [*expected, "AffectTanh"]


@pytest.mark.parametrize("name", ["linear", *heads.HEADS])
@pytest.mark.parametrize(("num_classes", "num_affect"), [(7, 0), (8, 2), (0, 2)])
def test_a_head_starts_at_zero_and_every_layer_of_it_can_learn(name: str, num_classes: int, num_affect: int) -> None:
    torch.manual_seed(0)
    head = build(name, 12, num_classes, num_affect)
    features = torch.randn(6, 12)
    outputs = head(features)
    assert outputs.shape == (6, num_classes + num_affect)
    assert not outputs.any()
    optimizer = torch.optim.SGD(head.parameters(), 0.01)
    for _ in range(2):  # the zero layer moves first, then what is before it
        optimizer.zero_grad()
        (head(features) - 1).square().sum().backward()
        optimizer.step()
    gradients = [p.grad.abs().max() for key, p in head.named_parameters() if key.endswith("weight")]
    assert min(gradients) > 0


def test_valence_and_arousal_are_bounded_and_logits_are_not() -> None:
    head = build("linear", 4, 3, 2)
    nn.init.constant_(head[1].weight, 10.0)
    outputs = head(torch.full((1, 4), 5.0))
    assert outputs[0].tolist() == [200, 200, 200, 1, 1]


def test_making_a_linear_head_draws_no_random_number() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    build("linear", 16, 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_beside_a_head_with_its_own_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.dropout: got 0.2 with model.head=affect-cnn.*linear"):
        heads.build(ModelConfig(head="affect-cnn", dropout=0.2), 16, 7, 0)
    assert layers(heads.build(ModelConfig(dropout=0.2), 16, 7, 0)) == ["Dropout 0.2", "Linear 7"]

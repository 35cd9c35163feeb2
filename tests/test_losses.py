"""Losses agree with their papers' formulas, and stay finite where these are undefined."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from fer_ray.config import RunConfig
from fer_ray.training import losses

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 3.0], [-1.0, 1.0, 0.5]])
VOTES = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
CLASSES = torch.tensor([0, 2, 1])
ONE_HOT = functional.one_hot(CLASSES, 3).float()
WEIGHTS = torch.tensor([0.5, 1.0, 4.0])
NAN = float("nan")


def config(**values: object) -> RunConfig:
    return RunConfig.from_flat({key.replace("__", "."): value for key, value in values.items()})


def test_soft_labels_are_the_expected_log_likelihood() -> None:
    loss = losses.build(config(training__label_smoothing=0.0))
    expected = -(VOTES.numpy() * np.log(functional.softmax(LOGITS, 1).numpy())).sum(1).mean()
    assert loss(LOGITS, VOTES).item() == pytest.approx(expected, rel=1e-6)


def test_without_weights_it_is_torchs_cross_entropy_to_the_bit() -> None:
    for target in (CLASSES, ONE_HOT, VOTES):
        golden = functional.cross_entropy(LOGITS, target, label_smoothing=0.1)
        assert torch.equal(losses.build(config())(LOGITS, target), golden)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_classes_and_one_hot_targets_give_the_same_loss(
    kind: str, weights: torch.Tensor | None, smoothing: float
) -> None:
    loss = losses.build(config(task__classification_loss=kind, training__label_smoothing=smoothing), weights)
    torch.testing.assert_close(loss(LOGITS, ONE_HOT), loss(LOGITS, CLASSES))


def test_class_weights_make_a_weighted_mean_that_their_scale_does_not_change() -> None:
    log_p = np.log(functional.softmax(LOGITS, 1).numpy())
    by_hand = -(0.5 * log_p[0, 0] + 4 * log_p[1, 2] + 1 * log_p[2, 1]) / (0.5 + 4 + 1)
    for target in (CLASSES, ONE_HOT):
        assert losses.cross_entropy(LOGITS, target, WEIGHTS).item() == pytest.approx(by_hand, rel=1e-6)
        assert losses.cross_entropy(LOGITS, target, 7 * WEIGHTS).item() == pytest.approx(by_hand, rel=1e-6)
    weighted = VOTES.numpy() * WEIGHTS.numpy()
    soft = -(weighted * log_p).sum() / weighted.sum()
    assert losses.cross_entropy(LOGITS, VOTES, WEIGHTS).item() == pytest.approx(soft, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_of_two_classes_is_torchvisions(gamma: float) -> None:
    # Softmax over the logits (0, x) is the sigmoid of x.
    x, is_positive = torch.linspace(-6, 6, 13), torch.arange(13) % 2
    golden = sigmoid_focal_loss(x, is_positive.float(), alpha=-1, gamma=gamma, reduction="mean")
    logits = torch.stack([torch.zeros(13), x], dim=1)
    torch.testing.assert_close(losses.focal(logits, is_positive, gamma), golden)


def test_focal_with_gamma_0_is_cross_entropy_for_every_kind_of_target() -> None:
    for target in (CLASSES, VOTES):
        for weights in (None, WEIGHTS):
            golden = losses.cross_entropy(LOGITS, target, weights, 0.1)
            torch.testing.assert_close(losses.focal(LOGITS, target, 0.0, weights, 0.1), golden)


def test_focal_towards_a_distribution_focuses_each_class_on_its_own() -> None:
    p = functional.softmax(LOGITS, 1).double().numpy()
    golden = -(VOTES.numpy() * (1 - p) ** 2 * np.log(p)).sum(1).mean()
    assert losses.focal(LOGITS, VOTES, 2.0).item() == pytest.approx(golden, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_a_certain_answer_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [200.0, 0.0]], requires_grad=True)
    losses.focal(logits, torch.tensor([0, 1]), gamma).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1].abs().sum() > 0.5


def test_multi_target_takes_the_likeliest_of_the_voted_classes() -> None:
    loss = losses.build(config(data__votes="multi_target"))
    probabilities = functional.softmax(LOGITS, 1).numpy()
    weights = 0.999 * (VOTES.numpy() > 0) + 0.001
    expected = -np.log((weights * probabilities).max(axis=1)).mean()
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, VOTES)
    assert value.item() == pytest.approx(expected, rel=1e-6)
    value.backward()
    assert torch.isfinite(logits.grad).all()


def lin(x: np.ndarray, y: np.ndarray) -> float:
    """Lin 1989: the correlation times a bias correction from the ratio of the scales and the shift of the means."""
    scale, shift = x.std() / y.std(), (x.mean() - y.mean()) / math.sqrt(x.std() * y.std())
    return np.corrcoef(x, y)[0, 1] * 2 / (scale + 1 / scale + shift**2)


def affect(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = 2 * torch.rand(count, generator=generator) - 1
    return (0.5 * target + 0.2 + 0.3 * torch.randn(count, generator=generator)).tanh(), target


def test_affect_losses_are_their_formulas() -> None:
    predicted, target = affect(50)
    mse, ccc = ((predicted - target) ** 2).mean().item(), lin(predicted.double().numpy(), target.double().numpy())
    assert 0.1 < ccc < 0.9
    assert losses.AFFECT_LOSSES["mse"](predicted, target).item() == pytest.approx(mse, rel=1e-5)
    assert losses.AFFECT_LOSSES["ccc"](predicted, target).item() == pytest.approx(1 - ccc, rel=1e-5)
    assert losses.AFFECT_LOSSES["mse_ccc"](predicted, target).item() == pytest.approx((mse + 1 - ccc) / 2, rel=1e-5)


@pytest.mark.parametrize("name", losses.AFFECT_LOSSES)
def test_the_gradient_of_affect_losses_is_the_numerical_one(name: str) -> None:
    predicted, target = (values.double() for values in affect(6))
    target[2] = NAN
    assert torch.autograd.gradcheck(lambda x: losses.AFFECT_LOSSES[name](x, target), predicted.requires_grad_())


@pytest.mark.parametrize("name", losses.AFFECT_LOSSES)
def test_unknown_targets_count_for_nothing(name: str) -> None:
    predicted, target = affect(20)
    known = torch.arange(20) % 3 > 0
    golden = losses.AFFECT_LOSSES[name](predicted[known], target[known])
    predicted.requires_grad_()
    value = losses.AFFECT_LOSSES[name](predicted, target.where(known, NAN))
    torch.testing.assert_close(value, golden)
    value.backward()
    assert torch.equal(predicted.grad != 0, known)


@pytest.mark.parametrize("name", losses.AFFECT_LOSSES)
def test_a_batch_without_any_known_target_is_0_with_a_gradient_of_0(name: str) -> None:
    predicted = affect(4)[0].requires_grad_()
    value = losses.AFFECT_LOSSES[name](predicted, torch.full((4,), NAN))
    value.backward()
    assert value.item() == 0
    assert torch.equal(predicted.grad, torch.zeros(4))


@pytest.mark.parametrize(
    ("predicted", "target"),
    [([0.3], [0.5]), ([0.5], [0.5]), ([0.1, 0.1], [0.4, -0.2]), ([0.4, -0.2], [0.1, 0.1]), ([0.1] * 3, [0.1] * 3)],
)
def test_concordance_of_one_face_or_of_constants_is_0(predicted: list[float], target: list[float]) -> None:
    values = torch.tensor(predicted, requires_grad=True)
    loss = losses.concordance(values, torch.tensor(target))
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert torch.isfinite(values.grad).all()
    if len(set(target)) == 1:
        torch.testing.assert_close(values.grad, torch.zeros_like(values), atol=1e-6, rtol=0)

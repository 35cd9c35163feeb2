import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from fer_ray.config import OptimizerConfig
from fer_ray.training.schedules import learning_rate_at

PEAK = 0.01


def curve(total_steps: int, schedule: str, warmup_fraction: float = 0.25) -> torch.Tensor:
    config = OptimizerConfig(schedule=schedule, warmup_fraction=warmup_fraction, learning_rate=PEAK)
    return torch.tensor([learning_rate_at(step, total_steps, config) for step in range(total_steps)])


def torch_curve(kind: type, **options: object) -> torch.Tensor:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = kind(optimizer, **options)
    rates = []
    for _ in range(400):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return torch.tensor(rates)


def test_one_cycle_has_the_shape_of_torch() -> None:
    # torch warms up along a cosine, here it is a line, as in Smith & Topin: they part by at most .1 of the way up.
    # After the warm-up both are one cosine, half a step apart.
    golden = torch_curve(OneCycleLR, max_lr=PEAK, total_steps=400, pct_start=0.25, div_factor=25, final_div_factor=400)
    mine = curve(400, "one_cycle")
    torch.testing.assert_close(mine[:100], golden[:100], atol=0.11 * PEAK, rtol=0)
    torch.testing.assert_close(mine[100:], golden[100:], atol=0.005 * PEAK, rtol=0)


def test_the_warm_up_is_a_line() -> None:
    rises = curve(400, "one_cycle")[:100].diff()
    torch.testing.assert_close(rises, torch.full_like(rises, PEAK * (1 - 1 / 25) / 100), atol=1e-8, rtol=0)


def test_cosine_without_warm_up_is_that_of_torch() -> None:
    golden = torch_curve(CosineAnnealingLR, T_max=400)
    torch.testing.assert_close(curve(400, "cosine", 0.0), golden, atol=0.005 * PEAK, rtol=0)


def test_constant_stays_at_the_peak_after_the_warm_up() -> None:
    rates = curve(100, "constant")
    assert (rates[25:] == PEAK).all()
    assert (rates[:25].diff() > 0).all()
    assert (curve(10, "constant", 0.0) == PEAK).all()


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("total_steps", [1, 2, 7, 1000])
def test_no_step_is_lost_to_a_rate_of_zero_and_none_exceeds_the_peak(
    schedule: str, warmup_fraction: float, total_steps: int
) -> None:
    rates = curve(total_steps, schedule, warmup_fraction)
    assert (rates > 0).all()
    assert (rates <= PEAK).all()


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.25, 1.0])
def test_the_peak_is_reached(schedule: str, warmup_fraction: float) -> None:
    assert curve(1000, schedule, warmup_fraction).max().item() == pytest.approx(PEAK, rel=2e-3)

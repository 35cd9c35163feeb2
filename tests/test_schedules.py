import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from fer_ray.config import OptimizerConfig
from fer_ray.training.schedules import Schedule, learning_rate_at

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


def rates(config: OptimizerConfig, scores: list[float], steps_per_epoch: int = 3, factor: float = 1.0) -> list[float]:
    schedule = Schedule(config, steps_per_epoch * len(scores), steps_per_epoch, factor)
    found = []
    for epoch, score in enumerate(scores):
        found += [schedule.learning_rate(epoch * steps_per_epoch + i) for i in range(steps_per_epoch)]
        schedule.after_epoch(score)
    return found


@pytest.mark.parametrize("step_epochs", [1, 2, 7])
def test_step_is_the_step_schedule_of_torch(step_epochs: int) -> None:
    config = OptimizerConfig(schedule="step", step_epochs=step_epochs, step_factor=0.1, learning_rate=PEAK)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_epochs, 0.1)
    golden = []
    for _ in range(20):
        golden += [optimizer.param_groups[0]["lr"]] * 3
        optimizer.step()
        scheduler.step()
    assert rates(config, [0.0] * 20) == pytest.approx(golden, rel=1e-12)


@pytest.mark.parametrize("plateau_epochs", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_plateau_is_that_of_torch(plateau_epochs: int, seed: int) -> None:
    # torch's patience is the number of epochs it lets pass, so that it drops one later than `plateau_epochs` says.
    config = OptimizerConfig(schedule="plateau", plateau_epochs=plateau_epochs, plateau_factor=0.5, learning_rate=PEAK)
    scores = torch.rand(30, generator=torch.Generator().manual_seed(seed)).mul(8).round().div(8).tolist()  # with ties
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.5, patience=plateau_epochs - 1, threshold=0, eps=0
    )
    golden = []
    for score in scores:
        golden += [optimizer.param_groups[0]["lr"]] * 3
        optimizer.step()
        scheduler.step(score)
    assert rates(config, scores) == pytest.approx(golden, rel=1e-12)


def test_plateau_by_hand() -> None:
    config = OptimizerConfig(schedule="plateau", plateau_epochs=2, plateau_factor=0.5, learning_rate=0.8)
    scores = [0.3, 0.3, 0.2, 0.4, 0.1, 0.1, 0.1, 0.1, float("nan")]
    assert rates(config, scores, steps_per_epoch=1) == [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.1]


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant", "step", "plateau"])
def test_a_phase_scales_its_schedule(schedule: str) -> None:
    config = OptimizerConfig(schedule=schedule, learning_rate=PEAK)
    scores = [0.5, *[0.1] * 11]
    assert rates(config, scores, factor=0.1) == pytest.approx([0.1 * rate for rate in rates(config, scores)])


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_without_a_factor_the_rates_are_those_of_the_function_bit_for_bit(schedule: str) -> None:
    config = OptimizerConfig(schedule=schedule, learning_rate=PEAK)
    assert rates(config, [0.0] * 10) == [learning_rate_at(step, 30, config) for step in range(30)]


def test_a_resumed_plateau_drops_when_the_uninterrupted_one_does() -> None:
    config = OptimizerConfig(schedule="plateau", plateau_epochs=3, learning_rate=PEAK)
    whole, resumed = Schedule(config, 100, 10), Schedule(config, 100, 10)
    for score in (0.5, 0.4, 0.4):
        whole.after_epoch(score)
    resumed.load_state_dict(whole.state_dict())
    for score in (0.4, 0.6, 0.1, 0.1, 0.1):
        for schedule in (whole, resumed):
            schedule.after_epoch(score)
        assert whole.learning_rate(0) == resumed.learning_rate(0)
    assert whole.learning_rate(0) == PEAK / 4

"""Optimizers: which parameters, which numbers, and what goes from one phase to the next."""

import copy

import pytest
import torch
from torch import nn

from fer_ray.config import OptimizerConfig
from fer_ray.training import optim

KINDS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def descend(module: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        optimizer.zero_grad()
        module(torch.randn(6, 4, generator=generator)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "options"),
    [("adamw", {}), ("adam", {}), ("sgd", {"momentum": 0.9, "nesterov": True}), ("sgd", {"momentum": 0.0})],
)
def test_steps_are_those_of_torch_bit_for_bit(name: str, options: dict) -> None:
    mine, golden = network(), network()
    config = OptimizerConfig(
        name=name, learning_rate=0.03, weight_decay=0.1, **{k: v for k, v in options.items() if k == "momentum"}
    )
    matrices = [p for p in golden.parameters() if p.ndim > 1]
    others = [p for p in golden.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    descend(mine, optim.build(mine, config), 5)
    descend(golden, KINDS[name](groups, lr=0.03, fused=True, **options), 5)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), golden.parameters(), strict=True))


def test_an_adam_step_worked_out_by_hand() -> None:
    # Bias-corrected, the first step of Adam is lr g / (|g| + 1e-8), lr itself, whatever the size of g.
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(2.0)
    optimizer = optim.build(module, OptimizerConfig(name="adam", learning_rate=0.1, weight_decay=0.0))
    (7 * module.weight.sum()).backward()
    optimizer.step()
    assert module.weight.item() == pytest.approx(1.9, abs=1e-6)


def test_only_what_requires_a_gradient_is_trained() -> None:
    module = network()
    module[0].requires_grad_(False)
    before = copy.deepcopy(module[0].state_dict())
    optimizer = optim.build(module, OptimizerConfig(name="sgd"))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    descend(module, optimizer, 3)
    assert all(torch.equal(value, before[name]) for name, value in module[0].state_dict().items())


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_a_phase_can_carry_the_state_of_the_one_before(name: str) -> None:
    config = OptimizerConfig(name=name, learning_rate=0.01)
    whole, phased = network(), network()
    one = optim.build(whole, config)
    descend(whole, one, 6)
    first = optim.build(phased, config)
    descend(phased, first, 6)
    second = optim.build(phased, config, first.state)
    for module, optimizer in ((whole, one), (phased, second)):
        descend(module, optimizer, 3, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), phased.parameters(), strict=True))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_parameters_that_join_in_a_later_phase_start_afresh_beside_those_carried(name: str) -> None:
    config = OptimizerConfig(name=name, learning_rate=0.01)
    module = network()
    module[0].requires_grad_(False)
    head = optim.build(module, config)
    descend(module, head, 4)
    module[0].requires_grad_(True)
    everything = optim.build(module, config, head.state)
    key = "momentum_buffer" if name == "sgd" else "exp_avg"
    assert torch.equal(everything.state[module[2].weight][key], head.state[module[2].weight][key])
    before = module[0].weight.detach().clone()
    descend(module, everything, 2, seed=1)
    assert not torch.equal(module[0].weight, before)
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_a_first_step_that_float16_skips_leaves_no_trace(name: str) -> None:
    # The scale starts at 65,536, so the first steps of a run often overflow.
    config = OptimizerConfig(name=name, learning_rate=0.01)
    skipped, plain = network(), network()
    optimizer = optim.build(skipped, config)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(skipped(torch.randn(6, 4)).sum() * torch.inf).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    skipped[1].load_state_dict(plain[1].state_dict())
    descend(skipped, optimizer, 3)
    descend(plain, optim.build(plain, config), 3)
    assert all(torch.equal(a, b) for a, b in zip(skipped.parameters(), plain.parameters(), strict=True))

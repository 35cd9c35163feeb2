"""The moving average of the weights against its closed form and torch's own."""

import io

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fer_ray.training.ema import Ema

DECAY = 0.9


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def disturb(module: nn.Module, seed: int) -> None:
    """Stands for a step: other weights, other running statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor += torch.randn(tensor.shape, generator=generator)
            else:
                tensor += 1


def test_the_average_is_its_closed_form_and_owes_nothing_to_the_initial_weights() -> None:
    module = network()
    ema = Ema(module, DECAY)
    seen = []
    for step in range(1, 6):
        disturb(module, step)
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        ema.update()
        shares = torch.tensor([DECAY ** (step - i) for i in range(1, step + 1)])
        shares /= shares.sum()
        for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
            golden = sum(share * w[name] for share, w in zip(shares, seen, strict=True))
            torch.testing.assert_close(ema.state_dict()["average"][name], golden, rtol=1e-5, atol=1e-6)


def test_torch_agrees_when_told_the_same_shares() -> None:
    module = network()

    def lerp(average: torch.Tensor, live: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        return average + (live - average) * (1 - DECAY) / (1 - DECAY ** (count + 1))

    ema, golden = Ema(module, DECAY), AveragedModel(module, avg_fn=lerp, use_buffers=True)
    for step in range(10):
        disturb(module, step)
        ema.update()
        golden.update_parameters(module)
    with ema.applied():
        for name, p in golden.module.named_parameters():
            torch.testing.assert_close(module.state_dict()[name], p.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(module[1].running_var, golden.module[1].running_var, rtol=1e-5, atol=1e-6)


def test_after_many_steps_it_is_the_plain_average() -> None:
    module = nn.Linear(1, 1, bias=False)
    ema, plain = Ema(module, DECAY), 0.0
    for step in range(200):
        with torch.no_grad():
            module.weight.fill_(float(step % 7))
        plain = DECAY * plain + (1 - DECAY) * (step % 7)
        ema.update()
    assert ema.state_dict()["average"]["weight"].item() == pytest.approx(plain, rel=1e-5)


def test_one_step_is_judged_on_its_own_weights_and_counters_are_copied() -> None:
    module = network()
    ema = Ema(module, 0.9999)
    disturb(module, 0)
    ema.update()
    average = ema.state_dict()["average"]
    assert all(torch.equal(tensor, average[name]) for name, tensor in module.state_dict().items())
    disturb(module, 1)
    ema.update()
    assert average["1.num_batches_tracked"].item() == 2


def test_the_networks_own_weights_come_back_bit_for_bit_after_an_error_too() -> None:
    module = network()
    ema = Ema(module, DECAY)
    for step in range(3):
        disturb(module, step)
        ema.update()
    own = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def judge() -> None:
        with ema.applied():
            average = ema.state_dict()["average"]
            assert all(torch.equal(tensor, average[name]) for name, tensor in module.state_dict().items())
            assert not torch.equal(module[0].weight, own["0.weight"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge()
    assert all(torch.equal(tensor, own[name]) for name, tensor in module.state_dict().items())


def test_it_goes_on_from_a_file_with_the_same_bits() -> None:
    module = network()
    ema = Ema(module, DECAY)
    disturb(module, 0)
    ema.update()
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    resumed = Ema(module, DECAY)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    disturb(module, 1)
    ema.update()
    resumed.update()
    for name, tensor in ema.state_dict()["average"].items():
        assert torch.equal(tensor, resumed.state_dict()["average"][name])

"""Sharpness-aware minimisation against steps worked out by hand and against the papers, written down independently."""

import copy

import pytest
import torch
from torch import nn

from fer_ray.config import RunConfig
from fer_ray.training import optim
from fer_ray.training.runtime import Runtime
from fer_ray.training.sam import perturbed
from fer_ray.training.step import Stepper

CPU = Runtime(torch.device("cpu"), 1, "float32")


def config(**values: object) -> RunConfig:
    defaults = {"training.max_gradient_norm": None, "optimizer.name": "sgd", "optimizer.weight_decay": 0.0}
    return RunConfig.from_flat({**defaults, **{f"optimizer.{key}": value for key, value in values.items()}})


def stepper(network: nn.Module, config: RunConfig, loss=nn.functional.cross_entropy, runtime: Runtime = CPU) -> Stepper:
    return Stepper(network, loss, config, runtime)


class Point(nn.Module):
    """A network that answers with its own weights, whatever it is shown."""

    def __init__(self, weight: list[float], bias: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.weight, self.bias]).expand(len(images), -1)


def bowl(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """f(w) = (w_1² + 4 w_2²) / 2, with gradient (w_1, 4 w_2)."""
    return (outputs**2 * torch.tensor([0.5, 2.0])).sum(1).mean()


def small_network() -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 3, 2, bias=False)  # a bias before a norm has no gradient but noise, which Adam grows
    return nn.Sequential(convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


def batches(count: int, size: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 3, 8, 8, generator=generator), torch.randint(0, 3, (size,), generator=generator))
        for _ in range(count)
    ]


def test_a_step_on_a_quadratic_worked_out_by_hand() -> None:
    # w = (3, 1): g = (3, 4), |g| = 5, e = .5 g / 5 = (.3, .4). At w + e = (3.3, 1.4) the gradient is (3.3, 5.6), so a
    # plain step of .1 goes to (3 - .33, 1 - .56).
    point = Point([3.0], [1.0])
    sam = stepper(point, config(learning_rate=0.1, momentum=0.0, sam_rho=0.5), bowl)
    loss, outputs = sam.step(torch.zeros(2, 1), torch.zeros(2))
    assert [point.weight.item(), point.bias.item()] == pytest.approx([2.67, 0.44], abs=1e-6)
    assert loss.item() == pytest.approx(6.5)  # 9/2 + 4/2, at w and not at w + e
    assert outputs.tolist() == [[3, 1], [3, 1]]


def test_an_adaptive_step_on_a_quadratic_worked_out_by_hand() -> None:
    # w = (2.99, 1), the first a weight with T = |w| + .01 = 3, the second a bias with T = 1: g = (2.99, 4),
    # Tg = (8.97, 4), |Tg| = 9.8214510, T²g = (26.91, 4), e = .5 T²g / |Tg| = (1.3699605, .2036359).
    point = Point([2.99], [1.0])
    sam = stepper(point, config(learning_rate=0.1, momentum=0.0, sam_rho=0.5, sam_adaptive=True), bowl)
    sam.step(torch.zeros(2, 1), torch.zeros(2))
    expected = [2.99 - 0.1 * (2.99 + 1.3699605), 1 - 0.1 * 4 * (1 + 0.2036359)]
    assert [point.weight.item(), point.bias.item()] == pytest.approx(expected, abs=1e-6)


def reference_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    target: torch.Tensor,
    rho: float,
    adaptive: bool,
) -> None:
    """The algorithm boxes of Foret et al. 2021 and Kwon et al. 2021, parameter by parameter in float64."""
    gradients = torch.autograd.grad(nn.functional.cross_entropy(network(images), target), list(network.parameters()))
    scales = [
        p.detach().double().abs() + 0.01 if adaptive and name.endswith("weight") else torch.tensor(1.0)
        for name, p in network.named_parameters()
    ]
    length = sum(((t * g.double()) ** 2).sum() for t, g in zip(scales, gradients, strict=True)) ** 0.5
    climbed = copy.deepcopy(network)
    for p, t, g in zip(climbed.parameters(), scales, gradients, strict=True):
        p.data += (rho * t**2 * g.double() / length).float()
    loss = nn.functional.cross_entropy(climbed(images), target)
    for p, g in zip(network.parameters(), torch.autograd.grad(loss, list(climbed.parameters())), strict=True):
        p.grad = g
    optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(("rho", "adaptive"), [(0.05, False), (0.5, True)])
def test_twenty_steps_agree_with_an_independent_implementation(name: str, rho: float, adaptive: bool) -> None:
    settings = config(name=name, learning_rate=0.01, weight_decay=0.01, sam_rho=rho, sam_adaptive=adaptive)
    mine = small_network()
    golden = copy.deepcopy(mine)
    optimizer = optim.build(golden, settings.optimizer)
    sam = stepper(mine, settings)
    for images, target in batches(20):
        sam.step(images, target)
        reference_step(golden, optimizer, images, target, rho, adaptive)
    for name_, value in golden.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name_], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_radius_of_0_is_the_base_optimizer_bit_for_bit(name: str) -> None:
    plain, sam = small_network(), small_network()
    settings = {"name": name, "learning_rate": 0.01}
    steppers = stepper(plain, config(**settings)), stepper(sam, config(**settings, sam_rho=0.0, sam_adaptive=True))
    for images, target in batches(3):
        for one in steppers:
            one.step(images, target)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), sam.state_dict().values(), strict=True))


def test_weights_come_back_bit_for_bit_after_an_error_too() -> None:
    network = small_network()
    images, target = batches(1)[0]
    nn.functional.cross_entropy(network(images), target).backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def climb() -> None:
        with perturbed(network, 0.3, adaptive=False):
            moved = sum((p.detach() - before[name]).square().sum() for name, p in network.named_parameters())
            assert moved.sqrt().item() == pytest.approx(0.3, rel=1e-5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        climb()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network[1].track_running_stats


def test_running_statistics_see_a_batch_once_and_at_the_weights_themselves() -> None:
    network = small_network()
    once = copy.deepcopy(network)
    images, target = batches(1)[0]
    once(images)
    stepper(network, config(learning_rate=0.1, sam_rho=0.5)).step(images, target)
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(network[1], key), getattr(once[1], key))


def test_frozen_parameters_are_neither_moved_nor_counted() -> None:
    # A gradient that an earlier phase left on a now frozen parameter must not lengthen |g|.
    network = small_network()
    for p in network[0].parameters():
        p.requires_grad_(False)
        p.grad = torch.full_like(p, 1e6)
    before = [p.clone() for p in network.parameters()]
    nn.functional.cross_entropy(network(batches(1)[0][0]), batches(1)[0][1]).backward()
    with perturbed(network, 0.3, adaptive=False):
        moved = [(p - b).square().sum() for p, b in zip(network.parameters(), before, strict=True)]
    assert moved[0] == 0
    assert sum(moved).sqrt().item() == pytest.approx(0.3, rel=1e-5)


def test_every_kth_step_is_one_of_sam_and_the_others_are_plain() -> None:
    shown = []
    network = small_network()
    network.register_forward_pre_hook(lambda module, inputs: shown.append(len(inputs[0])))
    sam = stepper(network, config(sam_rho=0.05, sam_every=3))
    for images, target in batches(7):
        sam.step(images, target)
    assert shown == [8, 8, 8, 8, 8, 8, 8, 8, 8, 8]  # two passes in steps 1, 4 and 7


@pytest.mark.parametrize(
    ("fraction", "parts", "sizes"),
    [(0.5, 1, [8, 4]), (0.55, 1, [8, 4]), (1.0, 2, [4, 4, 4, 4]), (0.5, 2, [4, 4, 4]), (0.75, 4, [2] * 7)],
)
def test_the_second_pass_takes_a_share_of_the_batch_in_parts_no_larger(
    fraction: float, parts: int, sizes: list[int]
) -> None:
    shown = []
    network = small_network()
    network.register_forward_pre_hook(lambda module, inputs: shown.append(len(inputs[0])))
    sam = stepper(network, config(sam_rho=0.05, sam_fraction=fraction, accumulation_steps=parts))
    _, outputs = sam.step(*batches(1)[0])
    assert shown == sizes
    assert outputs.shape == (8, 3)


def test_the_share_is_that_of_the_second_pass_only() -> None:
    # On a quadratic of the images: the climb follows all four images, the descent the first two.
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0]))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * self.weight

    network = Mean()
    settings = config(learning_rate=0.1, momentum=0.0, sam_rho=0.5, sam_fraction=0.5)
    images = torch.tensor([[1.0], [2.0], [-3.0], [-10.0]])
    target = torch.tensor([[0.0], [0.0], [0.0], [30.0]])
    # f_i = (x w - t)² / 2, gradient x (x w - t): 1, 4, 9, 400. The mean is positive: e = +.5.
    # At 1.5: 1.5, 6, mean 3.75.
    stepper(network, settings, lambda out, goal: ((out - goal) ** 2 / 2).mean()).step(images, target)
    assert network.weight.item() == pytest.approx(1 - 0.375, abs=1e-6)


def test_clipping_bounds_the_final_gradient() -> None:
    network = small_network()
    before = [p.detach().clone() for p in network.parameters()]
    settings = config(learning_rate=1.0, momentum=0.0, sam_rho=2.0).replace({"training.max_gradient_norm": 0.01})
    sam = stepper(network, settings)
    sam.step(*batches(1)[0])
    moved = sum((p.detach() - b).square().sum() for p, b in zip(network.parameters(), before, strict=True)).sqrt()
    assert sam.gradient_norm is not None
    assert sam.gradient_norm > 0.01
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_half_precision_follows_single_precision(precision: str, adaptive: bool) -> None:
    settings = config(learning_rate=0.01, momentum=0.0, sam_rho=0.5, sam_adaptive=adaptive)
    single, half = small_network(), small_network()
    start = torch.cat([p.detach().flatten().clone() for p in single.parameters()])
    steppers = stepper(single, settings), stepper(half, settings, runtime=Runtime(CPU.device, 1, precision))
    for images, target in batches(5):
        for one in steppers:
            one.step(images, target)
    moved = [torch.cat([p.detach().flatten() for p in n.parameters()]) - start for n in (single, half)]
    assert (moved[1] - moved[0]).norm() < 0.05 * moved[0].norm()


def test_an_overflow_of_the_first_pass_skips_the_step_and_halves_the_scale() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    sam = stepper(network, config(sam_rho=0.05, sam_fraction=0.5), runtime=Runtime(CPU.device, 1, "float16"))
    images, target = batches(1)[0]
    for _ in range(8):  # until the scale, 65,536 at first, suits
        sam.step(images, target)
    before = [p.detach().clone() for p in network.parameters()]
    scale = sam.state_dict()["scaler"]["scale"]
    images[7] *= 10_000  # finite in float16 itself; its scaled gradient is not, and the second pass never sees it
    loss, _ = sam.step(images, target)
    assert torch.isfinite(loss)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))
    assert sam.state_dict()["scaler"]["scale"] == scale / 2

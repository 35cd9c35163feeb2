"""One optimizer step in all its forms: plain, in parts, with an average, in half precision, resumed."""

import copy
import io
import itertools

import pytest
import torch
from torch import nn

from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.training import optim
from fer_ray.training.runtime import Runtime
from fer_ray.training.step import Stepper

CPU = Runtime(torch.device("cpu"), 1, "float32")


def config(**values: object) -> RunConfig:
    return RunConfig.from_flat({key.replace("__", "."): value for key, value in values.items()})


def network(norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), norm(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(36, 3))


def without_norm() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


def batches(count: int, size: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 3, 8, 8, generator=generator), torch.randint(0, 3, (size,), generator=generator))
        for _ in range(count)
    ]


def stepper(network: nn.Module, config: RunConfig, runtime: Runtime = CPU) -> Stepper:
    return Stepper(network, nn.functional.cross_entropy, config, runtime)


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_a_plain_step_is_the_textbook_loop_bit_for_bit(name: str) -> None:
    settings = config(optimizer__name=name, optimizer__learning_rate=0.05, training__max_gradient_norm=0.5)
    mine, golden = network(), network()
    optimizer = optim.build(golden, settings.optimizer)
    one = stepper(mine, settings)
    results = []
    torch.manual_seed(7)
    for images, target in batches(5):
        results.append(one.step(images, target))
    torch.manual_seed(7)
    for (images, target), (loss, outputs) in zip(batches(5), results, strict=True):
        logits = golden(images)
        expected = nn.functional.cross_entropy(logits, target)
        optimizer.zero_grad()
        expected.backward()
        nn.utils.clip_grad_norm_(golden.parameters(), 0.5)
        optimizer.step()
        assert torch.equal(loss, expected.detach())
        assert torch.equal(outputs, logits.detach())
        assert not loss.requires_grad
        assert not outputs.requires_grad
    assert equal(mine, golden)


@pytest.mark.parametrize(("size", "parts"), [(8, 2), (8, 3), (8, 8), (5, 8)])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(size: int, parts: int) -> None:
    images, target = batches(1, size)[0]
    settings = config(optimizer__name="sgd", training__max_gradient_norm=None)
    whole, cut = without_norm(), without_norm()
    loss, outputs = stepper(whole, settings).step(images, target)
    in_parts = stepper(cut, settings.replace({"optimizer.accumulation_steps": parts})).step(images, target)
    torch.testing.assert_close(in_parts[0], loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(in_parts[1], outputs, rtol=1e-6, atol=1e-6)
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)


def test_parts_are_seen_one_at_a_time() -> None:
    shown = []
    module = without_norm()
    module.register_forward_pre_hook(lambda _, inputs: shown.append(len(inputs[0])))
    stepper(module, config(optimizer__accumulation_steps=3)).step(*batches(1)[0])
    assert shown == [3, 3, 2]


@pytest.mark.parametrize(
    ("size", "values"),
    [
        (1, {}),
        (4, {"optimizer__accumulation_steps": 3}),
        (8, {"optimizer__sam_rho": 0.1, "optimizer__sam_fraction": 0.1}),
    ],
)
def test_a_batch_norm_that_would_see_one_image_is_an_error(size: int, values: dict) -> None:
    module, settings = network(), config(training__batch_size=8, **values)
    before = copy.deepcopy(module)
    with pytest.raises(UserError, match=r"batch norm .*one image.*training\.batch_size 8.*larger batches or fewer"):
        stepper(module, settings).step(*batches(1, size)[0])
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before.parameters(), strict=True))


def test_one_image_trains_a_network_without_batch_norms_or_with_frozen_ones() -> None:
    frozen = network()
    frozen[1].eval().requires_grad_(False)
    statistics = frozen[1].running_mean.clone()
    for module in (without_norm(), network(lambda channels: nn.GroupNorm(1, channels)), frozen):
        loss, _ = stepper(module, config()).step(*batches(1, 1)[0])
        assert torch.isfinite(loss)
    assert torch.equal(frozen[1].running_mean, statistics)


def test_the_gradient_norm_is_that_before_clipping() -> None:
    module, clipped = without_norm(), stepper(without_norm(), config(training__max_gradient_norm=1e-3))
    images, target = batches(1)[0]
    nn.functional.cross_entropy(module(images), target).backward()
    golden = torch.cat([p.grad.flatten() for p in module.parameters()]).norm()
    clipped.step(images, target)
    assert clipped.gradient_norm is not None
    assert clipped.gradient_norm.item() == pytest.approx(golden.item(), rel=1e-5)


def test_gradients_left_on_a_frozen_part_are_not_counted() -> None:
    module = without_norm()
    module[0].requires_grad_(False)
    module[0].weight.grad = torch.full_like(module[0].weight, 1e6)
    one = stepper(module, config())
    one.step(*batches(1)[0])
    assert one.gradient_norm is not None
    assert one.gradient_norm < 100


def test_judged_are_the_averaged_weights_or_the_networks_own() -> None:
    plain, averaged = network(), network()
    steppers = stepper(plain, config()), stepper(averaged, config(optimizer__ema_decay=0.9))
    for images, target in batches(4):
        for one in steppers:
            torch.manual_seed(0)
            one.step(images, target)
    assert equal(plain, averaged)
    with steppers[0].evaluation_weights(), steppers[1].evaluation_weights():
        assert not torch.equal(plain[0].weight, averaged[0].weight)
        torch.testing.assert_close(plain[0].weight, averaged[0].weight, atol=0.05, rtol=0)
    assert equal(plain, averaged)


def test_a_phase_carries_the_moments_or_starts_afresh() -> None:
    settings = config(optimizer__name="adamw")
    networks = [without_norm() for _ in range(3)]
    steppers = [stepper(module, settings) for module in networks]
    for one in steppers:
        for images, target in batches(3):
            one.step(images, target)
    carried = Stepper(networks[1], nn.functional.cross_entropy, settings, CPU, carried=steppers[1].optimizer_state())
    fresh = stepper(networks[2], settings)
    for one in (steppers[0], carried, fresh):
        one.step(*batches(4)[3])
    assert equal(networks[0], networks[1])
    assert not equal(networks[0], networks[2])


def test_the_learning_rate_is_that_of_the_step() -> None:
    module = without_norm()
    one = stepper(module, config(optimizer__name="sgd", optimizer__momentum=0.0, optimizer__weight_decay=0.0))
    before = copy.deepcopy(module)
    one.set_learning_rate(0.0)
    one.step(*batches(1)[0])
    assert equal(module, before)
    one.set_learning_rate(0.5)
    one.step(*batches(1)[0])
    for p, b in zip(module.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), b.detach() - 0.5 * p.grad)


def test_float16_skips_a_step_that_overflows_and_lowers_the_scale() -> None:
    module = without_norm()
    one = stepper(module, config(optimizer__name="sgd"), Runtime(CPU.device, 1, "float16"))
    images, target = batches(1)[0]
    before = copy.deepcopy(module)
    loss, _ = one.step(images * 10_000, target)
    assert torch.isfinite(loss)
    assert equal(module, before)
    assert one.state_dict()["scaler"]["scale"] == 65_536 / 2
    one.step(images, target)
    assert not equal(module, before)
    assert all(torch.isfinite(p).all() for p in module.parameters())
    resumed = stepper(module, config(optimizer__name="sgd"), Runtime(CPU.device, 1, "float16"))
    resumed.load_state_dict(one.state_dict())
    assert resumed.state_dict()["scaler"] == one.state_dict()["scaler"]


def test_float16_clips_gradients_that_are_no_longer_scaled() -> None:
    single, half = without_norm(), without_norm()
    steppers = stepper(single, config()), stepper(half, config(), Runtime(CPU.device, 1, "float16"))
    norms = []
    for one in steppers:
        one.step(*batches(1)[0])
        assert one.gradient_norm is not None
        norms.append(one.gradient_norm.item())
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_single_precision_outputs_and_unscaled_gradients(precision: str) -> None:
    single, half = without_norm(), without_norm()
    settings = config(training__max_gradient_norm=None)
    images, target = batches(1)[0]
    stepper(single, settings).step(images, target)
    _, outputs = stepper(half, settings, Runtime(CPU.device, 1, precision)).step(images, target)
    assert outputs.dtype == torch.float32
    for a, b in zip(single.parameters(), half.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=0.02, rtol=0.05)


FORMS = [
    {f"optimizer__{key}": value for key, value in {"name": name, **sam, **ema, **parts}.items()}
    for name, sam, ema, parts in itertools.product(
        ["sgd", "adamw"],
        [{}, {"sam_rho": 0.1, "sam_every": 2}, {"sam_rho": 0.5, "sam_adaptive": True, "sam_fraction": 0.5}],
        [{}, {"ema_decay": 0.8}],
        [{}, {"accumulation_steps": 2}],
    )
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_run_stopped_at_a_step_and_continued_has_the_same_bits(form: dict, precision: str) -> None:
    settings, runtime = config(**form), Runtime(CPU.device, 1, precision)
    steps = batches(6)
    whole = network()
    uninterrupted = stepper(whole, settings, runtime)
    torch.manual_seed(3)
    for number, (images, target) in enumerate(steps):
        if number == 3:
            file = io.BytesIO()
            torch.save((whole.state_dict(), uninterrupted.state_dict(), torch.get_rng_state()), file)
            file.seek(0)
        uninterrupted.step(images, target)
    torch.manual_seed(99)
    weights, state, generator = torch.load(file, weights_only=True)
    module = network()
    module.load_state_dict(weights)
    resumed = stepper(module, settings, runtime)
    resumed.load_state_dict(state)
    torch.set_rng_state(generator)
    for images, target in steps[3:]:
        resumed.step(images, target)
    assert equal(module, whole)
    with uninterrupted.evaluation_weights(), resumed.evaluation_weights():
        assert equal(module, whole)

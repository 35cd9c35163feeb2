"""What a run executes on: "auto" resolved, and requests that the machine cannot meet."""

import pytest
import torch

from fer_ray.config import RuntimeConfig
from fer_ray.errors import UserError
from fer_ray.training.runtime import Runtime, resolve


def on_cpu(**values: object) -> Runtime:
    return resolve(RuntimeConfig(device="cpu", threads=1, **values))


def test_auto_is_single_precision_and_channels_last_on_the_cpu() -> None:
    runtime = on_cpu()
    assert runtime == Runtime(torch.device("cpu"), 1, "float32", "channels_last", False)
    assert runtime.memory_format == torch.channels_last
    assert on_cpu(layout="contiguous").memory_format == torch.contiguous_format


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_networks_run_in_the_precision_that_was_asked_for(precision: str, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(2, 2)
    with Runtime(torch.device("cpu"), 1, precision).autocast():
        assert layer(torch.zeros(1, 2)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_float16_without_a_gpu_is_an_error_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"runtime\.precision: float16 needs a GPU, got cpu; take auto"):
        on_cpu(precision="float16")


def test_compiling_without_a_compiler_is_an_error_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        UserError, match=r"runtime\.compile: torch\.compile needs a C\+\+ compiler \(no-such-compiler\)"
    ):
        on_cpu(compile=True)


def test_compiling_is_resolved_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "true")  # a program that every machine has
    assert on_cpu(compile=True).compiled
    assert not on_cpu().compiled


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_a_network_is_placed_in_the_layout_with_its_numbers_unchanged(layout: str) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    before = network[0].weight.detach().clone()
    assert on_cpu(layout=layout).place(network) is network
    assert network[0].weight.is_contiguous(memory_format=on_cpu(layout=layout).memory_format)
    assert torch.equal(network[0].weight, before)

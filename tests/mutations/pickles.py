"""Pickles: programs that call something, and whole snapshots of a generator in the official format."""

import functools
import os
import pickle
import random
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

from fer_ray.synthesis.stylegan2 import Generator
from fer_ray.synthesis.stylegan2_layers import Shape
from mutations.files import MARKER, Files


class Call:
    """Pickled as a call of `function`, whatever that is."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.reduced


PAYLOADS = (
    Call(os.system, f"touch {MARKER}"),
    Call(eval, f"open({MARKER!r}, 'w')"),
    Call(exec, f"open({MARKER!r}, 'w')"),
    Call(getattr, [], "append"),
    Call(open, MARKER, "w"),
    Call(torch.load, MARKER),
    Call(bytearray, 10**10),
)


def persisted(module: torch.nn.Module, attributes: Callable[[str], dict[str, Any]], name: str = "") -> Call:
    """A module as the official implementation pickles it, with a program for those who would run it."""
    children = {key: persisted(child, attributes, f"{name}.{key}") for key, child in module._modules.items() if child}
    state = {"_parameters": dict(module._parameters), "_buffers": dict(module._buffers), "_modules": children}
    source = f"open({MARKER!r}, 'w')"
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": type(module).__name__}
    return Call(_reconstruct(), {**meta, "state": {**state, **attributes(name)}})


def _reconstruct() -> Callable[..., Any]:
    # Pickle looks a function up where it says that it lives.
    for name in ("torch_utils", "torch_utils.persistence"):
        sys.modules.setdefault(name, types.ModuleType(name))
    module = sys.modules["torch_utils.persistence"]
    if not hasattr(module, "_reconstruct_persistent_obj"):

        def _reconstruct_persistent_obj(meta: Any) -> None: ...

        _reconstruct_persistent_obj.__module__ = module.__name__
        _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
        module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    return module._reconstruct_persistent_obj


@functools.cache
def generator_pickle(protocol: int, **injected: int) -> bytes:
    """A small snapshot in the official format; `injected` names an entry and the payload beside the generator."""
    torch.manual_seed(0)
    size = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_resolution": 8, "img_channels": 1}
    shape = Shape(
        **size, embed_dim=0, mapping_dims=(4, 4), channels=(4, 4), architecture="skip", mapping_multiplier=0.01,
        conv_clamp=None,
    )  # fmt: skip
    generator = Generator(shape)
    for values in generator.state_dict().values():
        values.normal_()

    def attributes(name: str) -> dict[str, Any]:
        layer = name.rpartition(".")[2]
        if not name:
            return {**size, "num_ws": 4}
        if layer == "mapping":
            return {"num_layers": 2}
        if layer in ("b4", "b8"):
            return {"architecture": "skip"}
        if layer.startswith("conv"):
            return {"conv_clamp": None, "use_noise": True, "activation": "lrelu"}
        return {"conv_clamp": None} if layer == "torgb" else {"bias_gain": 0.01} if layer.startswith("fc") else {}

    payloads = {name: PAYLOADS[number] for name, number in injected.items()}
    snapshot = {"training_set_kwargs": {"path": "x"}, **payloads, "G_ema": persisted(generator, attributes)}
    return pickle.dumps(snapshot, protocol)


def snapshot(rng: random.Random) -> Files:
    return {"network.pkl": generator_pickle(rng.choice([2, 4, 5]))}


def networks(rng: random.Random) -> Files:
    return {"networks.yaml": b"happy: a.pkl\nsad: sub/../a.pkl\n", "a.pkl": generator_pickle(2), "sub/x": b""}

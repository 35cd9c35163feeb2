"""Weights from a file: read without running what it carries, matched by name and shape, told in a report.

Nothing is unpickled beyond tensors and plain containers (`torch.load(weights_only=True)`, safetensors).
"""

import difflib
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fer_ray.errors import UserError
from fer_ray.models.network import Network
from fer_ray.models.stems import first_convolution

SUFFIXES = (".pt", ".pth", ".safetensors")
WRAPPERS = ("model_state_dict", "state_dict", "model", "module")
PREFIXES = ("module.", "model.")
COUNTER = "num_batches_tracked"

LEAST_SHARE = 0.8
"""Of a backbone's parameters that a file must have. Less is another network, and training would not start from it."""

SHOWN = 4
"""Names that a line of the report shows."""

STRUCTURE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error)
DAMAGE = (RuntimeError, OSError, EOFError, MemoryError, *STRUCTURE)
"""What torch raises on a damaged file beside unpickling errors; a wrong length in it asks for too much memory."""

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class LoadReport:
    """What a weights file brought into a network, by the names of the network's state dict.

    Counters of batches (`num_batches_tracked`) are neither loaded nor told: nothing here uses them.

    Attributes:
        matched: what was loaded.
        missing: parts of the network that the file does not have; they keep their initial values.
        unexpected: names in the file that the network has no place for; left out.
        wrong_shape: "name: file [8, 512], network [7, 512]"; left out, so the initial values stay.
        notes: what was changed on the way.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every tensor of the network came from the file."""
        return not self.missing and not self.wrong_shape

    def lines(self) -> list[str]:
        """The report for people: a line per kind of finding, with the first few names of each."""
        expected = len(self.matched) + len(self.missing) + len(self.wrong_shape)
        findings = [f"{len(self.matched)} of the network's {expected} tensors loaded"]
        for label, names in (
            ("not in the file, so as initialised", self.missing),
            ("of another shape, so as initialised", self.wrong_shape),
            ("in the file only, left out", self.unexpected),
        ):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                findings.append(f"{len(names)} {label}: {', '.join(names[:SHOWN])}{more}")
        return [*findings, *self.notes]


def check_name(value: str) -> str:
    """`value` itself, of `model.weights`. Raises UserError unless it is none, imagenet, or an existing file."""
    if value in ("none", "imagenet"):
        return value
    path = Path(value)
    if path.suffix.lower() not in SUFFIXES:
        hint = "; did you mean 'imagenet'?" if difflib.get_close_matches(value.casefold(), ["imagenet"]) else ""
        raise UserError(
            f"model.weights: got {value!r}, expected none, imagenet, or a file ({', '.join(SUFFIXES)}){hint}"
        )
    if not path.is_file():
        raise UserError(f"model.weights: there is no file {value}")
    return value


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in a .pt, .pth or .safetensors file: name -> tensor on the CPU.

    It may be nested (under `model_state_dict`, `state_dict`, `model` or `module`); the prefixes of DataParallel,
    Lightning and torch.compile are taken off the names. Raises UserError when the file is missing, damaged, carries
    code, or holds no tensors.
    """
    path = Path(check_name(str(path)))
    state = {name.replace("_orig_mod.", ""): value for name, value in _unwrapped(_content(path), path).items()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _content(path: Path) -> Any:
    damaged = "it is damaged, or no weights file; copy or save it again"
    remedy = "in the program that made it, save the tensors alone: torch.save(model.state_dict(), PATH)"
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise UserError(f"model.weights: cannot read {path} ({error}): {damaged}") from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not named:
            raise UserError(f"model.weights: cannot read {path}: {damaged}") from error
        raise UserError(
            f"model.weights: {path} is refused: it holds {named[1]} and not tensors alone, and reading that would run "
            f"code; {remedy}"
        ) from error
    except DAMAGE as error:
        if "TorchScript" in str(error):
            raise UserError(f"model.weights: {path} is refused: it is a TorchScript program; {remedy}") from error
        raise UserError(f"model.weights: cannot read {path} ({type(error).__name__}): {damaged}") from error


def _unwrapped(content: Any, path: Path) -> State:
    """The tensors of the innermost known wrapper."""
    for _ in WRAPPERS:  # a bound: a pickled dict may hold itself
        inner = [
            content[key] for key in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)
        ]
        content = inner[0] if inner else content
    items = content.items() if isinstance(content, Mapping) else ()
    state = {name: value for name, value in items if isinstance(name, str) and _is_plain(value)}
    if not state:
        keys = ", ".join(str(name) for name, _ in list(items)[:SHOWN])
        raise UserError(
            f"model.weights: {path} holds no state dict (found {f'keys {keys}' if keys else type(content).__name__}); "
            f"expected name -> tensor, at the top or under {', '.join(WRAPPERS)}"
        )
    return state


def _is_plain(value: Any) -> bool:
    """A dense real tensor with values."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized or value.is_complex())
    )


def backbone_share(network: Network, state: State) -> float:
    """The share of the backbone's parameters, 0 to 1, that the file has under the same name and in the same shape."""
    return _share(network, _placed(network, state))


def load(network: Network, state: State, source: str | Path) -> LoadReport:
    """Copies what fits into the network; `source` names the file in messages.

    The file's names are those of `Network`, or those of the bare backbone beside a classifier of any name, whose layers
    are then taken in their order. Raises UserError, and changes nothing, when the file has less than LEAST_SHARE of the
    backbone's parameters, was made for other input channels, or has values that are not finite.
    """
    placed = _placed(network, state)
    note = _fit_channels(network, placed, source)
    own = _own(network)
    fitting = [name for name in own if name in placed and placed[name].shape == own[name].shape]
    report = LoadReport(
        matched=tuple(fitting),
        missing=tuple(name for name in own if name not in placed),
        unexpected=tuple(name.removeprefix("backbone.") for name in placed if name not in own),
        wrong_shape=tuple(
            f"{name}: file {list(placed[name].shape)}, network {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in placed and placed[name].shape != tensor.shape
        ),
        notes=(note,) if note else (),
    )
    share = _share(network, placed)
    if share < LEAST_SHARE:
        raise UserError(
            f"model.weights: {source} has {share:.0%} of the backbone's parameters, expected {LEAST_SHARE:.0%} or more "
            f"({_misfit(report)}); choose the model.name that it was made with"
        )
    for name in fitting:
        if not placed[name].float().isfinite().all():
            raise UserError(f"model.weights: {source}: {name} is not finite; the training that wrote it had failed")
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(placed[name])
    return report


def _own(network: Network) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if not name.endswith(COUNTER)}


def _placed(network: Network, state: State) -> dict[str, torch.Tensor]:
    """The file's tensors under the network's names, where it has a place for them."""
    own = _own(network)
    prefix = "" if any(name.startswith("backbone.") and name in own for name in state) else "backbone."
    placed = {f"{prefix}{name}": value for name, value in state.items() if not name.endswith(COUNTER)}
    classifier = sorted((name for name in placed if name not in own), key=_natural)
    head = sorted((name for name in own if name.startswith("head.") and name not in placed), key=_natural)
    if len(classifier) == len(head):
        for name, stranger in zip(head, classifier, strict=True):
            placed[name] = placed.pop(stranger)
    return placed


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts the layers of a chain by their numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _share(network: Network, placed: State) -> float:
    parameters = dict(network.backbone.named_parameters(prefix="backbone"))
    found = sum(p.numel() for name, p in parameters.items() if name in placed and placed[name].shape == p.shape)
    return found / sum(p.numel() for p in parameters.values())


def _fit_channels(network: Network, placed: dict[str, torch.Tensor], source: str | Path) -> str | None:
    """Brings the first kernels of a file for colour images to a network for grey ones, in place, and says so."""
    layer, convolution = first_convolution(network.backbone)
    name, wanted = f"backbone.{layer}.weight", convolution.weight.shape
    found = placed[name].shape if name in placed else wanted
    if found == wanted or len(found) != len(wanted) or found[2:] != wanted[2:]:
        return None
    if (found[1], wanted[1]) == (3, 1):
        placed[name] = placed[name].sum(1, keepdim=True)
        return f"{name}: the kernels of 3 input channels were summed into 1, which is the same for grey images"
    if (found[1], wanted[1]) == (1, 3):
        raise UserError(f"model.channels: got 3, but {source} is for images of 1 channel; set model.channels=1")
    return None


def _misfit(report: LoadReport) -> str:
    """The closest reason why a file does not fit."""
    if report.wrong_shape:
        return f"shapes differ, e.g. {report.wrong_shape[0]}"
    expected = f"the network has e.g. {report.missing[0].removeprefix('backbone.')}"
    return expected + (f", the file e.g. {report.unexpected[0]}" if report.unexpected else "")

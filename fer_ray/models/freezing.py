"""Which part of a network is trained. What is frozen neither gets gradients nor moves its statistics.

A layer here is a module with weights or statistics of its own: a convolution, a linear layer, a norm (whether it has
scale and shift or not), a block with a scale of its own (ConvNeXt). Layers count in the order of definition, which is
the order of the state dict. Activations, pooling and dropout are not counted, as they have nothing to train.
"""

from torch import nn

from fer_ray.errors import UserError, nearest
from fer_ray.models.network import Network

HINT_DEPTH = 2
"""Levels of block names that an error names; deeper ones are known all the same."""


def layers(network: Network) -> dict[str, nn.Module]:
    """Name -> layer, in the order of definition: backbone, then head. Weights that are shared count once."""
    return {
        name: module
        for name, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))
    }


def set_trainable(network: Network, part: str) -> None:
    """Sets `requires_grad` of all parameters: True in `part`, False elsewhere.

    `part` is "all"; "head"; "last-N", the last N layers with those of the head among them, so that a small N trains a
    part of the head alone; or "from-BLOCK", the backbone from the named block on (e.g. from-layer4, from-blocks.5), and
    the head. Raises UserError on a block or a number of layers that the network does not have.
    """
    names = list(layers(network))
    if part == "all":
        first = 0
    elif part == "head":
        first = next(i for i, name in enumerate(names) if name.startswith("head."))
    elif part.startswith("last-"):
        first = len(names) - int(part.removeprefix("last-"))
        if first < 0:
            raise UserError(
                f"training.phases: {part} asks for more layers than the {len(names)} of this network; "
                f"name fewer, or train all"
            )
    else:
        first = _start_of(part.removeprefix("from-"), names)
    trained = set(names[first:])
    for name, layer in layers(network).items():
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(name in trained)


def _start_of(block: str, names: list[str]) -> int:
    """The index of the first layer of a block of the backbone."""
    path = f"backbone.{block}"
    for i, name in enumerate(names):
        if name == path or name.startswith(f"{path}."):
            return i
    paths = [name.split(".")[1:] for name in names if name.startswith("backbone.")]
    known = dict.fromkeys(".".join(path[:depth]) for path in paths for depth in range(1, HINT_DEPTH + 1))
    raise UserError(f"training.phases: from-{block}: this network has no block {block!r}{nearest(block, known)}")


def train_mode(network: Network) -> None:
    """Training mode where something is trained, eval mode in what is frozen.

    A module with parameters is in training mode if one of them, at any depth, is trained: a frozen batch norm uses its
    statistics and does not move them. A module without parameters (dropout, stochastic depth, a norm without scale)
    does as the module around it.
    """
    _set_mode(network, inherited=True)


def _set_mode(module: nn.Module, inherited: bool) -> None:
    parameters = list(module.parameters())
    module.training = any(parameter.requires_grad for parameter in parameters) if parameters else inherited
    for child in module.children():
        _set_mode(child, module.training)

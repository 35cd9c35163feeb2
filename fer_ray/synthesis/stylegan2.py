"""StyleGAN2-ADA: the generator `G_ema` of an official snapshot, checked and rebuilt, and faces drawn from it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_ray.errors import UserError
from fer_ray.synthesis import safe_pickle
from fer_ray.synthesis.pickle_machine import shown
from fer_ray.synthesis.safe_pickle import PersistentObject
from fer_ray.synthesis.stylegan2_layers import ARCHITECTURES, Mapping, Noise, Shape, Synthesis

NOISE_MODES = ("const", "none", "random")
"""The per-pixel noise stored in the snapshot, none, or new noise for each face."""

_MAX_DIM = 8192  # of latent vectors and feature maps; official ones have 512
_MAX_MODULES = 500  # of a generator; 1024 x 1024 pixels need 71
_RESOLUTIONS = tuple(2**power for power in range(2, 11))


class Generator(nn.Module):
    """Mapping and synthesis network.

    Attributes: `z_dim`, `c_dim`, `w_dim`, `img_resolution`, `img_channels` and `num_ws`, as in official generators.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = shape.z_dim, shape.c_dim, shape.w_dim, shape.num_ws
        self.img_resolution, self.img_channels = shape.img_resolution, shape.img_channels
        self.mapping = Mapping(shape)
        self.synthesis = Synthesis(shape)

    @torch.inference_mode()
    def forward(
        self,
        z: Tensor,
        c: Tensor,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        """Images from latent vectors, float32 [n, img_channels, img_resolution, img_resolution], about -1 to 1.

        Args:
            z: float32 [n, z_dim], normally distributed.
            c: float32 [n, c_dim], one-hot classes.
            psi: 1 keeps the style vectors, 0 makes all of them the mean one: less variety, fewer failures.
            cutoff: how many of an image's `num_ws` style vectors psi changes; None for all.
            noise: see `stylegan2_layers.Noise`.
        """
        # TensorFloat-32 has 10 bits of mantissa, too few for bytes that agree with the official ones.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.synthesis(self.mapping(z, c, psi, cutoff), noise)


def load_generator(path: Path) -> Generator:
    """The generator `G_ema` of a snapshot `.pkl`, on the CPU, ready to use.

    Raises UserError, naming the file, when it is no snapshot of StyleGAN2-ADA (PyTorch) or lacks a tensor, has one too
    many or one of another shape.
    """
    snapshot = safe_pickle.read(path)
    if not isinstance(snapshot, dict) or "G_ema" not in snapshot:
        raise UserError(f"{path} holds no G_ema; expected a StyleGAN2-ADA snapshot such as network-snapshot-000800.pkl")
    try:
        modules = dict(_modules("", snapshot["G_ema"]))
        tensors = dict(_tensors(modules))
        with torch.device("meta"):  # shapes alone: no memory by what a file declares
            generator = Generator(_shape(modules, tensors))
        expected = generator.state_dict()
    except (LookupError, TypeError, ValueError) as error:
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{path}: G_ema is not a generator of StyleGAN2-ADA as the official implementation makes it: "
            f"{shown(reason)}"
        ) from error
    if sum(values.nbytes for values in tensors.values()) > path.stat().st_size:
        raise UserError(f"{path}: the tensors of G_ema are larger than the file; it is damaged, or made to do harm")
    for name in sorted(expected.keys() | tensors.keys()):
        wanted = tuple(expected[name].shape) if name in expected else "no such tensor"
        found = tensors[name].shape if name in tensors else "none"
        if wanted != found:
            raise UserError(f"{path}: tensor {shown(name)} of G_ema: expected {wanted}, found {found}")
    loaded = {name: torch.from_numpy(values.astype(np.float32)) for name, values in tensors.items()}
    if broken := [name for name, values in loaded.items() if not values.isfinite().all()]:
        raise UserError(f"{path}: tensor {broken[0]} of G_ema holds values that are not finite; take another snapshot")
    generator.load_state_dict(loaded, assign=True)
    return generator.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def draw(
    generator: Generator, numbers: Sequence[int], *, name: str, label: int | None, seed: int, psi: float, noise: str
) -> np.ndarray:
    """Faces of one class, uint8 [n, H, W, C], scaled as the official `generate.py` does.

    A face's latent vector (and noise, if random) depends on the seed, the class's name and its number, and on nothing
    else.

    Args:
        generator: on the device that shall do the work.
        numbers: which faces.
        name: the class.
        label: index of the class for a conditional generator, None for an unconditional one.
        seed: 0 to 2^32 - 1.
        psi: truncation, see `Generator.forward`.
        noise: one of NOISE_MODES.
    """
    streams = [np.random.RandomState([seed, number, *name.encode()]) for number in numbers]
    z = torch.from_numpy(np.stack([stream.randn(generator.z_dim) for stream in streams]).astype(np.float32))
    c = torch.zeros(len(numbers), generator.c_dim)
    if label is not None:
        c[:, label] = 1
    device = generator.mapping.w_avg.device
    mode: Noise = "const" if noise == "const" else "none"
    if noise == "random":
        mode = [torch.Generator().manual_seed(int(stream.randint(2**31))) for stream in streams]
    images = generator(z.to(device), c.to(device), psi=psi, noise=mode)
    return (images.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8).cpu().numpy()


def _modules(name: str, module: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every module under its dotted name, with its `__dict__`."""
    waiting = [(name, module)]
    for _ in range(_MAX_MODULES):
        if not waiting:
            return
        name, module = waiting.pop()
        if not isinstance(module, PersistentObject):
            raise ValueError(f"{name or 'G_ema'} is a {type(module).__name__}, expected a module")
        yield name, module.state
        prefix = f"{name}." if name else ""
        waiting += [(prefix + child, value) for child, value in dict(module.state["_modules"]).items()]
    raise ValueError(f"it has more than {_MAX_MODULES} modules")


def _tensors(modules: dict[str, dict[str, Any]]) -> Iterator[tuple[str, np.ndarray]]:
    for module_name, state in modules.items():
        for name, values in {**state["_parameters"], **state["_buffers"]}.items():
            if values is None:  # a layer without a bias
                continue
            if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
                raise ValueError(f"{module_name}.{name} is not a tensor of floating-point numbers")
            yield f"{module_name}.{name}", values


def _shape(modules: dict[str, dict[str, Any]], tensors: dict[str, np.ndarray]) -> Shape:
    """What the modules' attributes and tensors say. Raises ValueError where that is not what they should."""
    top, mapping = modules[""], modules["mapping"]
    resolution = top["img_resolution"]
    _one_of("img_resolution", resolution, _RESOLUTIONS)
    names = [f"b{side}" for side in _RESOLUTIONS if side <= resolution]
    blocks = [modules[f"synthesis.{name}"] for name in names]
    layers = [state for name, state in modules.items() if "conv_clamp" in state and not name.endswith(".skip")]
    convolutions = [state for state in layers if "use_noise" in state]
    multiplier = modules["mapping.fc0"]["bias_gain"]
    clamp = layers[0]["conv_clamp"]
    _same("activation", convolutions, "lrelu")
    _same("use_noise", convolutions, True)
    _same("conv_clamp", layers, clamp)
    _same("architecture", blocks, blocks[0]["architecture"])
    _one_of("architecture", blocks[0]["architecture"], ARCHITECTURES)
    _one_of("img_channels", top["img_channels"], (1, 3))
    if not (clamp is None or 0 < clamp < 1e9) or not 0 < multiplier <= 1e3:
        raise ValueError(f"conv_clamp {shown(clamp)}, learning rate multiplier {shown(multiplier)}")
    num_layers = _dimension("num_layers", mapping["num_layers"])
    shape = Shape(
        z_dim=_dimension("z_dim", top["z_dim"]),
        c_dim=_dimension("c_dim", top["c_dim"], least=0),
        w_dim=_dimension("w_dim", top["w_dim"]),
        img_resolution=resolution,
        img_channels=top["img_channels"],
        embed_dim=tensors["mapping.embed.bias"].size if top["c_dim"] else 0,
        mapping_dims=tuple(tensors[f"mapping.fc{index}.bias"].size for index in range(num_layers)),
        channels=tuple(tensors[f"synthesis.{name}.conv1.bias"].size for name in names),
        architecture=blocks[0]["architecture"],
        mapping_multiplier=multiplier,
        conv_clamp=clamp,
    )
    _one_of("num_ws", top["num_ws"], (shape.num_ws,))
    return shape


def _same(key: str, states: list[dict[str, Any]], expected: Any) -> None:
    for state in states:
        _one_of(key, state[key], (expected,))


def _one_of(key: str, value: Any, expected: tuple[Any, ...]) -> None:
    if not any(type(value) is type(item) and value == item for item in expected):
        raise ValueError(f"{key} {shown(value)}, expected {' or '.join(map(shown, expected))}")


def _dimension(key: str, value: Any, least: int = 1) -> int:
    if type(value) is not int or not least <= value <= _MAX_DIM:
        raise ValueError(f"{key} {shown(value)}, expected {least} to {_MAX_DIM}")
    return value

"""The machine under a run: seeds, device, threads, precision, memory, and the facts that a row records."""

import contextlib
import gc
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch

from fer_ray import __version__
from fer_ray.config import RuntimeConfig
from fer_ray.errors import UserError

Network = TypeVar("Network", bound=torch.nn.Module)

PACKAGES = ("torch", "torchvision", "timm", "numpy", "ray", "optuna")

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]
COMMIT_FILE = "commit.json"
"""In a copy of the package that was sent to a cluster: which commit it was made from."""


@dataclass(frozen=True)
class Runtime:
    """What a run executes on, with every "auto" resolved.

    Attributes:
        precision: "float32", "bfloat16" or "float16", of the network's activations; weights are float32.
        layout: "channels_last" or "contiguous", of images and kernels.
        compiled: whether the network goes through torch.compile.
    """

    device: torch.device
    threads: int
    precision: str
    layout: str = "channels_last"
    compiled: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """`layout` as torch names it."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    def place(self, network: Network) -> Network:
        """The network itself, on the device and in the layout."""
        return network.to(memory_format=self.memory_format).to(self.device)

    def autocast(self) -> torch.autocast:
        """The context in which the network runs."""
        dtype = torch.float16 if self.precision == "float16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "float32")


def resolve(config: RuntimeConfig) -> Runtime:
    """Chooses device, threads, precision and layout, and sets the threads of this process.

    Raises UserError when a GPU was asked for and cannot be used, or is there but broken; for float16 without a GPU;
    and when torch.compile lacks its compiler.
    """
    device = find_device(config.device)
    threads = len(os.sched_getaffinity(0)) if config.threads == "auto" else config.threads
    torch.set_num_threads(threads)
    bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    precision = ("bfloat16" if bfloat16 else "float32") if config.precision == "auto" else config.precision
    if precision == "float16" and device.type != "cuda":
        raise UserError(f"runtime.precision: float16 needs a GPU, got {device.type}; take auto, float32 or bfloat16")
    if config.compile:
        _check_compiler(device)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # float32 is what the row says it is
        torch.backends.cudnn.deterministic = True
    layout = "channels_last" if config.layout == "auto" else config.layout
    return Runtime(device, threads, precision, layout, config.compile)


def _check_compiler(device: torch.device) -> None:
    """Raises UserError where torch.compile would end in a traceback at the first step."""
    if device.type == "cuda":
        missing = None if find_spec("triton") else "the package triton"
    else:
        compiler = os.environ.get("CXX", "g++")
        missing = None if shutil.which(compiler) else f"a C++ compiler ({compiler})"
    if missing:
        raise UserError(f"runtime.compile: torch.compile needs {missing}; install it, or leave compile off")


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU if there is one. Raises UserError if it cannot be used."""
    if name == "auto":
        if not torch.cuda.is_available():
            if _gpu_is_present():
                raise UserError(
                    "an NVIDIA GPU is present but this torch cannot use it (driver too old, or a CPU-only build: "
                    f"torch {torch.__version__}). Update the driver or reinstall torch, or pass --device cpu"
                )
            return torch.device("cpu")
        return torch.device("cuda")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are supported")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"runtime.device: {name!r} cannot be used ({reason}); expected auto, cpu or cuda:N") from error
    return device


def _gpu_is_present() -> bool:
    # An empty CUDA_VISIBLE_DEVICES hides the GPUs on purpose; Ray sets it for trials without one.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible is None and Path("/proc/driver/nvidia/gpus").is_dir()


def free_memory() -> None:
    """Gives back what ended runs of this process held, on the GPU too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def seed_everything(seed: int) -> None:
    """Seeds torch's global generators, which drive initialisation and dropout. All else has generators of its own."""
    torch.manual_seed(seed)


class PeakMemory:
    """Peak memory of one run in MB: allocated GPU memory on a GPU, the process's resident set on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                # Resets the peak resident set (proc(5)), so that a reused process starts anew.
                Path("/proc/self/clear_refs").write_text("5")

    def megabytes(self) -> float | None:
        """The peak since this object was made, or None where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e6
        try:
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
        except (OSError, IndexError):
            return None


@lru_cache
def provenance() -> dict[str, Any]:
    """Columns that say how a result was made: versions, git commit of the package, processor."""
    versions = {"version_fer_ray": __version__, "version_python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[f"version_{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[f"version_{package}"] = ""
    return {**commit(), **versions, "processor": _processor()}


def commit() -> dict[str, Any]:
    """Columns `git_commit` and `git_dirty` of the package: of its repository, or as its COMMIT_FILE says."""
    try:
        return json.loads((PACKAGE_FOLDER / COMMIT_FILE).read_bytes())
    except FileNotFoundError:
        head = _git("rev-parse", "HEAD")
        dirty = bool(_git("status", "--porcelain", "--untracked-files=no")) if head else None
        return {"git_commit": head, "git_dirty": dirty}


def _git(*arguments: str) -> str | None:
    folder = PACKAGE_FOLDER.parent
    if not (folder / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()

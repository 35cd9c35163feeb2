"""A look at the machine before a sweep: what is there, what will be used, what is missing, and what to do about it."""

import hashlib
import importlib
import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fer_ray import __version__, cli
from fer_ray.errors import UserError, printable

if TYPE_CHECKING:
    from rich.table import Table

OK, WARN, FAIL, INFO = "ok", "warn", "FAIL", ""
STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red", INFO: ""}

DISTRIBUTION = "fer-ray"
IMPORTED = {"torch": "torch", "torchvision": "torchvision", "timm": "timm", "ray": "ray", "opencv": "cv2"}
"""Packages with compiled parts, which may be installed and broken: name here -> module."""

GB = 1e9
LEAST_DISK, LITTLE_DISK = 0.5 * GB, 10 * GB
LITTLE_MEMORY = 4 * GB
LITTLE_SHARED_MEMORY = 0.5 * GB
LEAST_OPEN_FILES = 1024
LITTLE_GPU_MEMORY = 0.5
"""Share of a GPU's memory that should be free."""


@dataclass(frozen=True)
class Check:
    """One line of the table: a mark, its subject, what was found, and what to do where something is missing."""

    mark: str
    subject: str
    found: str
    remedy: str = ""


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.doctor`."""
    parser = cli.Parser(
        "doctor",
        "Look at this machine, or at a cluster: versions, processor, memory, disk, GPUs, Ray, what a sweep will use, "
        "what is missing and what to do about it. Starts and changes nothing. Exit code 1 if something will fail.",
        "python -m fer_ray.doctor --storage s3://bucket/fer --address auto",
    )
    parser.add_argument("--storage", default="results", metavar="DIR", help="where results will go (default: results)")
    parser.add_argument("--address", help="also look at a running Ray cluster, HOST:PORT or auto")
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.doctor`; returns the exit code."""
    options = parser().parse(arguments)
    if options.address is not None:
        from fer_ray.tuning import machines

        machines.set_environment(options.address)  # before Ray is imported, which is one of the checks
    with cli.stderr_console().status("looking"):
        sections = [
            list(software()),
            [*machine(), *disks(options.storage)],
            [*gpus(), *used(), *cluster(options.address)],
        ]
    cli.stdout_console().print(table(sections))
    marks = [check.mark for section in sections for check in section]
    failures, warnings = marks.count(FAIL), marks.count(WARN)
    print(f"{failures} will fail, {warnings} to look at" if failures or warnings else "all fine")
    return int(failures > 0)


def software() -> Iterator[Check]:
    """Versions of Python and packages against what the project asks for; its extras."""
    yield Check(OK, "fer_ray", f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    versions, broken = [], []
    for name, module in IMPORTED.items():
        try:
            versions.append(f"{name} {importlib.import_module(module).__version__}")
        except Exception as error:  # an extension that does not load raises whatever its loader does
            reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
            broken.append(Check(FAIL, name, f"cannot be imported: {reason}", f"pip install --force-reinstall {name}"))
    yield Check(OK if versions else FAIL, "packages", ", ".join(versions) or "none")
    yield from broken
    try:
        extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        yield Check(
            WARN, "versions", "fer_ray is not installed, so they are not checked", "pip install . in its folder"
        )
        return
    if wrong := _unmet(""):
        remedy = f"pip install {' '.join(map(repr, wrong))}"
        yield Check(FAIL, "versions", f"missing, or of another version: {', '.join(wrong)}", remedy)
    else:
        yield Check(OK, "versions", "all that the project asks for")
    for extra in extras:
        missing = _unmet(extra)
        remedy = f"pip install '.[{extra}]' in the project's folder" if missing else ""
        yield Check(INFO if missing else OK, f"extra {extra}", "optional, not there" if missing else "there", remedy)
    from fer_ray.faces.__main__ import SHA256
    from fer_ray.faces.detect import MODEL

    if MODEL.exists() and hashlib.sha256(MODEL.read_bytes()).hexdigest() == SHA256:
        yield Check(OK, "face detector", "its weights are there")
    else:
        found = "its weights are not there: --align and sheets of faces will not work"
        yield Check(WARN, "face detector", found, "python -m fer_ray.faces, once, with a network")


def _unmet(extra: str) -> list[str]:
    """Requirements of the project, or of one of its extras, that are not installed in a version it asks for."""
    from packaging.requirements import Requirement

    unmet = []
    for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or []):
        if not (requirement.marker.evaluate({"extra": extra}) if requirement.marker else not extra):
            continue
        try:
            if requirement.specifier.contains(metadata.version(requirement.name), prereleases=True):
                continue
        except metadata.PackageNotFoundError:
            pass
        unmet.append(f"{requirement.name}{requirement.specifier}")
    return unmet


def machine() -> Iterator[Check]:
    """Processor, memory, shared memory and open files, and what a container leaves of them."""
    from fer_ray.training import runtime
    from fer_ray.tuning.machines import local_cores

    cores, limit = local_cores(), _cgroup_cpus()
    found = f"{cores} of {os.cpu_count()} cores, {runtime.provenance()['processor'] or platform.machine()}"
    if limit is not None and limit < cores:
        remedy = f"--concurrency {max(1, int(limit))}"
        yield Check(WARN, "processor", f"{found}; this container gets the time of {limit:g} cores", remedy)
    else:
        yield Check(OK, "processor", found)
    total, available = _memory()
    found = f"{_gb(total)}" + (f", {_gb(available)} available" if available is not None else "")
    is_little = (total if available is None else available) < LITTLE_MEMORY
    remedy = "end other programs; fewer trials at once will run" if is_little else ""
    yield Check(WARN if is_little else OK, "memory", found, remedy)
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        remedy = "docker run --shm-size=2g, or remount /dev/shm larger" if free < LITTLE_SHARED_MEMORY else ""
        yield Check(WARN if remedy else OK, "shared memory", f"{_gb(free)} free in /dev/shm, for Ray's objects", remedy)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    remedy = "" if files >= LEAST_OPEN_FILES or files < 0 else f"ulimit -n {2**16}"
    yield Check(WARN if remedy else OK, "open files", "no limit" if files < 0 else f"up to {files:,}", remedy)


def _cgroup_cpus() -> float | None:
    """CPUs' worth of time that the container may use, or None without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _memory() -> tuple[float, float | None]:
    """Bytes of memory that this machine or container has, and those available; None where the system does not tell."""
    total = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        available = int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024.0
    except (OSError, IndexError):
        return total, None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        taken = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return total, available
    return min(total, limit), min(available, max(0, limit - taken))


def disks(storage: str) -> Iterator[Check]:
    """Room and permission where results and the cache will be."""
    from fer_ray.data.cache import cache_folder
    from fer_ray.storage import open_storage, place

    if storage.startswith("s3:"):
        try:
            open_storage(place(storage, "doctor")).probe()
            yield Check(OK, "results", f"{storage} can be written, replaced and read")
        except UserError as error:
            yield Check(FAIL, "results", str(error))
    else:
        yield _disk("results", Path(storage).expanduser().absolute(), "choose another --storage")
    yield _disk("cache", cache_folder(), "set FER_RAY_CACHE to a folder that you may write to")


def _disk(subject: str, path: Path, otherwise: str) -> Check:
    parent = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        return Check(FAIL, subject, f"{path} cannot be written", otherwise)
    mark = FAIL if free < LEAST_DISK else WARN if free < LITTLE_DISK else OK
    return Check(mark, subject, f"{_gb(free)} free at {path}", "" if mark == OK else f"make room, or {otherwise}")


def gpus() -> Iterator[Check]:
    """Each NVIDIA GPU with its driver and free memory, as nvidia-smi tells them."""
    query = "--query-gpu=name,driver_version,memory.total,memory.free"
    try:
        smi = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
        done = subprocess.run(smi, capture_output=True, text=True, timeout=30, check=True)
    except FileNotFoundError:
        yield Check(INFO, "GPUs", "none that NVIDIA's driver knows of")
        return
    except (OSError, subprocess.SubprocessError) as error:
        yield Check(WARN, "GPUs", f"nvidia-smi fails: {printable(str(error))}", "reinstall NVIDIA's driver, or restart")
        return
    for index, line in enumerate(done.stdout.splitlines()):
        name, driver, *memory = (part.strip() for part in printable(line).split(","))
        total, free = (int(part) * 2**20 if part.isdigit() else None for part in memory)
        is_taken = total is not None and free is not None and free < LITTLE_GPU_MEMORY * total
        remedy = "another process holds the rest; nvidia-smi names it" if is_taken else ""
        room = f"{_gb(free)} of {_gb(total)} free" if total and free is not None else "its free memory is not told"
        found = f"{name}, {room}, driver {driver}"
        yield Check(WARN if is_taken else OK, f"GPU {index}", found, remedy)


def used() -> Iterator[Check]:
    """What a run will take where nothing else is said: device, precision, layout."""
    try:
        from fer_ray.config import RuntimeConfig
        from fer_ray.training import runtime

        chosen = runtime.resolve(RuntimeConfig())
    except UserError as error:
        yield Check(FAIL, "a run uses", str(error))
        return
    except ImportError:
        return  # said under the packages
    where = f"{chosen.device.type} ({runtime.device_name(chosen.device)})"
    yield Check(OK, "a run uses", f"{where}, {chosen.precision}, layout {chosen.layout}")


def cluster(address: str | None) -> Iterator[Check]:
    """What Ray would count here, or the nodes of the cluster at `address`; `machines.set_environment` comes first."""
    try:
        from fer_ray.tuning import machines, nodes

        if address is None:
            here = machines.local_resources()
            found = f"would count {here['CPU']:g} CPUs and {here['GPU']:g} GPUs here; a trial takes one CPU"
            yield Check(OK, "Ray", found + (" and one GPU" if here["GPU"] else "") + " by default")
            return
        machines.start_ray(address)
    except UserError as error:
        yield Check(FAIL, "Ray", str(error))
        return
    except ImportError:
        return  # said under the packages
    try:
        living = nodes.living_nodes()
    finally:
        machines.stop_ray()
    yield Check(OK, "Ray", f"{len(living)} nodes at {address}")
    for node in living:
        gpu = f"{node.gpus:g} GPUs {node.gpu_type}".strip()
        yield Check(INFO, f"  {node.name}", f"{node.cpus:g} CPUs, {gpu}, {_gb(node.memory_bytes)} of memory")


def table(sections: Sequence[Sequence[Check]]) -> "Table":
    """A table with a block per section. The marks are words, so that it reads without colours."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    built = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    built.add_column(no_wrap=True)
    built.add_column(no_wrap=True)
    built.add_column(overflow="fold")
    for section in sections:
        for check in section:
            found = Text(check.found)
            if check.remedy:
                found.append(f"\n-> {check.remedy}", style="bold")
            built.add_row(Text(check.mark, STYLES[check.mark]), Text(check.subject), found)
        built.add_section()
    return built


def _gb(count: float) -> str:
    return f"{count / GB:,.0f} GB" if count >= 10 * GB else f"{count / GB:.1f} GB"


if __name__ == "__main__":
    cli.main(command)

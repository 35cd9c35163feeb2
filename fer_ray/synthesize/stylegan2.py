"""Makes synthetic faces with the generators of StyleGAN2-ADA snapshots."""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray import cli
from fer_ray.errors import UserError
from fer_ray.labels import FER2013
from fer_ray.synthesize.networks import Source, load_sources, network_paths

if TYPE_CHECKING:
    import numpy as np

    from fer_ray.synthesis.parts import Parts

SECONDS_BETWEEN_LINES = 30
"""Of progress, where there is no terminal to draw a bar on."""

_NOISE_MODES = ("const", "none", "random")


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.synthesize stylegan2`."""
    parser = cli.Parser(
        "synthesize stylegan2",
        "Draw faces from StyleGAN2-ADA generators (PyTorch): one unconditional snapshot per class, or one conditional "
        "snapshot. Nothing that a snapshot carries is run. Interrupted, the same command goes on. The same snapshots, "
        "seed, batch size, machine and torch give the same faces.",
        "python -m fer_ray.synthesize stylegan2 --network anger=a.pkl --network happy=h.pkl --per-class 2000 "
        "--out faces.parquet",
    )
    networks = parser.add_mutually_exclusive_group(required=True)
    networks.add_argument(
        "--network",
        action="append",
        metavar="[CLASS=]PATH",
        help="a snapshot (.pkl): CLASS=PATH once per class, or the PATH of one conditional snapshot",
    )
    networks.add_argument(
        "--networks",
        type=Path,
        metavar="YAML",
        help="a file with a line `class: path` per class; paths from its folder",
    )
    parser.add_argument(
        "--classes",
        metavar="A,B,...",
        help="names of a conditional snapshot's classes, in the order of its labels, which it does not name itself; "
        f"FER2013 has {','.join(FER2013)}",
    )
    parser.add_argument(
        "--per-class",
        type=cli.number(int, least=1, most=10**6),
        required=True,
        metavar="N",
        help="faces to make of each class (required)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="Parquet file to write (required)")
    parser.add_argument(
        "--psi",
        type=cli.number(float, least=0, most=2),
        default=0.7,
        metavar="X",
        help="truncation: 1 is all the variety of the training, 0 the mean face (default: 0.7)",
    )
    parser.add_argument(
        "--noise",
        choices=_NOISE_MODES,
        default="const",
        metavar="MODE",
        help="fine detail: const, the snapshot's own; none; random, new for each face (default: const)",
    )
    parser.add_argument(
        "--seed", type=cli.number(int, least=0, most=2**32 - 1), default=0, metavar="N", help="default: 0"
    )
    parser.add_argument(
        "--batch-size", type=cli.number(int, least=1, most=4096), default=32, metavar="N", help="default: 32"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default: auto)")
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.synthesize stylegan2`; returns the exit code."""
    options = parser().parse(arguments)
    cli.writable_file(options.out)
    paths = network_paths(options)
    console = cli.stderr_console()

    import torch

    from fer_ray.data.faces_file import write_faces
    from fer_ray.synthesis.parts import Parts
    from fer_ray.training.runtime import find_device

    device = find_device(options.device)
    sources = load_sources(paths, options.classes, device)
    total = options.per_class * len(sources)
    first = sources[0].generator
    settings = {
        "classes": {source.name: [_sha256(source.path), source.label] for source in sources},
        **{key: getattr(options, key) for key in ("per_class", "psi", "noise", "seed", "batch_size")},
        "device": str(device),
        "torch": torch.__version__,
    }
    record = json.dumps(settings)
    if _recorded_settings(options.out) == record:
        console.print("already made with the same snapshots and settings, not made again")
        print(f"{total:,} faces are in {options.out}")
        return 0
    console.print(
        f"{total:,} faces of {len(sources)} classes, {first.img_resolution} x {first.img_resolution} pixels, "
        f"{'grey' if first.img_channels == 1 else 'colour'}, on {device}"
    )
    parts = Parts(options.out.with_name(f".{options.out.name}.parts"), settings)
    if parts.discarded:
        console.print(f"{parts.discarded} parts of an earlier run with other settings discarded")
    try:
        _make(sources, options, parts)
        faces = {source.name: _faces(source, options, parts) for source in sources}
        write_faces(options.out, faces, _description(settings, sources), metadata={"settings": record})
    except KeyboardInterrupt:
        console.print(f"the faces made so far are kept in {parts.folder}; the same command goes on from there")
        raise
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"--batch-size {options.batch_size}: the GPU's memory is full; take a smaller one (the faces are then made "
            "from the start)"
        ) from error
    parts.remove()
    print(f"{total:,} faces written to {options.out}")
    return 0


def _batches(source: Source, options: argparse.Namespace) -> Iterator[tuple[str, range, tuple[int, ...]]]:
    """A class's batches: the name of the part, the faces' numbers, the shape of their array."""
    side, channels = source.generator.img_resolution, source.generator.img_channels
    key = hashlib.sha256(source.name.encode()).hexdigest()[:16]  # a name from outside is no name of a file
    for start in range(0, options.per_class, options.batch_size):
        numbers = range(start, min(start + options.batch_size, options.per_class))
        yield f"{key}-{start:07d}", numbers, (len(numbers), side, side, channels)


def _make(sources: list[Source], options: argparse.Namespace, parts: "Parts") -> None:
    """Makes the parts that are not there."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fer_ray.synthesis.stylegan2 import draw

    console = cli.stderr_console()
    missing = []
    total = options.per_class * len(sources)
    for source in sources:
        for part, numbers, shape in _batches(source, options):
            if parts.get(part, shape) is None:
                missing.append((source, part, numbers))
    num_missing = sum(len(numbers) for _, _, numbers in missing)
    done = total - num_missing
    if done:
        console.print(f"{done:,} faces are there from an interrupted run; {num_missing:,} to go")
    columns = (TextColumn("faces"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("left"))
    started = said = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("faces", total=total, completed=done)
        for source, part, numbers in missing:
            made = draw(
                source.generator,
                numbers,
                name=source.name,
                label=source.label,
                seed=options.seed,
                psi=options.psi,
                noise=options.noise,
            )
            parts.put(part, made)
            done += len(numbers)
            progress.advance(bar, len(numbers))
            now = time.monotonic()
            if not console.is_terminal and (now - said > SECONDS_BETWEEN_LINES or done == total):
                rate = (num_missing - total + done) / (now - started)
                left = cli.duration((total - done) / rate)
                console.print(f"{done:,} of {total:,} faces, {rate:.0f} a second" + (f", {left} left" * (done < total)))
                said = now


def _faces(source: Source, options: argparse.Namespace, parts: "Parts") -> Iterator["np.ndarray"]:
    for part, _, shape in _batches(source, options):
        made = parts.get(part, shape)
        if made is None:
            raise UserError(f"{parts.folder}: part {part} was changed while it was read; run the same command again")
        yield from made


def _description(settings: dict[str, Any], sources: list[Source]) -> str:
    digests = [settings["classes"][source.name][0] for source in sources]
    files = [
        ("" if source.label is not None else f"{source.name}: ") + f"{source.path.name} (SHA-256 {digest})"
        for source, digest in zip(sources, digests, strict=True)
    ]
    listed = ", ".join(dict.fromkeys(files))  # a conditional snapshot once
    return (
        f"StyleGAN2-ADA, truncation psi {settings['psi']:g}, noise {settings['noise']}, seed {settings['seed']}, "
        f"torch {settings['torch']} on {settings['device']}, from {listed}"
    )


def _recorded_settings(path: Path) -> str | None:
    """What a file written by this command was made with; None for any other file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return (pq.read_schema(path).metadata or {}).get(b"settings", b"").decode()
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

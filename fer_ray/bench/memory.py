"""Private memory of caching and training: of a folder of many large images against one of few."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_ray import cli
from fer_ray.errors import UserError

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
POLL_SECONDS = 0.05
NUM_TRAIN = 512


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.bench memory`."""
    parser = cli.Parser(
        "bench memory",
        "Write a folder of random colour JPEGs, cache it and train from it in a fresh process, and compare the peak of "
        "its private memory with the same of a small folder. Needs about 310 kB of disk per image at 224 pixels.",
        "python -m fer_ray.bench memory --images 50000",
    )
    parser.add_argument("--images", type=cli.number(int, least=1000), default=50_000, help="large (default: 50000)")
    parser.add_argument("--few-images", type=cli.number(int, least=1000), default=1000, help="small (default: 1000)")
    parser.add_argument("--side", type=cli.number(int, least=32), default=224, help="pixels (default: 224)")
    parser.add_argument("--model", default="MobileNetV3-Large", help="default: MobileNetV3-Large")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to work (default: a temporary folder)")
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.bench memory`; returns the exit code."""
    options = parser().parse(arguments)
    if not Path("/proc/self/smaps_rollup").exists():
        raise UserError("this system does not tell the private memory of a process; run it on Linux")
    peaks = {}
    for count in (options.few_images, options.images):
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            faces = Path(scratch) / "faces"
            write_faces(faces, count, options.side)
            peaks[count], seconds = _peak_of_training(faces, Path(scratch), options.model)
        print(f"{count:,} images: peak private memory {peaks[count]:,.0f} MB, {seconds:.0f} s to cache and train")
    few, many = peaks.values()
    pixels = options.images * options.side**2 * 3 / 1e6
    print(f"difference: {many - few:,.0f} MB; the pixels themselves are {pixels:,.0f} MB")
    return 0


def write_faces(folder: Path, count: int, side: int) -> None:
    """Writes `count` different colour JPEGs of side x side pixels into class folders."""
    import simplejpeg

    rng = np.random.default_rng(0)
    for i in range(count):
        squares = rng.integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), np.uint8)
        image = np.ascontiguousarray(squares.repeat(8, axis=0).repeat(8, axis=1)[:side, :side])
        path = folder / CLASSES[i % len(CLASSES)] / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(simplejpeg.encode_jpeg(image, quality=80))


def _peak_of_training(faces: Path, scratch: Path, model: str) -> tuple[float, float]:
    """Peak of a training process in MB: memory that is its own, changed or not; and its seconds."""
    started = time.monotonic()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "fer_ray.train", "--data", str(faces), "--model", model, "--epochs", "1"),
            *("--image-size", "32", "--num-train-images", str(NUM_TRAIN), "--threads", "1", "--device", "cpu"),
            *("--out", str(scratch / "results")),
        ],
        env=os.environ | {"FER_RAY_CACHE": str(scratch / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(POLL_SECONDS):
            try:
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            except OSError:
                return
            peak = max(peak, sum(int(kb) for kb in re.findall(r"^Private_\w+:\s+(\d+)", text, re.M)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, errors = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise UserError(f"training on {faces} failed: {json.dumps(errors.strip()[-500:])}")
    return peak / 1024, time.monotonic() - started

"""Whatever a file holds, it is read, or refused by its name: nothing crashes, hangs, runs, or writes elsewhere.

Mutated files of every kind (see `mutations`) go through the entries that users have, in processes of their own: many
cases each, under a watchdog, a limit of memory, and an audit hook that sees what is opened for writing and what is run.
`FER_RAY_HOSTILE="SEED COUNT"` chooses another campaign.
"""

import argparse
import faulthandler
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import sysconfig
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import pytest
from faces import needs_detector

NUM_WORKERS = 2
MAX_SECONDS = 10
"""Of processor time, of one case."""

WATCHDOG_SECONDS = 60
"""Of wall-clock time, after which the process is ended: others may be busy on the machine."""

MAX_BYTES = 2 * 2**30
"""Of address space that a case may ask for, above what the process has before."""

TRUSTED = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(Path(__file__).resolve().parents[1])})


# One process of the campaign


def main(arguments: list[str]) -> None:
    """SEED START STEP COUNT FOLDER: runs cases START, START + STEP, ... and prints a line of JSON before and after."""
    seed, start, step, count = map(int, arguments[:4])
    folder = Path(arguments[4])
    working, cache = folder / "working", folder / "cache"
    working.mkdir(exist_ok=True)
    os.chdir(working)
    os.environ["FER_RAY_CACHE"] = str(cache)
    entries = _entries()
    for kind in entries:  # what is loaded late is loaded now, and whole files are read
        for attempt in range(2):
            whole, target = mutations.SEEDS[kind]
            files = whole(random.Random(attempt))
            files = {target: mutations.packed(files)} if kind == "zip" else files
            home = folder / f"whole-{kind}-{attempt}-{start}"
            mutations.write(home, files)
            entries[kind](home / target)
    for bombs in (mutations.image_bombs, mutations.zip_bombs, mutations.parquet_bombs):
        bombs()
    watch = _Watch((folder, Path("/dev/null")))
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + MAX_BYTES, resource.RLIM_INFINITY))
    for number in range(start, count, step):
        home = folder / str(number)
        case = mutations.make(seed, number, home)
        print(json.dumps([number, case.kind, case.mutation]), flush=True)
        faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts anew
        before, began = _memory("VmRSS"), time.process_time()
        with watch:
            outcome, detail = _outcome(entries[case.kind], case)
        seconds = time.process_time() - began
        faulthandler.cancel_dump_traceback_later()
        if seconds > MAX_SECONDS:
            outcome, detail = "slow", f"{seconds:.0f} s; {detail}"
        if watch.seen or list(working.iterdir()):
            outcome, detail = "acted", f"{watch.seen} {os.listdir(working)}"
            watch.seen.clear()
        peak = (_memory("VmHWM") - before) / 2**20
        print(json.dumps([number, outcome, detail, round(seconds, 2), round(peak)]), flush=True)
        shutil.rmtree(home)
        shutil.rmtree(cache, ignore_errors=True)


def _memory(field: str) -> int:
    """Bytes by /proc/self/status, e.g. its peak as VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def _outcome(entry: Callable[[Path], None], case: mutations.Case) -> tuple[str, str]:
    from fer_ray.errors import UserError

    try:
        entry(case.target)
    except UserError as error:
        message = str(error)
        named = any(str(path) in message or repr(str(path))[1:-1] in message for path in (case.target, *case.paths))
        return ("refused" if named else "unnamed"), message
    except BaseException:
        return "crashed", traceback.format_exc(limit=-4)
    return "read", ""


def _entries() -> dict[str, Callable[[Path], None]]:
    """Kind -> what a command does with a path of that kind."""
    from fer_ray import train, trained
    from fer_ray.config import RuntimeConfig
    from fer_ray.data import store
    from fer_ray.diagnostics import features
    from fer_ray.errors import UserError
    from fer_ray.faces.quality import Limits
    from fer_ray.synthesis import sheets
    from fer_ray.synthesis.stylegan2 import draw, load_generator
    from fer_ray.synthesize import networks
    from fer_ray.training import runtime

    def dataset(path: Path) -> None:
        opened = store.open_dataset(str(path))
        num_images, num_classes = len(opened.images), len(opened.classes)
        assert opened.images.dtype == np.uint8
        assert opened.images.ndim == 4
        assert 0 < num_images == len(opened.labels) == len(opened.splits) == len(opened.ids)
        assert opened.labels.min() >= -1
        assert opened.labels.max() < num_classes
        assert all(name.isprintable() and name for name in opened.classes)
        for values in (opened.valence, opened.arousal):
            assert values is None or bool((np.isnan(values) | (np.abs(values) <= 1)).all())

    def generator(path: Path) -> None:
        draw(load_generator(path), [0], name="happy", label=None, seed=0, psi=0.7, noise="const")

    def yaml(path: Path) -> None:
        options = argparse.Namespace(networks=path, network=None, classes=None)
        networks.load_sources(networks.network_paths(options), None, "cpu")

    def sheet_folder(path: Path) -> None:
        grid = sheets.Grid(2, 2)
        for _ in sheets.read_all(sheets.find(path, "json", grid), grid, Limits(), 32, 2):
            pass

    def network(path: Path) -> None:
        record = trained.read_record(path)
        features.load(record, runtime.resolve(RuntimeConfig(device="cpu", precision="float32")))

    def config(path: Path) -> None:
        nowhere = path.parent / "nowhere.csv"
        try:
            train.command(["--recipe", str(path), "--data", str(nowhere), "--out", str(path.parent / "out")])
        except UserError as error:
            if not str(error).startswith(f"no data at {nowhere}"):
                raise

    kinds: dict[str, Callable[[Path], None]] = dict.fromkeys(
        ("folder", "zip", "csv", "fer_plus", "parquet", "affectnet"), dataset
    )
    return {
        **kinds, "pickle": generator, "networks": yaml, "sheets": sheet_folder, "trial": network, "config": config
    }  # fmt: skip


class _Watch:
    """While entered, notes what is written outside `allowed`, and what is run."""

    def __init__(self, allowed: tuple[Path, ...]) -> None:
        self.allowed = tuple(map(str, allowed))
        self.seen: list[str] = []
        self.is_on = False
        sys.addaudithook(self._on)

    def __enter__(self) -> None:
        self.is_on = True

    def __exit__(self, *_: object) -> None:
        self.is_on = False

    def _on(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                self._check_path(event, path)
        elif event in ("os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree"):
            self._check_path(event, arguments[0])
        elif event in ("os.rename", "os.link", "os.symlink"):
            self._check_path(event, arguments[1])
        elif event in ("exec", "pickle.find_class"):
            name = getattr(arguments[0], "co_filename", str(arguments))
            if not name.startswith((*TRUSTED, "<frozen")):
                self.seen.append(f"{event} {name}")
        elif event.startswith(
            ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess", "socket", "ctypes.dlo")
        ):
            self.seen.append(f"{event} {arguments}")

    def _check_path(self, event: str, path: Any) -> None:
        full = os.path.abspath(os.fsdecode(path))
        if not full.startswith(self.allowed):
            self.seen.append(f"{event} {full}")


# The campaign


def campaign(seed: int, count: int, folder: Path) -> list[tuple[str, ...]]:
    """(kind, mutation, outcome, detail, seconds, peak) of each case."""
    done: dict[int, tuple[str, ...]] = {}
    workers = [_Worker(seed, start, count, folder / str(start)) for start in range(NUM_WORKERS)]
    for worker in workers:
        done.update(worker.finish())
    return [done[number] for number in sorted(done)]


class _Worker:
    """A process, started again behind the case that ended it."""

    def __init__(self, seed: int, start: int, count: int, folder: Path) -> None:
        self.seed, self.count, self.folder = seed, count, folder
        folder.mkdir()
        self._start(start)

    def _start(self, start: int) -> None:
        command = [sys.executable, __file__, *map(str, (self.seed, start, NUM_WORKERS, self.count, self.folder))]
        self.log = self.folder / f"log-{start}"
        with self.log.open("w") as out, self.log.with_suffix(".err").open("w") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err)

    def finish(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        while True:
            code = self.process.wait()
            lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            for (number, kind, mutation), (_, *outcome) in zip(lines[::2], lines[1::2], strict=False):
                yield number, (kind, mutation, *outcome)
            errors = self.log.with_suffix(".err").read_text()
            if code == 0:
                return
            assert len(lines) % 2, errors  # it failed outside a case
            number, kind, mutation = lines[-1]
            yield number, (kind, mutation, "ended", f"exit code {code}: {errors[-3000:]}", 0, 0)
            if number + NUM_WORKERS >= self.count:
                return
            self._start(number + NUM_WORKERS)


def table(outcomes: list[tuple[str, ...]]) -> str:
    """Cases by kind and mutation: how many were read and refused."""
    counts = Counter((kind, mutation, outcome) for kind, mutation, outcome, *_ in outcomes)
    rows = sorted({(kind, mutation) for kind, mutation, _ in counts})
    lines = [f"{'kind':<10}{'mutation':<18}{'read':>6}{'refused':>9}{'wrong':>7}"]
    for kind, mutation in rows:
        row = {outcome: n for (*key, outcome), n in counts.items() if tuple(key) == (kind, mutation)}
        read, refused = row.get("read", 0), row.get("refused", 0)
        lines.append(f"{kind:<10}{mutation:<18}{read:>6}{refused:>9}{sum(row.values()) - read - refused:>7}")
    total = Counter(outcome for _, _, outcome, *_ in outcomes)
    slowest, peak = (max(outcome[i] for outcome in outcomes) for i in (4, 5))
    lines.append(f"{len(outcomes):,} cases: {dict(total)}; slowest {slowest} s, peak memory {peak:,} MB")
    return "\n".join(lines)


def check(seed: int, count: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = campaign(seed, count, folder)
    with capsys.disabled():
        print(f"\n{table(outcomes)}")
    wrong = [outcome for outcome in outcomes if outcome[2] not in ("read", "refused")]
    assert not wrong, "\n\n".join(" ".join(map(str, outcome)) for outcome in wrong[:10])
    assert len(outcomes) == count


@needs_detector
def test_mutated_files_are_read_or_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(0, 300, tmp_path, capsys)


@needs_detector
@pytest.mark.slow
def test_two_thousand_mutated_files_are_read_or_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, count = map(int, os.environ.get("FER_RAY_HOSTILE", "1 2000").split())
    check(seed, count, tmp_path, capsys)


if __name__ == "__main__":
    main(sys.argv[1:])

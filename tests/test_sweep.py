"""Sweeps from the command line to tables, through a real Ray, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TinyFaces
from filelock import FileLock

from fer_ray import cli, results, sweep
from fer_ray.errors import UserError

PATIENCE_SECONDS = 600
"""For anything to happen; how long it takes says something about the machine, not about the program."""

SPACE = """
from fer_ray.space import Space

SPACE = Space(
    name="tiny",
    question="Does it run?",
    axes={"data.real_fraction": (0.0, 1.0)},
    seeds=(0, 1),
    base={"model.name": "ShuffleNetV2-x1.0", "data.image_size": 32, "training.batch_size": 16, **EXTRA},
)
"""

DIVERGING = {
    # Each step multiplies the weights by 1 - 1.9 * learning rate * weight decay = -18, and float32 ends at 18^31.
    "optimizer.name": "sgd",
    "optimizer.weight_decay": 1.0,
    "optimizer.schedule": "constant",
    "optimizer.warmup_fraction": 0.0,
    "training.max_gradient_norm": None,
    "training.batch_size": 4,
    "data.num_train_images": 48,
}


def write_space(folder: Path, **extra: Any) -> Path:
    path = folder / "tiny.py"
    path.write_text(f"EXTRA = {extra!r}\n{SPACE}")
    return path


@pytest.fixture(scope="session")
def flags(tiny_faces: TinyFaces) -> list[str]:
    return ["--device=cpu", f"--data={tiny_faces.real}", f"--synthetic={tiny_faces.synthetic}", "--name=tiny"]


def two_cores() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    # A suite that runs in the background of a shell inherits a Ctrl-C that is ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fer_ray.sweep", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS, preexec_fn=two_cores
    )


class Running:
    """A sweep under way, with its output in files."""

    def __init__(self, folder: Path, arguments: tuple[object, ...]) -> None:
        self._errors = folder / f"stderr-{time.monotonic_ns()}"
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                command(*arguments), stdout=subprocess.DEVNULL, stderr=errors, preexec_fn=two_cores
            )

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def wait_for(self, what: Callable[[], Any]) -> Any:
        """The first value of `what` that is true."""

        def look() -> Any:
            assert self.process.poll() is None, f"the sweep ended early: {self.errors}"
            return what()

        return wait_for(look)

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def running(folder: Path, *arguments: object) -> Iterator[Running]:
    """Starts a sweep; whatever it started is gone afterwards."""
    sweep = Running(folder, arguments)
    try:
        yield sweep
    finally:
        if sweep.process.poll() is None:
            for pid in processes(sweep.process.pid):
                with_lost_process_ignored(os.kill, pid, signal.SIGKILL)
            sweep.process.wait()


def with_lost_process_ignored(action: Callable, *arguments: Any) -> Any:
    try:
        return action(*arguments)
    except (ProcessLookupError, FileNotFoundError):
        return None


def processes(pid: int) -> list[int]:
    """A process and all below it."""
    children = with_lost_process_ignored(Path(f"/proc/{pid}/task/{pid}/children").read_text) or ""
    threads = with_lost_process_ignored(os.listdir, f"/proc/{pid}/task") or []
    for thread in threads:
        if thread != str(pid):
            children += " " + (with_lost_process_ignored(Path(f"/proc/{pid}/task/{thread}/children").read_text) or "")
    return [pid, *(below for child in children.split() for below in processes(int(child)))]


def alive(pid: int) -> bool:
    stat = with_lost_process_ignored(Path(f"/proc/{pid}/stat").read_text)
    return stat is not None and stat.rpartition(")")[2].split()[0] != "Z"


def title(pid: int) -> str:
    return (with_lost_process_ignored(Path(f"/proc/{pid}/cmdline").read_text) or "").replace("\0", " ").strip()


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("nothing happened")


def listening(pids: list[int]) -> set[str]:
    """Hexadecimal addresses on which these processes accept connections."""
    sockets = set()
    for pid in pids:
        for descriptor in with_lost_process_ignored(os.listdir, f"/proc/{pid}/fd") or []:
            sockets.add(with_lost_process_ignored(os.readlink, f"/proc/{pid}/fd/{descriptor}"))
    rows = [
        line.split() for family in ("tcp", "tcp6") for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def rows_of(root: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in results.read_rows(root)}


def finished(root: Path) -> set[str]:
    return {run_id for run_id, row in rows_of(root).items() if row["status"] == results.FINISHED}


def outcomes(root: Path) -> dict[str, dict[str, Any]]:
    """Rows by id, without what a run cost, and without the commit, which may move between two sweeps."""
    left_out = {*results.COST_COLUMNS, "git_commit", "git_dirty"}
    return {
        run_id: {name: value for name, value in row.items() if name not in left_out}
        for run_id, row in rows_of(root).items()
    }


@pytest.mark.slow
def test_the_smoke_space_goes_from_nothing_to_tables_and_a_dashboard(tmp_path: Path) -> None:
    done = run("--space=smoke", "--device=cpu", f"--storage={tmp_path}")
    assert done.returncode == 0, done.stderr
    root = tmp_path / "smoke-demo"
    assert done.stderr.startswith("rendered demo faces, no --data given: the figures say nothing about real ones")
    assert len(finished(root)) == 2
    assert all(word in done.stdout for word in ("Accuracy", "Macro F1", "AUROC", "real fraction"))
    assert f"dashboard: {root / 'dashboard.html'}" in done.stdout
    assert {path.name for path in root.iterdir()} == {
        "sweep.json",
        "trials",
        "trials.parquet",
        "epochs.parquet",
        "tables",
        "dashboard.html",
        "leakage.parquet",
        "study.db",
        "journal.jsonl",
        ".lock",
    }
    assert len(pd.read_parquet(root / "trials.parquet")) == 2
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.slow
def test_rows_do_not_depend_on_how_many_trials_run_at_once_and_nothing_listens_beyond_loopback(
    flags: list[str], tmp_path: Path
) -> None:
    space = write_space(tmp_path, **{"training.epochs": 2})
    alone = run(f"--space={space}", *flags, f"--storage={tmp_path / 'one'}", "--concurrency=1")
    assert alone.returncode == 0, alone.stderr
    addresses: set[str] = set()
    started: set[int] = set()
    with running(tmp_path, f"--space={space}", *flags, f"--storage={tmp_path / 'two'}", "--concurrency=2") as under_way:
        while under_way.process.poll() is None:
            tree = processes(under_way.process.pid)
            started.update(tree)
            addresses |= listening(tree)
            time.sleep(0.2)
        assert under_way.exit_code() == 0, under_way.errors
    assert addresses
    assert addresses <= LOOPBACK
    wait_for(lambda: not any(alive(pid) for pid in started))

    one = rows_of(tmp_path / "one" / "tiny")
    assert len(one) == 4
    assert outcomes(tmp_path / "one" / "tiny") == outcomes(tmp_path / "two" / "tiny")
    for run_id in one:
        first, second = (tmp_path / n / "tiny" / "trials" / run_id / "predictions.parquet" for n in ("one", "two"))
        pd.testing.assert_frame_equal(pd.read_parquet(first), pd.read_parquet(second), check_exact=True)
    assert "4/4" in alone.stderr

    # The same once more trains nothing; more axis values train only what is new; another design is refused.
    again = run(f"--space={space}", *flags, f"--storage={tmp_path / 'one'}", "--concurrency=1")
    assert again.returncode == 0
    assert "4 of 4 trials are finished already and kept" in again.stderr
    assert rows_of(tmp_path / "one" / "tiny") == one
    assert "Accuracy" in again.stdout
    other = run(f"--space={space}", *flags, f"--storage={tmp_path / 'one'}", "--epochs=3")
    assert other.returncode == cli.USAGE
    assert "training.epochs: 2 before, 3 now" in other.stderr


@pytest.mark.slow
def test_a_trial_that_diverges_fails_alone(flags: list[str], tmp_path: Path) -> None:
    space = write_space(tmp_path, **{**DIVERGING, "training.epochs": 4})
    text = space.read_text().replace('{"data.real_fraction": (0.0, 1.0)}', '{"optimizer.learning_rate": (0.001, 10.0)}')
    space.write_text(text)
    done = run(f"--space={space}", *flags, f"--storage={tmp_path}", "--seeds=0")
    assert done.returncode == cli.FAILED_TRIALS, done.stderr
    by_rate = {row["optimizer.learning_rate"]: row for row in rows_of(tmp_path / "tiny").values()}
    assert by_rate[0.001]["status"] == results.FINISHED
    assert by_rate[10.0]["status"] == results.FAILED
    assert "most likely the learning rate (peak 10) is too high" in by_rate[10.0]["error"]
    assert f"failed {by_rate[10.0]['id']}: " in done.stderr
    assert (tmp_path / "tiny" / "dashboard.html").exists()
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_killed_worker_costs_its_running_epoch_and_ctrl_c_the_trials_under_way(
    flags: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "tiny"
    space = write_space(tmp_path, **{"training.epochs": 10, "runtime.checkpoint_seconds": 0})
    arguments = (f"--space={space}", *flags, f"--storage={tmp_path}", "--concurrency=1")

    def worker(process: subprocess.Popen) -> int | None:
        return next((pid for pid in processes(process.pid) if title(pid) == "ray::ImplicitFunc.train"), None)

    def epochs() -> list[dict[str, Any]]:
        lines = (root / "journal.jsonl").read_text().splitlines() if root.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] == "epoch"]

    with running(tmp_path, *arguments) as first:
        first.wait_for(lambda: "\n1/4 " in first.errors)
        survivors = {name: row for name, row in rows_of(root).items() if name in finished(root)}
        known = len(epochs())
        first.wait_for(lambda: len(epochs()) > known + 2)
        os.kill(first.wait_for(lambda: worker(first.process)), signal.SIGKILL)
        assert first.exit_code() == 0, first.errors
    assert "its worker died; it goes on from its last checkpoint" in first.errors
    assert len(finished(root)) == 4
    assert {name: row for name, row in rows_of(root).items() if name in survivors} == survivors
    assert "Traceback" not in first.errors
    trained = Counter((event["id"], event["epoch"]) for event in epochs())
    assert set(trained) == {(name, epoch) for name in finished(root) for epoch in range(1, 11)}
    assert sum(trained.values()) <= 4 * 10 + 1

    before = rows_of(root)
    with running(tmp_path, *arguments, "--seeds=0,1,2") as second:
        second.wait_for(lambda: "\n1/2 " in second.errors)
        tree = processes(second.process.pid)
        second.process.send_signal(signal.SIGINT)
        assert second.exit_code() == cli.INTERRUPTED, second.errors
    assert "4 of 6 trials are finished already and kept" in second.errors
    assert "interrupted: 5 of 6 trials are finished and on disk" in second.errors
    assert "The same command goes on with the rest" in second.errors
    wait_for(lambda: not any(alive(pid) for pid in tree))
    assert not (root / ".tune").exists()
    assert {name: row for name, row in rows_of(root).items() if name in before} == before

    done = run("--resume=tiny", f"--storage={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert len(finished(root)) == 6


@pytest.mark.slow
def test_a_budget_ends_a_sweep_in_order_and_resume_finishes_it_as_if_undisturbed(
    flags: list[str], tmp_path: Path
) -> None:
    space = write_space(tmp_path, **{"training.epochs": 10, "runtime.checkpoint_seconds": 0})
    arguments = (f"--space={space}", *flags)
    root = tmp_path / "short" / "tiny"
    ended = run(*arguments, f"--storage={root.parent}", "--concurrency=1", "--time-budget=5s", "--strict")
    assert ended.returncode == 0, ended.stderr
    assert "the sweep has spent its time of 5 s: " in ended.stderr
    assert "trials are finished and on disk in" in ended.stderr
    assert "missing: ShuffleNetV2-x1.0-r" in ended.stderr
    assert len(finished(root)) < 4
    assert "Traceback" not in ended.stderr + ended.stdout
    for row in rows_of(root).values():
        if row["status"] == results.STOPPED:
            assert row["test_reads"] == 0
    resumed = run("--resume=tiny", f"--storage={root.parent}", "--time-budget=10h")
    assert resumed.returncode == 0, resumed.stderr
    assert len(finished(root)) == 4
    whole = run(*arguments, f"--storage={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    assert outcomes(root) == outcomes(tmp_path / "whole" / "tiny")
    tables = sorted(path.name for path in (root / "tables").iterdir())
    assert tables
    for name in tables:
        if "cost" not in name:
            assert (root / "tables" / name).read_bytes() == (tmp_path / "whole/tiny/tables" / name).read_bytes(), name


@pytest.mark.slow
def test_a_request_that_nothing_can_meet_is_refused_before_anything_is_trained(
    flags: list[str], tmp_path: Path
) -> None:
    space = write_space(tmp_path, **{"training.epochs": 1})
    done = run(f"--space={space}", *flags, f"--storage={tmp_path}", "--cpus-per-trial=64")
    assert done.returncode == cli.USAGE
    assert "a trial asks for 64 CPUs and 0 GPUs on one node" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "tiny" / "trials").exists()


def test_a_dry_run_prints_trials_cost_and_resources_and_leaves_nothing(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write_space(tmp_path, **{"training.epochs": 2})
    storage = tmp_path / "results"
    assert sweep.command([f"--space={space}", *flags, f"--storage={storage}", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("ShuffleNetV2-x1.0-r") == 4
    assert "N = 60 training images" in printed.err
    assert "4 trials, at least" in printed.err
    assert "each trial: 1 CPUs, 0 GPUs; nothing was started" in printed.err
    assert not storage.exists()


def test_results_that_cannot_be_written_are_refused(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    space = write_space(tmp_path)
    with pytest.raises(UserError, match=r"cannot write to .*file/tiny \(Not a directory\)"):
        sweep.command([f"--space={space}", *flags, f"--storage={tmp_path / 'file'}"])


def test_a_full_disk_is_a_message(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device", str(path))

    space = write_space(tmp_path)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"cannot write .*tiny.*No space left on device"):
        sweep.command([f"--space={space}", *flags, f"--storage={tmp_path}"])


def test_different_classes_are_refused_and_common_ones_are_planned(
    flags: list[str], tiny_faces: TinyFaces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [*flags, f"--synthetic={tiny_faces.synthetic_other_classes}", f"--storage={tmp_path}", "--dry-run"]
    space = write_space(tmp_path)
    with pytest.raises(UserError, match=r"only real: neutral; only synthetic: fear.*--classes common"):
        sweep.command([f"--space={space}", *others])
    assert sweep.command([f"--space={space}", *others, "--classes=common"]) == 0
    assert "2 classes" in capsys.readouterr().err


def test_threads_that_are_left_open_are_one_in_a_sweep(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write_space(tmp_path)
    for threads, cpus in (("auto", 1), ("2", 2)):
        assert (
            sweep.command([f"--space={space}", *flags, f"--storage={tmp_path}", "--dry-run", f"--threads={threads}"])
            == 0
        )
        assert f"each trial: {cpus} CPUs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--scheduler=asha"], "--scheduler: space tiny is a factorial design, whose cells all run to their end"),
        (["--trials=3"], "--trials: space tiny is a factorial design"),
        (["--money=3"], "--money and --price-per-gpu-hour: each needs the other"),
        (["--gpu-hours=3"], "--gpu-hours and --money count what trials hold of GPUs, and these hold none"),
        (["--gpus-per-trial=2"], "--gpus-per-trial"),
        (["--log=tensorbord"], "did you mean 'tensorboard'"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_anything_starts(
    given: list[str], message: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"--space={write_space(tmp_path)}", *flags, f"--storage={tmp_path / 'results'}", *given]
    assert cli.exit_code(sweep.command, arguments) == cli.USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "results" / "tiny" / "trials").exists()


def test_two_commands_do_not_work_on_one_sweep(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    with FileLock(tmp_path / "tiny" / ".lock"), pytest.raises(UserError, match="is being worked on by another sweep"):
        sweep.command([f"--space={write_space(tmp_path)}", *flags, f"--storage={tmp_path}"])


def test_the_diverging_space_really_diverges() -> None:
    growth = abs(1 - 1.9 * 10 * DIVERGING["optimizer.weight_decay"])
    steps = 4 * DIVERGING["data.num_train_images"] // DIVERGING["training.batch_size"]
    assert steps * np.log(growth) > np.log(np.finfo(np.float32).max)


def test_a_numbered_gpu_is_refused_because_ray_hands_them_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.exit_code(sweep.command, ["--space=smoke", "--device=cuda:1"]) == cli.USAGE
    assert "CUDA_VISIBLE_DEVICES" in capsys.readouterr().err

"""A sweep on a cluster of several nodes: package, data and storage reach them, and nothing is lost when they go."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from conftest import TinyFaces

from fer_ray import results
from fer_ray.config import RunConfig
from fer_ray.data import transfer
from fer_ray.errors import UserError
from fer_ray.experiment import file_digest
from fer_ray.storage import open_storage
from fer_ray.training import runtime
from fer_ray.tuning import cluster, schedulers
from fer_ray.tuning.cluster import Shipment
from fer_ray.tuning.local_cluster import LocalCluster

PATIENCE_SECONDS = 600
"""For anything to happen; how long it takes says something about the machine, not about the program."""

TRIALS = 24
SPACE = """
from fer_ray.space import Space

SPACE = Space(
    name="cells",
    question="Is it the same everywhere?",
    axes={"data.real_fraction": (0.0, 1.0), "optimizer.weight_decay": (0.0, 0.1)},
    seeds=(0, 1, 2, 3, 4, 5),
    base={"model.name": "ShuffleNetV2-x1.0", "data.image_size": 32, "training.batch_size": 16, "training.epochs": 3},
)
"""


def test_the_package_is_sent_as_one_folder_that_knows_its_commit(tmp_path: Path) -> None:
    code = (
        "import fer_ray.analysis.report, fer_ray.search_spaces.ratios, json; from fer_ray.training import runtime; "
        "print(json.dumps([fer_ray.__file__, fer_ray.analysis.__file__, runtime.commit()]))"
    )
    with cluster.runtime_env() as env:
        (package,) = env["py_modules"]
        assert not list(Path(package).rglob("__pycache__"))
        environment = {**os.environ, "PYTHONPATH": str(Path(package).parent)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        found = json.loads(done.stdout)
        assert all(Path(file).is_relative_to(package) for file in found[:2])
        assert found[2] == runtime.commit()
    assert not Path(package).exists()


def test_a_weights_file_is_taken_where_it_lies_or_where_it_was_sent(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    config = RunConfig.from_flat({"model.weights": str(path)})
    digest = file_digest(str(path))
    shipment = Shipment("", b"", (), {str(path): (digest, transfer.folder(f"weights/{digest}", path))})
    assert shipment.weights_file(config) == path
    path.write_bytes(b"another file of that name")
    assert shipment.weights_file(config) == tmp_path / "cache" / "weights" / digest / "weights.pt"
    assert shipment.weights_file(RunConfig()) is None


def test_a_weights_file_that_changed_on_the_driver_is_refused_and_not_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights.pt"
    path.write_bytes(b"before")
    digest = file_digest(str(path))
    sent = transfer.folder(f"weights/{digest}", path)
    path.write_bytes(b"after!")
    monkeypatch.setattr(Shipment, "_read", lambda self, *piece: cluster._piece(*piece))
    with pytest.raises(UserError, match=r"weights\.pt changed on the driver's machine"):
        Shipment("", b"", (), {str(path): (digest, sent)}).install()
    assert not sent.path.exists()
    path.write_bytes(b"before")
    sent = transfer.folder(f"weights/{digest}", path)
    Shipment("", b"", (), {str(path): (digest, sent)}).install()
    assert not sent.path.exists(), "it lies at its own path here"


def test_a_trial_on_a_node_that_has_another_folder_of_that_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be used from node .* does not see the folder"):
        cluster.check_shared(open_storage(tmp_path))
    (tmp_path / "sweep.json").write_text("{}")
    cluster.check_shared(open_storage(tmp_path))


def test_a_trial_whose_worker_is_starting_is_not_given_another() -> None:
    """Else a node that joins gets no trial where trials end more often than a worker takes to start."""
    trials: Any = [
        type("Trial", (), {"status": status})() for status in ("TERMINATED", "RUNNING", "PENDING", "PENDING", "PENDING")
    ]
    workers = {"working": trials[1], "starting": trials[2], "waits for a node": trials[3]}
    actors = SimpleNamespace(live_actors=["working", "starting", "idle"])
    controller = SimpleNamespace(_actor_to_trial=workers, _actor_manager=actors)
    wrapper = SimpleNamespace(_tune_controller=controller, get_trials=lambda: trials)
    assert schedulers.in_order().choose_trial_to_run(wrapper) is trials[3]
    workers["another that is starting"] = trials[4]
    actors.live_actors = [*workers]
    assert schedulers.in_order().choose_trial_to_run(wrapper) is None


@pytest.fixture(scope="session")
def arguments(tiny_faces: TinyFaces, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    space = tmp_path_factory.mktemp("space") / "cells.py"
    space.write_text(SPACE)
    data = [f"--data={tiny_faces.real}", f"--synthetic={tiny_faces.synthetic}"]
    return [f"--space={space}", *data, "--device=cpu", "--name=cells", "--set=runtime.checkpoint_seconds=0"]


def sweep(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fer_ray.sweep", *map(str, arguments)]


@pytest.fixture(scope="session")
def undisturbed(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the same sweep on this machine alone."""
    storage = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(
        sweep(*arguments, f"--storage={storage}"), capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return storage / "cells"


def by_driver(nodes: LocalCluster, arguments: list[str], disturb: Callable[[subprocess.Popen], None]) -> None:
    """A driver of its own joins by address."""
    finish(sweep(*arguments, f"--address={nodes.address}"), nodes, disturb)


def by_job(nodes: LocalCluster, arguments: list[str], disturb: Callable[[subprocess.Popen], None]) -> None:
    """The command is sent to the cluster and runs there."""
    job = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", f"--address={nodes.dashboard}", "--"]
    output = finish([*job, *sweep(*arguments, "--address=auto")], nodes, disturb)
    assert f"{TRIALS} of {TRIALS} trials finished" in output


def finish(command: list[str], nodes: LocalCluster, disturb: Callable[[subprocess.Popen], None]) -> str:
    """Runs a command that has to end well; its output."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=nodes.environment(), **pipes) as process:
        disturb(process)
        printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, printed[-3000:]
    return printed


@pytest.mark.slow
@pytest.mark.parametrize(("drive", "storage"), [(by_job, "folder"), (by_driver, "s3")])
def test_a_sweep_over_three_nodes_survives_that_one_goes_and_one_joins(
    drive, storage: str, arguments, undisturbed: Path, tmp_path: Path, monkeypatch, request
) -> None:
    if drive is by_job and not find_spec("aiohttp_cors"):
        pytest.skip("needs ray[default], see the extra `cluster`")
    location = str(tmp_path)
    if storage == "s3":
        location = f"{request.getfixturevalue('s3_bucket')}/{tmp_path.name}"
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "driver"))
    with LocalCluster(3, with_dashboard=drive is by_job) as nodes:
        where = [nodes.folder, tmp_path]

        def disturb(process: subprocess.Popen) -> None:
            wait(
                lambda: (
                    process.poll() is not None
                    or len({name for base in where for name in ended_trials(base)}) >= TRIALS / 3
                )
            )
            nodes.kill_node(nodes.nodes[0])
            nodes.add_node()

        drive(nodes, [*arguments, f"--storage={location}"], disturb)
        for node in nodes.nodes:
            brought = [line.split()[1] for line in (nodes.cache(node) / transfer.LOG).read_text().splitlines()]
            assert len(set(brought)) == len(brought) == 2, "the real and the synthetic faces, once"
            assert not (nodes.cache(node) / "sources").exists(), "no node reads the source"

    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "reader"))
    found = open_storage(f"{location}/cells")
    found.pull()
    events = [json.loads(line) for line in (found.folder / "journal.jsonl").read_text().splitlines()]
    ended = Counter(event["id"] for event in events if event["event"] == "end")
    assert len(ended) == TRIALS
    assert set(ended.values()) == {1}
    assert_same(found.folder, undisturbed)
    if storage == "s3":
        done = subprocess.run(
            [sys.executable, "-m", "fer_ray.analysis", f"{location}/cells"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def ended_trials(base: Path) -> set[str]:
    """Names of trials that have a row anywhere below a folder."""
    try:
        return {path.parent.name for path in base.rglob("trials/*/row.json")}
    except FileNotFoundError:  # a trial's folder got its name in between
        return set()


def assert_same(left: Path, right: Path) -> None:
    """Tables are equal byte by byte, and all that rows say but what they cost."""
    tables = sorted(path.name for path in (right / "tables").iterdir())
    assert [path.name for path in sorted((left / "tables").iterdir())] == tables
    for name in tables:
        assert (left / "tables" / name).read_bytes() == (right / "tables" / name).read_bytes(), name
    frames = [
        results.load(root).trials.drop(columns=list(results.COST_COLUMNS), errors="ignore") for root in (left, right)
    ]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


def wait(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs a path that means another folder elsewhere")
def test_a_folder_that_the_nodes_do_not_share_is_refused_before_the_first_trial(arguments, tmp_path: Path) -> None:
    with LocalCluster(1) as nodes:
        done = subprocess.run(
            sweep(*arguments, "--storage=/proc/self/cwd/results", f"--address={nodes.address}"),
            env=nodes.environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    assert done.returncode == 2, done.stderr
    assert "cannot be used from node 127.0.0.1: it does not see the folder" in " ".join(done.stderr.split())
    assert not (tmp_path / "results" / "cells" / "trials").exists()


def test_the_probe_tells_which_node_and_why(tmp_path: Path) -> None:
    assert cluster._probe(str(tmp_path), None) is None
    missing = cluster._probe(str(tmp_path), str(tmp_path / ".probe-1" / "node"))
    assert missing is not None
    assert "does not see the folder" in missing
    (tmp_path / "file").write_bytes(b"")
    refused = cluster._probe(str(tmp_path / "file"), None)
    assert refused is not None
    assert "cannot write" in refused
    with pytest.raises(UserError, match="expected a folder or s3"):
        open_storage("gs://bucket/place")

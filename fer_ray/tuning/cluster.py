"""What the nodes of a running cluster need before the first trial: the package, the data, and a place for results."""

import json
import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_ray.config import NAMED_WEIGHTS, RunConfig
from fer_ray.data import transfer
from fer_ray.errors import UserError
from fer_ray.experiment import Experiment, file_digest
from fer_ray.storage import Storage, open_storage
from fer_ray.tuning.machines import QUIET

PROBE_SECONDS = 180
"""How long a node may take to write and read back a file of the storage; its worker's start is part of it."""

NOT_SENT = ("__pycache__", "*.onnx")
"""Files of the package that no trial reads: faces are found and aligned on the driver, when data enter its cache."""


@contextmanager
def runtime_env() -> Iterator[dict[str, Any]]:
    """The runtime environment for `ray.init` on a cluster: this package, and the settings that workers read.

    Ray takes one folder as a package, and ours may be three (`analysis/` and `search_spaces/` are mapped into it). The
    copy says which commit it was made from, and is deleted afterwards, as Ray has it then.
    """
    import fer_ray.analysis
    import fer_ray.search_spaces
    from fer_ray.training import runtime

    with tempfile.TemporaryDirectory(prefix="fer_ray-") as scratch:
        package = Path(scratch) / "fer_ray"
        for module in (fer_ray, fer_ray.analysis, fer_ray.search_spaces):
            target = package.joinpath(*module.__name__.split(".")[1:])
            shutil.copytree(module.__path__[0], target, ignore=shutil.ignore_patterns(*NOT_SENT), dirs_exist_ok=True)
        (package / runtime.COMMIT_FILE).write_text(json.dumps(runtime.commit()), encoding="utf-8")
        yield {"py_modules": [str(package)], "env_vars": {name: os.environ.get(name, QUIET[name]) for name in QUIET}}


@dataclass(frozen=True)
class Shipment:
    """The data of a sweep for its trials, wherever they run: small itself, as files stay here until they are asked for.

    A node that lacks a file reads it from the driver's, piece by piece through Ray, into its own cache. Trials of a
    sweep thus train on what the driver opened, whatever lies at the same path of their node.

    Attributes:
        driver_node: Ray's id of the node that has the files.
        experiments: FER+ vote mode -> experiment, packed by `transfer.pack`.
        folders: of the driver's cache, that the experiments need.
        weights: path in `model.weights` -> digest of that file, and its folder for a cache.
    """

    driver_node: str
    experiments: bytes
    folders: tuple[transfer.Folder, ...]
    weights: Mapping[str, tuple[str, transfer.Folder]]

    def install(self) -> None:
        """Brings what this node lacks into its cache; once per node, however many trials it gets.

        Raises UserError when the cache cannot be written, or the driver's files are gone or others by now.
        """
        for sent in self.folders:
            transfer.receive(sent, self._read)
        for path, (digest, sent) in self.weights.items():
            if _has_content(path, digest):
                continue
            transfer.receive(sent, self._read)
            if not _has_content(sent.path / Path(path).name, digest):
                shutil.rmtree(sent.path, ignore_errors=True)
                raise UserError(f"model.weights: {path} changed on the driver's machine; start the sweep again")

    def experiment(self, config: RunConfig) -> Experiment:
        """The data of a run as the driver opened and divided them, from this node's cache. `install` comes first."""
        return transfer.unpack(self.experiments)[config.data.votes]

    def weights_file(self, config: RunConfig) -> Path | None:
        """Where the file of `model.weights` lies on this node; None where it names none."""
        if config.model.weights in NAMED_WEIGHTS:
            return None
        digest, sent = self.weights[config.model.weights]
        path = Path(config.model.weights)
        return path if _has_content(path, digest) else sent.path / path.name

    def _read(self, path: str, start: int, count: int) -> np.ndarray:
        import ray

        piece = ray.remote(_piece).options(**_on_node(self.driver_node))
        try:
            return ray.get(piece.remote(path, start, count))
        except ray.exceptions.RayError as error:
            raise UserError(f"cannot get {path} from the machine of the driver: {_reason(error)}") from error


def ship(experiments: Mapping[str, Experiment], configs: Iterable[RunConfig]) -> Shipment:
    """What trials on other nodes need of this machine: the opened data (`Plan.experiments`) and files of weights."""
    import ray

    packed, folders = transfer.pack(dict(experiments))
    weights = {}
    for path in sorted({config.model.weights for config in configs}.difference(NAMED_WEIGHTS)):
        digest = file_digest(path)
        weights[path] = digest, transfer.folder(f"weights/{digest}", Path(path))
    return Shipment(ray.get_runtime_context().get_node_id(), packed, tuple(folders), weights)


def probe_storage(location: str) -> None:
    """Writes, replaces and reads back a file of the storage on every living node; a folder must be the same on all.

    Raises UserError that names the node and the reason.
    """
    import ray

    storage = open_storage(location)
    storage.probe()
    # Found under its name by every node, and theirs here: it is one folder, not one of the same name on each.
    mark = None if storage.is_remote else storage.folder / f".probe-{uuid.uuid4().hex[:8]}"
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    try:
        if mark is not None:
            mark.mkdir()
        answers = {
            node: ray.remote(_probe)
            .options(**_on_node(node))
            .remote(location, None if mark is None else str(mark / node))
            for node in nodes
        }
        for node, answer in answers.items():
            try:
                problem = ray.get(answer, timeout=PROBE_SECONDS)
            except ray.exceptions.RayError as error:
                if not any(other["Alive"] for other in ray.nodes() if other["NodeID"] == node):
                    continue  # it left meanwhile
                problem = _reason(error)
            if problem is None and mark is not None and not (mark / node).exists():
                problem = _NOT_SHARED
            if problem is not None:
                raise UserError(f"--storage {location} cannot be used from node {nodes[node]}: {problem}")
    finally:
        if mark is not None:
            shutil.rmtree(mark, ignore_errors=True)


def check_shared(storage: Storage) -> None:
    """In a trial: raises UserError where its node, perhaps one that joined after the probe, has another folder."""
    if not storage.is_remote and not (storage.folder / "sweep.json").exists():
        raise UserError(f"--storage {storage.location} cannot be used from node {platform.node()}: {_NOT_SHARED}")


_NOT_SHARED = (
    "it does not see the folder that the driver wrote there; give a folder that all nodes share, or s3://bucket/prefix"
)


def _probe(location: str, mark: str | None) -> str | None:
    """On a node: what is wrong with the storage there, or None. `mark` is a file to write into the driver's folder."""
    if mark is not None and not Path(mark).parent.is_dir():
        return _NOT_SHARED
    try:
        open_storage(location).probe()
        if mark is not None:
            Path(mark).touch()
    except UserError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _piece(path: str, start: int, count: int) -> np.ndarray:
    """On the driver's node: uint8 [count], a part of a file."""
    return np.fromfile(path, np.uint8, count, offset=start)


def _has_content(path: str | Path, digest: str) -> bool:
    return Path(path).is_file() and file_digest(str(path)) == digest


def _on_node(node: str) -> dict[str, Any]:
    """Options of a task that runs on that node and takes nothing from its trials."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"num_cpus": 0, "max_retries": 3, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def _reason(error: Exception) -> str:
    """One line of what Ray says, the cause where there is one."""
    cause = getattr(error, "cause", None)
    return str(cause or error).strip().splitlines()[-1]

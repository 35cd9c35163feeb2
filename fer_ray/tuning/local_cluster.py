"""A Ray cluster of several nodes on this machine, in a process of its own: for tests, and to measure what faults cost.

Each node has its own cache folder, as on machines of its own. A driver joins by `address` with `environment`, and its
death leaves the cluster alone.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GRACE_SECONDS = 30
LOOPBACK = "127.0.0.1"


class LocalCluster:
    """A head that runs no trials, and nodes that come and go. A context manager; at its end only its own end.

    Attributes:
        address: for `--address`.
        dashboard: for `ray job submit --address`; needs ray[default].
        folder: of its caches, one per node, and of Ray's session; deleted at the end.
        nodes: ids of the nodes that are up, the head not among them.
    """

    def __init__(self, num_nodes: int, *, cpus_per_node: int = 1, with_dashboard: bool = False) -> None:
        # Sockets lie in it, whose paths may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
        self._cpus, self._token = cpus_per_node, secrets.token_hex(32)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fer_ray.tuning.local_cluster"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "cluster.log").open("wb"),
            env=self.environment(),
            start_new_session=True,  # Ctrl-C ends the driver, not the cluster
            text=True,
        )
        self.nodes: list[str] = []
        self._caches: dict[str, str] = {}
        try:
            cache = {"FER_RAY_CACHE": str(self.folder / "cache-head")}
            self.address, self.dashboard = self._ask("start", env=cache, dashboard=with_dashboard)
            for _ in range(num_nodes):
                self.add_node()
        except BaseException:
            self.close()
            raise

    def environment(self) -> dict[str, str]:
        """The environment of a driver: this process's, with the cluster's token."""
        return {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_TMPDIR": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keep to the loopback address
        }

    def cache(self, node: str) -> Path:
        """The cache folder of a node, also of one that is gone."""
        return self.folder / self._caches[node]

    def add_node(self) -> str:
        """Starts a node with a cache folder of its own, waits for it, and returns its id."""
        name = f"cache-{len(self._caches)}"
        node: str = self._ask("add", cpus=self._cpus, env={"FER_RAY_CACHE": str(self.folder / name)})
        self._caches[node] = name
        self.nodes.append(node)
        return node

    def kill_node(self, node: str) -> None:
        """Ends all processes of a node with SIGKILL, as a machine does that loses its power."""
        self.nodes.remove(node)
        self._ask("remove", node=node)

    def workers(self) -> list[int]:
        """Process ids of the trials that run on the nodes."""
        found: list[int] = self._ask("workers")
        return found

    def close(self) -> None:
        """Ends the cluster."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(GRACE_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, what: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the cluster's process ended: {(self.folder / 'cluster.log').read_text()[-2000:]}")
        return json.loads(line)


def _serve() -> None:
    """The cluster's process: a command per line of standard input, answered by a line; its end ends the cluster."""
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints goes to the log
    cluster = Cluster()
    nodes: dict[str, Any] = {}
    try:
        for line in sys.stdin:
            command = json.loads(line)
            what = command.pop("what")
            answer: Any = None
            if what == "start":
                head = cluster.add_node(
                    num_cpus=0,
                    env_vars=command["env"],
                    node_ip_address=LOOPBACK,
                    include_dashboard=command["dashboard"],
                    dashboard_port=0,
                    dashboard_agent_listen_port=0,
                )
                answer = cluster.address, f"http://{head.webui_url}"
            elif what == "add":
                node = cluster.add_node(num_cpus=command["cpus"], env_vars=command["env"], node_ip_address=LOOPBACK)
                answer = node.node_id
                nodes[answer] = node
            elif what == "remove":
                cluster.remove_node(nodes.pop(command["node"]), allow_graceful=False)
            elif what == "workers":
                raylets = [
                    node.all_processes[ray_constants.PROCESS_TYPE_RAYLET][0].process.pid for node in nodes.values()
                ]
                answer = _trials_of(raylets)
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        cluster.shutdown()


def _trials_of(raylets: list[int]) -> list[int]:
    """Process ids of these raylets' workers that run a method of an actor; those of plain tasks and agents do not."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(None, 2) for line in listed.splitlines())
    return [int(pid) for pid, parent, title in rows if int(parent) in raylets and re.match(r"ray::\w+\.", title)]


if __name__ == "__main__":
    _serve()

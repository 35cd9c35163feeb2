"""Ray on this machine or on a cluster: starting or joining it, and what a trial may ask of it."""

import logging
import os
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path

from fer_ray.errors import UserError

AUTOSCALER_WAIT_SECONDS = 5
"""How long an autoscaler may take to tell what it can add, before a request counts as one that cannot be met."""

QUIET = {
    # Tune's own logger callbacks and folders per trial are not needed: a trial writes its own files.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C comes to us, who know what to say about it.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A failed trial has no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # A stopped trial writes its row before its worker takes the next; after 2 s Tune would lose that next one.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # Its own record of the sweep is never read.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A trial that asks for no GPU sees none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Resources:
    """What one trial asks for, and how many run at once.

    `gpus_per_trial` None asks for one where the cluster has GPUs; `concurrency` None fills the cluster.
    """

    cpus_per_trial: float = 1
    gpus_per_trial: float | None = None
    concurrency: int | None = None


def local_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def set_environment(address: str | None) -> None:
    """Sets the variables that Ray reads when it is imported; call it before that."""
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
    if address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # Ray binds to a loopback address only where it believes that there is no cluster.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def start_ray(address: str | None) -> None:
    """Starts Ray on this machine's cores, bound to loopback and with a token of its own, or joins a running cluster.

    `set_environment` comes first. Raises UserError when the cluster does not answer.
    """
    import ray

    # What Ray logs as an error, with its traceback, is the end of a trial's process; the view says it in a line.
    try:
        if address is None:
            ray.init(
                address="local",  # whatever RAY_ADDRESS says
                num_cpus=local_cores(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
        else:
            from fer_ray.tuning.cluster import runtime_env

            with runtime_env() as env:
                ray.init(address=address, runtime_env=env, log_to_driver=False, logging_level=logging.CRITICAL)
    except UserError:
        raise
    except Exception as error:  # Ray raises bare ones too, when its processes take too long to start
        reason = str(error).partition("\n")[0]
        if address is None:
            raise UserError(
                f"Ray cannot be started here ({reason}). Is the machine very busy, or its disk or memory full?"
            ) from error
        raise UserError(
            f"--address {address}: Ray cannot be reached ({reason}). "
            "Check the address with `ray status`, and RAY_AUTH_TOKEN if the cluster asks for one"
        ) from error


def check_resources(resources: Resources) -> None:
    """Raises UserError within 10 s if no node, present or one that an autoscaler may add, can hold one trial."""
    deadline = time.monotonic() + AUTOSCALER_WAIT_SECONDS
    while True:
        nodes = _node_resources()
        if _fits(resources, nodes):
            return
        if not _has_autoscaler() or time.monotonic() > deadline:
            raise _too_large(resources, nodes)
        time.sleep(0.5)


def check_local_resources(resources: Resources) -> None:
    """The same for this machine alone, before Ray is started on it."""
    nodes = [local_resources()]
    if not _fits(resources, nodes):
        raise _too_large(resources, nodes)


def _fits(resources: Resources, nodes: list[dict[str, float]]) -> bool:
    needed = wanted(resources)
    return any(all(node.get(name, 0) >= amount for name, amount in needed.items()) for node in nodes)


def wanted(resources: Resources) -> dict[str, float]:
    """What a trial asks Ray for, by the names that Ray knows."""
    return {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial or 0}


def _too_large(resources: Resources, nodes: list[dict[str, float]]) -> UserError:
    needed = wanted(resources)
    largest = {name: max((node.get(name, 0) for node in nodes), default=0) for name in needed}
    return UserError(
        f"a trial asks for {needed['CPU']:g} CPUs and {needed['GPU']:g} GPUs on one node; the cluster's largest nodes "
        f"have {largest['CPU']:g} CPUs and {largest['GPU']:g} GPUs, and nothing larger can be added. "
        "Lower --cpus-per-trial or --gpus-per-trial"
    )


def _node_resources() -> list[dict[str, float]]:
    """Resources of every node that lives, and of every kind of node that the autoscaler may add."""
    import ray
    from ray._private.state import state

    nodes = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    config = state.get_cluster_config()
    if config is not None:
        nodes += [dict(group.resources) for group in config.node_group_configs if group.max_count != 0]
    return nodes


def _has_autoscaler() -> bool:
    from ray._private.state import state

    return state.get_cluster_config() is not None or "RAY_CLUSTER_NAME" in os.environ


def within_memory(resources: Resources, peak_mb: float) -> Resources:
    """Fewer trials at once where this machine's free memory cannot hold as many peaks; at least 1."""
    try:
        meminfo = Path("/proc/meminfo").read_text()
        available_mb = int(meminfo.split("MemAvailable:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        return resources
    held = slots(resources)
    fit = max(1, min(held, int(available_mb // peak_mb))) if peak_mb else held
    return resources if fit == held else replace(resources, concurrency=fit)


def local_resources() -> dict[str, float]:
    """CPUs and GPUs of this machine, as Ray would count them."""
    import torch

    return {"CPU": local_cores(), "GPU": torch.cuda.device_count()}


def resolve(resources: Resources, total: dict[str, float] | None = None) -> Resources:
    """`resources` with `gpus_per_trial` decided by the `total` resources, by default those of the cluster."""
    if resources.gpus_per_trial is not None:
        return resources
    return replace(resources, gpus_per_trial=int((total or _cluster_resources()).get("GPU", 0) > 0))


def slots(resources: Resources, total: dict[str, float] | None = None) -> int:
    """Trials that `total`, by default the cluster as it stands, can hold at once, at least 1."""
    total = total or _cluster_resources()
    fit = [
        total.get(name, 0) // amount
        for name, amount in (("CPU", resources.cpus_per_trial), ("GPU", resources.gpus_per_trial))
        if amount
    ]
    held = int(min(fit, default=1)) or 1
    return min(held, resources.concurrency or held)


def _cluster_resources() -> dict[str, float]:
    import ray

    return ray.cluster_resources()


def stop_ray() -> None:
    """Leaves the cluster; a Ray that `start_ray` started on this machine ends with it."""
    import ray

    ray.shutdown()

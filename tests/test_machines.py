"""What a trial may ask of this machine or of a cluster, decided without starting Ray."""

import os
from types import SimpleNamespace

import pytest
import ray
from ray._private.state import state

from fer_ray.errors import UserError
from fer_ray.tuning import machines
from fer_ray.tuning.machines import Resources
from fer_ray.tuning.preflight import Cost


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):
    """Makes Ray describe nodes of these resources, and an autoscaler of those groups (resources, max_count)."""

    def describe(*nodes: dict[str, float], groups: list[tuple[dict[str, float], int]] | None = None) -> None:
        total = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        config = None
        if groups is not None:
            config = SimpleNamespace(
                node_group_configs=[SimpleNamespace(resources=r, max_count=count) for r, count in groups]
            )
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
        monkeypatch.setattr(ray, "cluster_resources", lambda: total)
        monkeypatch.setattr(state, "get_cluster_config", lambda: config)
        monkeypatch.setattr(machines.time, "sleep", lambda _: None)
        clock = iter(range(10_000))
        monkeypatch.setattr(machines.time, "monotonic", lambda: next(clock))

    return describe


def test_a_request_that_a_node_can_hold_is_accepted(cluster) -> None:
    cluster({"CPU": 2}, {"CPU": 8, "GPU": 1})
    machines.check_resources(Resources(8, 0.5))


@pytest.mark.parametrize("wanted", [Resources(9, 0), Resources(1, 1), Resources(4, 1)])
def test_a_request_is_refused_though_two_nodes_together_would_hold_it(cluster, wanted: Resources) -> None:
    cluster({"CPU": 8}, {"CPU": 2, "GPU": 0.5})
    with pytest.raises(UserError, match=r"largest nodes have 8 CPUs and 0\.5 GPUs.*Lower --cpus-per-trial"):
        machines.check_resources(wanted)


def test_what_an_autoscaler_may_add_counts_and_what_it_may_not_add_does_not(cluster) -> None:
    cluster({"CPU": 2}, groups=[({"CPU": 32}, 3), ({"CPU": 64, "GPU": 8}, 0)])
    machines.check_resources(Resources(32, 0))
    with pytest.raises(UserError, match=r"64 CPUs and 0 GPUs on one node; .* have 32 CPUs and 0 GPUs"):
        machines.check_resources(Resources(64, 0))


def test_an_autoscaler_that_stays_silent_is_waited_for_less_than_ten_seconds(cluster) -> None:
    cluster({"CPU": 2}, groups=[])
    with pytest.raises(UserError):
        machines.check_resources(Resources(4, 0))
    assert machines.AUTOSCALER_WAIT_SECONDS < 10


@pytest.mark.parametrize(
    ("resources", "slots"),
    [
        (Resources(1), 6),
        (Resources(4), 1),
        (Resources(1, 0.5), 2),
        (Resources(1, concurrency=2), 2),
        (Resources(1, concurrency=99), 6),
        (Resources(32), 1),
    ],
)
def test_slots_are_what_the_cluster_holds_at_once(cluster, resources: Resources, slots: int) -> None:
    cluster({"CPU": 6, "GPU": 1})
    assert machines.slots(resources) == slots


def test_wall_time_is_work_shared_but_never_less_than_the_longest_trial() -> None:
    cost = Cost({"a": 10.0, "b": 20.0, "c": 30.0})
    assert cost.wall_seconds(1) == 60
    assert cost.wall_seconds(2) == 30
    assert cost.wall_seconds(100) == 30


def test_a_share_of_a_gpu_packs_trials_and_one_is_taken_where_there_is_one(cluster) -> None:
    cluster({"CPU": 32, "GPU": 1})
    assert machines.slots(Resources(1, 0.125)) == 8
    assert machines.resolve(Resources(1)).gpus_per_trial == 1
    assert machines.resolve(Resources(1, 0)).gpus_per_trial == 0
    cluster({"CPU": 32})
    assert machines.resolve(Resources(1)).gpus_per_trial == 0


def test_memory_that_holds_fewer_trials_than_the_cores_lowers_how_many_run(cluster) -> None:
    cluster({"CPU": 8})
    resources = machines.resolve(Resources(1))
    assert machines.within_memory(resources, peak_mb=0.001) == resources
    assert machines.slots(machines.within_memory(resources, peak_mb=1e9)) == 1


def test_a_machine_of_ones_own_gets_a_new_token_and_a_cluster_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"RAY_AUTH_TOKEN": "the cluster's"})
    machines.set_environment("head:6379")
    assert os.environ["RAY_AUTH_TOKEN"] == "the cluster's"
    machines.set_environment(None)
    first = os.environ["RAY_AUTH_TOKEN"]
    machines.set_environment(None)
    assert len({"the cluster's", first, os.environ["RAY_AUTH_TOKEN"]}) == 3
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_ray_that_does_not_start_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nmore")

    monkeypatch.setattr(ray, "init", slow)
    with pytest.raises(UserError, match=r"Ray cannot be started here \(The current node timed out during startup\.\)"):
        machines.start_ray(None)

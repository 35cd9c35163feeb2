"""What decides about a sweep around Ray, without Ray: resources, the view and the rows of lost trials."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private.state import state
from rich.console import Console

from fer_ray import results, run
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.tuning import search
from fer_ray.tuning.live import LiveView
from fer_ray.tuning.preflight import Cost
from fer_ray.tuning.search import Resources
from fer_ray.tuning.trial import trial, write_lost


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
        monkeypatch.setattr(search.time, "sleep", lambda _: None)
        clock = iter(range(10_000))
        monkeypatch.setattr(search.time, "monotonic", lambda: next(clock))

    return describe


def test_a_request_that_a_node_can_hold_is_accepted(cluster) -> None:
    cluster({"CPU": 2}, {"CPU": 8, "GPU": 1})
    search.check_resources(Resources(8, 0.5))


@pytest.mark.parametrize("wanted", [Resources(9, 0), Resources(1, 1), Resources(4, 1)])
def test_a_request_is_refused_though_two_nodes_together_would_hold_it(cluster, wanted: Resources) -> None:
    cluster({"CPU": 8}, {"CPU": 2, "GPU": 0.5})
    with pytest.raises(UserError, match=r"largest nodes have 8 CPUs and 0\.5 GPUs.*Lower --cpus-per-trial"):
        search.check_resources(wanted)


def test_what_an_autoscaler_may_add_counts_and_what_it_may_not_add_does_not(cluster) -> None:
    cluster({"CPU": 2}, groups=[({"CPU": 32}, 3), ({"CPU": 64, "GPU": 8}, 0)])
    search.check_resources(Resources(32, 0))
    with pytest.raises(UserError, match=r"64 CPUs and 0 GPUs on one node; .* have 32 CPUs and 0 GPUs"):
        search.check_resources(Resources(64, 0))


def test_an_autoscaler_that_stays_silent_is_waited_for_less_than_ten_seconds(cluster) -> None:
    cluster({"CPU": 2}, groups=[])
    with pytest.raises(UserError):
        search.check_resources(Resources(4, 0))
    assert search.AUTOSCALER_WAIT_SECONDS < 10


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
    assert search.slots(resources) == slots


def test_wall_time_is_work_shared_but_never_less_than_the_longest_trial() -> None:
    cost = Cost({"a": 10.0, "b": 20.0, "c": 30.0})
    assert cost.wall_seconds(1) == 60
    assert cost.wall_seconds(2) == 30
    assert cost.wall_seconds(100) == 30


def cell(name: str, root: Path = Path("nowhere"), **values: Any) -> dict[str, Any]:
    return {"id": name, "config": RunConfig.from_flat({"training.epochs": 4, **values}).flat(), "root": str(root)}


def as_trial(cell: dict[str, Any]) -> Any:
    return SimpleNamespace(config={"cell": cell})


def ended(status: str = results.FINISHED, f1: float = 0.5, error: str | None = None) -> dict[str, Any]:
    scores = {"validation_accuracy": 0.6, "validation_macro_f1": f1, "wall_seconds": 3.0}
    return {"ended": True, "epoch": 4, "status": status, "error": error, **scores}


@pytest.fixture
def console() -> Console:
    return Console(width=200, record=True, force_terminal=False, markup=False, color_system=None)


def shown(view: LiveView, console: Console) -> str:
    console.print(view._render())
    return console.export_text()


def test_the_view_counts_what_is_done_running_failed_and_waiting(console: Console) -> None:
    cells = [cell(name) for name in "abcd"]
    view = LiveView(console, cells, already_finished=3, slots=2)
    view.on_trial_start(0, [], as_trial(cells[0]))
    view.on_trial_result(0, [], as_trial(cells[0]), ended(f1=0.25))
    view.on_trial_start(0, [], as_trial(cells[1]))
    view.on_trial_result(0, [], as_trial(cells[1]), ended(results.FAILED, error="loss is not finite [/at] step 7"))
    view.on_trial_start(0, [], as_trial(cells[2]))
    view.on_trial_result(0, [], as_trial(cells[2]), {"epoch": 3, "time_this_iter_s": 10.0})
    assert view.failed == 1
    text = shown(view, console)
    assert "1 done, 1 running, 1 failed, 3 from before, 1 waiting" in text
    assert "running  c  epoch 3/4" in text
    assert "best     a  validation accuracy 0.600, macro F1 0.250" in text
    assert "failed b: loss is not finite [/at] step 7" in text
    # One epoch of c and four of d, at 10 s each, on two slots.
    assert "about 25 s left" in text


def test_time_left_is_unknown_before_the_first_epoch(console: Console) -> None:
    assert "time left unknown" in shown(LiveView(console, [cell("a")], already_finished=0, slots=1), console)


def test_time_left_knows_slow_networks_from_fast_ones(console: Console) -> None:
    models = {"a": "ResNet50", "b": "ResNet18", "c": "ResNet18"}
    cells = [cell(name, **{"model.name": model}) for name, model in models.items()]
    view = LiveView(console, cells, already_finished=0, slots=1)
    view.on_trial_result(0, [], as_trial(cells[0]), {"epoch": 4, "time_this_iter_s": 100.0})
    view.on_trial_result(0, [], as_trial(cells[1]), {"epoch": 1, "time_this_iter_s": 2.0})
    assert "about 14 s left" in shown(view, console)


def test_a_worker_that_died_leaves_a_failed_row(console: Console, tmp_path: Path) -> None:
    lost = cell("lost", tmp_path)
    view = LiveView(console, [lost], already_finished=0, slots=1)
    view.on_trial_error(0, [], as_trial(lost))
    (row,) = results.read_rows(tmp_path)
    assert (row["id"], row["status"]) == ("lost", results.FAILED)
    assert "process died" in row["error"]
    assert view.failed == 1


def test_a_row_that_was_written_before_the_worker_died_stays(tmp_path: Path) -> None:
    config = RunConfig.from_flat(cell("x")["config"])
    run.write_failure(config, "x", tmp_path, "what really happened", "")
    write_lost(cell("x", tmp_path), "its process died")
    assert results.read_rows(tmp_path)[0]["error"] == "what really happened"


def test_any_failure_of_a_trial_is_a_row_and_a_report_not_an_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import tune

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(run, "execute", broken)
    monkeypatch.setattr(tune, "report", reports.append)
    trial({"cell": cell("x", tmp_path)})
    assert [(report["ended"], report["status"]) for report in reports] == [(True, results.FAILED)]
    (row,) = results.read_rows(tmp_path)
    assert row["error"] == "ZeroDivisionError: division by zero"
    assert "in broken" in (tmp_path / "trials" / "x" / "traceback.txt").read_text()

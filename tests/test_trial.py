"""One cell in a worker: what is trained, written and reported, without Ray."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TinyFaces
from designs import sources_of
from ray import tune
from tune_trials import cell

from fer_ray import results, run
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.experiment import open_experiment
from fer_ray.storage import Storage
from fer_ray.tuning import trial as module
from fer_ray.tuning.trial import Cell, trial, write_lost


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Tune is told."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", lambda values, checkpoint=None: found.append(values))
    monkeypatch.setattr(tune, "get_checkpoint", lambda: None)
    return found


@pytest.fixture
def tiny(tiny_faces: TinyFaces, tmp_path: Path) -> Cell:
    """A run of two short epochs, with its true id."""
    values = {
        **sources_of(tiny_faces),
        "model.name": "ShuffleNetV2-x1.0",
        "data.image_size": 32,
        "data.num_train_images": 32,
        "training.epochs": 2,
        "training.batch_size": 16,
        "runtime.threads": 1,
        "runtime.device": "cpu",
        "runtime.checkpoint_seconds": 0,
    }
    config = RunConfig.from_flat(values)
    return cell(config.run_id(open_experiment(config).signature(config)), tmp_path, **values)


def test_every_epoch_is_reported_and_then_the_end(tiny: Cell, tmp_path: Path, reports: list[dict[str, Any]]) -> None:
    trial({"cell": tiny})
    assert [(r["epoch"], r.get("ended", False)) for r in reports] == [(1, False), (2, False), (2, True)]
    (row,) = results.read_rows(tmp_path)
    assert (row["status"], row["proposal"], row["id"]) == (results.FINISHED, 7, tiny["id"])
    assert reports[-1]["status"] == results.FINISHED
    assert reports[-1]["validation_macro_f1"] == row["validation_macro_f1"]
    assert not (tmp_path / "checkpoints" / tiny["id"]).exists()

    # Once more, it is not trained but answered; `again` trains it.
    del reports[:]
    trial({"cell": tiny})
    assert [(r["epoch"], r["ended"]) for r in reports] == [(2, True)]
    assert results.read_rows(tmp_path) == [row]
    trial({"cell": {**tiny, "again": True}})
    assert len(reports) == 4
    assert results.read_rows(tmp_path)[0]["started_at"] != row["started_at"]


def test_a_trial_that_tune_stops_leaves_a_row_without_a_test_and_its_checkpoint(
    tiny: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[dict[str, Any]]
) -> None:
    def stop(values: dict[str, Any], checkpoint: object = None) -> None:
        reports.append(values)
        raise SystemExit(0)

    with monkeypatch.context() as patch:
        patch.setattr(tune, "report", stop)
        with pytest.raises(SystemExit):  # Tune's own way, or it would wait for another report
            trial({"cell": tiny})
    assert [r["epoch"] for r in reports] == [1]
    (row,) = results.read_rows(tmp_path)
    assert (row["status"], row["epochs_run"], row["test_reads"]) == (results.STOPPED, 1, 0)
    assert row["validation_macro_f1"] is not None
    assert not [name for name in row if name.startswith("test_") and name not in ("test_reads", "test_name")]
    assert list((tmp_path / "checkpoints" / tiny["id"]).iterdir())

    # It goes on after that epoch when it comes again, to the numbers of an undisturbed run.
    del reports[:]
    trial({"cell": tiny})
    assert [(r["epoch"], r.get("is_restored", False)) for r in reports] == [(1, True), (2, False), (2, False)]
    (after,) = results.read_rows(tmp_path)
    undisturbed = run.execute(RunConfig.from_flat(tiny["config"]), tmp_path / "other", tags=tiny["tags"])
    skipped = {*results.COST_COLUMNS, "git_commit", "git_dirty"}
    assert {k: v for k, v in after.items() if k not in skipped} == json.loads(
        json.dumps({k: v for k, v in undisturbed.items() if k not in skipped})
    )


def test_a_paused_trial_reports_only_what_tune_does_not_know(
    tiny: Cell, monkeypatch: pytest.MonkeyPatch, reports: list[dict[str, Any]], tmp_path: Path
) -> None:
    kept: list[int] = []

    def report(values: dict[str, Any], checkpoint: Any = None) -> None:
        reports.append(values)
        if checkpoint is not None:
            kept.append(json.loads(Path(checkpoint.path, "epoch.json").read_text()))
        if values["epoch"] == 1:
            raise SystemExit(0)

    monkeypatch.setattr(tune, "report", report)
    with pytest.raises(SystemExit):
        trial({"cell": {**tiny, "pausable": True}})
    assert kept == [1]
    folder = tmp_path / "pause"
    folder.mkdir()
    (folder / "epoch.json").write_text("1")
    monkeypatch.setattr(tune, "get_checkpoint", lambda: tune.Checkpoint.from_directory(str(folder)))
    trial({"cell": {**tiny, "pausable": True}})
    assert [(r["epoch"], r.get("ended", False)) for r in reports] == [(1, False), (2, False), (2, True)]
    assert kept == [1, 2]


def test_weights_and_checkpoints_reach_the_storage_before_the_epoch_is_reported(
    tiny: Cell, monkeypatch: pytest.MonkeyPatch, reports: list[dict[str, Any]]
) -> None:
    events: list[str] = []
    monkeypatch.setattr(Storage, "push", lambda self, *names: events.extend(names))
    monkeypatch.setattr(tune, "report", lambda values, checkpoint=None: events.append(f"epoch {values['epoch']}"))
    trial({"cell": tiny})
    of_epochs = [event for number in (1, 2) for event in (f"checkpoints/{tiny['id']}", f"epoch {number}")]
    assert events == [*of_epochs, f"trials/{tiny['id']}", "epoch 2"]


def test_any_failure_is_tried_once_more_and_then_a_row_and_a_report_not_an_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[dict[str, Any]]
) -> None:
    calls = []

    def broken(*_: object, **__: object) -> None:
        calls.append(1)
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(run, "execute", broken)
    trial({"cell": cell("x", tmp_path)})
    assert len(calls) == 1 + module.RETRIES
    assert [(r["ended"], r["status"]) for r in reports] == [(True, results.FAILED)]
    (row,) = results.read_rows(tmp_path)
    assert (row["error"], row["proposal"]) == ("ZeroDivisionError: division by zero", 7)
    assert "in broken" in (tmp_path / "trials" / "x" / "traceback.txt").read_text()


def test_what_the_user_must_mend_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[dict[str, Any]]
) -> None:
    calls = []

    def refused(*_: object, **__: object) -> None:
        calls.append(1)
        raise UserError("no space left")

    monkeypatch.setattr(run, "execute", refused)
    trial({"cell": cell("x", tmp_path)})
    assert len(calls) == 1
    assert reports[0]["error"] == "no space left"


def test_a_finished_row_that_was_written_before_the_worker_died_stays(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "x"
    folder.mkdir(parents=True)
    results.write_json(folder / "row.json", {"id": "x", "status": results.FINISHED})
    write_lost(cell("x", tmp_path), tmp_path, "its process died")
    assert results.read_rows(tmp_path)[0]["status"] == results.FINISHED

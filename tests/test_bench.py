"""The measurements of a search against a grid and of Tune's overhead: what they count, and their arithmetic."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from conftest import TinyFaces
from scipy import stats

from fer_ray import results
from fer_ray.bench import overhead, search, search_grid, search_space
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.proposals import Proposal, ProposedRun, write_proposal
from fer_ray.tuning import samplers


def test_the_grid_has_48_different_cells_that_are_valid() -> None:
    cells = [RunConfig.from_flat({**search_grid.BASE, **cell}) for cell in search_grid.SPACE.cells()]
    assert len(set(cells)) == len(cells) == 48


def test_the_search_draws_the_cells_of_the_grid_and_no_others() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [search_space.suggest(study.ask()) for _ in range(1000)]
    cells = search_grid.SPACE.cells()
    assert {tuple(sorted(values.items())) for values in drawn} == {tuple(sorted(cell.items())) for cell in cells}
    assert search_space.SPACE.seeds == search_grid.SPACE.seeds
    assert not set(search.FRESH_SEEDS) & set(search_grid.SPACE.seeds)


def test_the_search_begins_with_the_usual_rate_of_each_optimizer() -> None:
    points = samplers.examples(search_space.SPACE, RunConfig.from_flat(search_grid.BASE))
    begun = [points[number].config.optimizer for number in range(len(search_grid.OPTIMIZERS))]
    assert {optimizer.name: optimizer.learning_rate for optimizer in begun} == search_space.USUAL


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    ours, theirs = [0.47, 0.48, 0.465, 0.49, 0.47], [0.46, 0.475, 0.47, 0.48, 0.45]
    found = search.difference(ours, theirs)
    golden = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert (found.low, found.high) == pytest.approx((golden.low, golden.high))


def write_run(root: Path, name: str, *, status: str, accuracy: float | None, num_images: int) -> RunConfig:
    """A run's row and config; the config has the run's accuracy as its dropout, to know it again."""
    config = RunConfig.from_flat({"model.dropout": accuracy or 0.0})
    row = {"id": name, "status": status, "validation_accuracy": accuracy, "images_seen": num_images}
    nothing = pd.DataFrame(columns=list(results.EPOCH_COLUMNS))
    results.write_trial(
        root / "trials" / name, results.Trial(row, nothing, pd.DataFrame()), {"config.json": config.model_dump_json()}
    )
    return config


def test_an_arm_of_a_grid_counts_all_images_and_picks_the_best_cell(tmp_path: Path) -> None:
    write_run(tmp_path, "a", status="finished", accuracy=0.4, num_images=100)
    best = write_run(tmp_path, "b", status="finished", accuracy=0.5, num_images=100)
    write_run(tmp_path, "c", status="failed", accuracy=None, num_images=30)
    assert search.read_arm(tmp_path) == search.Arm(230, 2, 0, best, 0.5)


def test_an_arm_of_a_search_counts_what_was_stopped_and_picks_from_what_went_to_its_end(tmp_path: Path) -> None:
    runs = {"a": ("finished", 0.4, 100), "b": ("stopped", 0.6, 20), "c": ("finished", 0.5, 100)}
    info = {"kind": "search", "objectives": ["validation_accuracy"], "directions": ["maximize"]}
    configs = {}
    for number, (name, (status, accuracy, num_images)) in enumerate(runs.items()):
        configs[name] = write_run(tmp_path, name, status=status, accuracy=accuracy, num_images=num_images)
        is_finished = status == "finished"
        proposal = Proposal(
            number=number,
            source="sampler",
            params={},
            distributions={},
            config={},
            state="complete" if is_finished else "pruned",
            runs=[ProposedRun(name, 0, "finished" if is_finished else "stopped")],
            values=[accuracy] if is_finished else None,
        )
        write_proposal(tmp_path, proposal)
    results.write_json(tmp_path / "sweep.json", info)
    assert search.read_arm(tmp_path) == search.Arm(220, 2, 1, configs["c"], 0.5)


def test_an_arm_without_a_finished_trial_is_told(tmp_path: Path) -> None:
    write_run(tmp_path, "a", status="failed", accuracy=None, num_images=0)
    with pytest.raises(UserError, match="no trial has finished"):
        search.read_arm(tmp_path)


def test_runs_of_before_are_kept_and_equal_picks_are_trained_once(
    tiny_faces: TinyFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FRESH_SEEDS", (101, 102))
    monkeypatch.setattr(search, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    values = {"data.source": str(tiny_faces.real), "model.name": "FourBlockCNN", "training.epochs": 1}
    pick = RunConfig.from_flat({**values, "data.image_size": 32, "runtime.threads": 1, "runtime.device": "cpu"})
    picks = {"grid": pick, "TPE": pick, "random": pick.replace({"optimizer.learning_rate": 1e-3})}
    first = search.score_again(picks, tmp_path, 1)
    assert first["grid"] == first["TPE"]
    assert [row["training.seed"] for row in first["random"]] == [101, 102]
    assert len(list((tmp_path / "trials").iterdir())) == 4
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("row.json")}
    again = search.score_again(picks, tmp_path, 1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("row.json")} == written
    assert [row["id"] for row in again["grid"]] == [row["id"] for row in first["grid"]]


def test_the_time_that_tune_adds_is_what_processes_had_no_run_to_work_on(tmp_path: Path) -> None:
    # Two processes: one works from 0 to 10 and from 12 to 20, the other from 0 to 20.
    for name, end, seconds in (("a", 10.0, 10.0), ("b", 20.0, 8.0), ("c", 20.0, 20.0)):
        folder = tmp_path / "trials" / name
        folder.mkdir(parents=True)
        row = {"id": name, "status": "finished", "error": None, "wall_seconds": seconds, "images_seen": 100}
        results.write_json(folder / "row.json", row)
        os.utime(folder / "row.json", (1e9 + end, 1e9 + end))
    span = overhead.span_of(tmp_path)
    assert span.seconds == pytest.approx(20)
    assert span.speed == pytest.approx(15)
    assert span.added(2) == pytest.approx(2 / 3)

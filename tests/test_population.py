"""Population-based training: who gives a place to whom, and that what is found can be trained again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import TinyFaces
from ray import tune
from searches import BASE, DIGEST, run_id_of, search, suggest
from tune_trials import cell as cell_of

from fer_ray import results, run
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.experiment import open_experiment
from fer_ray.phases import parse_phases
from fer_ray.proposals import Proposal, read_proposals
from fer_ray.storage import Storage
from fer_ray.tuning import population as module
from fer_ray.tuning.members import FACTORS
from fer_ray.tuning.population import Population
from fer_ray.tuning.trial import trial

EPOCHS = BASE.training.epochs


def population(root: Path, size: int = 8, base: RunConfig = BASE, **changes: Any) -> Population:
    return Population(
        search(**changes),
        base,
        size=size,
        storage=Storage(str(root)),
        run_id=run_id_of,
        signature=lambda config: config.signature(DIGEST, None),
        make_cell=lambda run_id, config, tags: {**cell_of(run_id, root, **config.flat()), "tags": tags},
    )


def score_of(config: RunConfig, epoch: int) -> float:
    """Grows faster with a larger rate, as far as the run has come."""
    factors = [phase.factor for phase in parse_phases(config.training.phases)]
    return sum(config.optimizer.learning_rate * factor for factor in factors[:epoch])


def train(root: Path, cell: Any, *, fails: Callable[[RunConfig], bool] = lambda config: False) -> None:
    """What a worker leaves of a part of a run."""
    config, until = RunConfig.from_flat(cell["config"]), cell["until"]
    status = results.FAILED if fails(config) else results.FINISHED if until == EPOCHS else results.STOPPED
    epochs = range(1, until + 1 if status != results.FAILED else 1)
    rows = [{"epoch": n, "validation_macro_f1": score_of(config, n), "images_seen": 64 * n} for n in epochs]
    folder = root / "trials" / cell["id"]
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["epoch", "validation_macro_f1", "images_seen"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "epochs.parquet")
    value = score_of(config, until) if status == results.FINISHED else None
    row = {"id": cell["id"], "status": status, "epochs_run": len(epochs), "validation_macro_f1": value}
    results.write_json(folder / "row.json", row)


def finish(found: Population, root: Path, *, at_once: int = 3, most: int = 10**6, **how: Any) -> list[tuple[str, int]]:
    """Drives a population as Tune does, for at most so many parts of runs; which they were."""
    parts: list[tuple[str, int]] = []
    running: dict[str, Any] = {}
    while len(parts) < most:
        while len(running) < at_once and isinstance(suggested := found.suggest(key := str(len(parts))), dict):
            running[key] = suggested["cell"]
            parts.append((suggested["cell"]["id"], suggested["cell"]["until"]))
        if not running:
            break
        key, cell = running.popitem()
        train(root, cell, **how)
        found.on_trial_complete(key, {"ended": True})
    return parts


def factors_of(proposal: Proposal) -> list[float]:
    return [phase.factor for phase in parse_phases(proposal.config["training.phases"])]


def test_after_each_generation_the_worst_quarter_are_copies_of_the_best_quarter(tmp_path: Path) -> None:
    parts = finish(population(tmp_path), tmp_path)
    assert [until for _, until in parts] == sorted([1, 2, 3, 4] * 8), "all of a generation end it before the next"
    proposals = read_proposals(tmp_path)
    assert [proposal.source for proposal in proposals] == ["sampler"] * 8 + ["population"] * 6
    assert sum(proposal.state == "complete" for proposal in proposals) == 8
    by_run = {proposal.runs[0].id: proposal for proposal in proposals}
    configs = {name: BASE.replace({**proposal.config, "training.seed": 0}) for name, proposal in by_run.items()}
    for generation in (1, 2, 3):
        here = [name for name, until in parts if until == generation]
        going_on = [name for name, until in parts if until == generation + 1]
        ranked = sorted(here, key=lambda name: score_of(configs[name], generation))
        assert set(here) - set(going_on) == set(ranked[:2])
        for name in set(going_on) - set(here):
            copy = by_run[name]
            before = factors_of(copy)[:generation]
            assert (copy.params, before) in [
                (by_run[n].params, factors_of(by_run[n])[:generation]) for n in ranked[-2:]
            ]
            (factor,) = set(factors_of(copy)[generation:])
            assert factor / before[-1] in [pytest.approx(step, rel=1e-3) for step in FACTORS]
        assert len(set(going_on)) == 8, "no two are the same"
        for name in ranked[:2]:
            assert by_run[name].state == "pruned"
            assert f"after epoch {generation} its place went to proposal" in (by_run[name].reason or "")
    for name, proposal in by_run.items():
        if proposal.state == "complete":
            assert proposal.values == [score_of(configs[name], EPOCHS)]
            assert list(proposal.intermediate) == [1, 2, 3, 4]


def test_members_are_the_known_points_and_random_ones_with_a_constant_rate(tmp_path: Path) -> None:
    finish(population(tmp_path, size=4, known=({"rate": 0.05, "sam": True, "rho": 0.1},)), tmp_path)
    first, *others = read_proposals(tmp_path)
    assert (first.source, first.params) == ("known", {"rate": 0.05, "sam": True, "rho": 0.1})
    assert {proposal.source for proposal in others} == {"sampler", "population"}
    assert len({proposal.runs[0].id for proposal in (first, *others)}) == 1 + len(others)
    for proposal in (first, *others):
        config = BASE.replace(proposal.config)
        assert (config.optimizer.schedule, config.optimizer.warmup_fraction) == ("constant", 0)


@pytest.mark.parametrize("objective", ["validation_macro_f1", "validation_loss"])
def test_the_worst_are_the_largest_where_less_is_better(tmp_path: Path, objective: str) -> None:
    found = population(tmp_path, objectives=(objective,))
    cells = {str(number): found.suggest(str(number))["cell"] for number in range(8)}
    for key, cell in cells.items():
        train(tmp_path, cell)
        path = tmp_path / "trials" / cell["id"] / "epochs.parquet"
        pd.read_parquet(path).rename(columns={"validation_macro_f1": objective}).to_parquet(path)
        found.on_trial_complete(key, {"ended": True})
    found.suggest("next")
    scores = {cell["id"]: score_of(RunConfig.from_flat(cell["config"]), 1) for cell in cells.values()}
    worst_first = sorted(scores, key=scores.__getitem__, reverse=objective == "validation_loss")
    stopped = {proposal.runs[0].id for proposal in read_proposals(tmp_path) if proposal.state == "pruned"}
    assert stopped == set(worst_first[:2])


@pytest.mark.parametrize("parts_before", [1, 7, 8, 9, 15, 20, 31, 32])
def test_a_population_that_ended_anywhere_comes_to_the_same_end(tmp_path: Path, parts_before: int) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    finish(population(whole), whole)
    before = finish(population(parted), parted, most=parts_before)
    after = finish(population(parted), parted)
    assert read_proposals(parted) == read_proposals(whole)
    repeated = set(before) & set(after)
    assert len(repeated) < 3, "only what was running"
    finish(population(parted), parted)
    assert read_proposals(parted) == read_proposals(whole)


def test_members_that_fail_give_their_places_away(tmp_path: Path) -> None:
    def diverges(config: RunConfig) -> bool:
        return config.optimizer.learning_rate > 0.01

    finish(population(tmp_path), tmp_path, fails=diverges)
    proposals = read_proposals(tmp_path)
    failed = [proposal for proposal in proposals if proposal.state == "failed"]
    assert len(failed) > 2, "more than a quarter"
    assert all(proposal.params["rate"] > 0.01 for proposal in failed)
    assert sum(proposal.state == "complete" for proposal in proposals) == 8
    with pytest.raises(UserError, match="no member is left to copy"):
        finish(population(tmp_path / "all"), tmp_path / "all", fails=lambda config: True)


def test_a_member_whose_worker_died_for_good_counts_as_failed(tmp_path: Path) -> None:
    found = population(tmp_path, size=4)
    cells = [found.suggest(str(number))["cell"] for number in range(4)]
    found.on_trial_complete("0", None, error=True)
    for number, cell in enumerate(cells[1:], start=1):
        train(tmp_path, cell)
        found.on_trial_complete(str(number), {"ended": True})
    assert found.suggest("4")["cell"]["until"] == 2
    lost = read_proposals(tmp_path)[0]
    assert (lost.state, [made.status for made in lost.runs]) == ("failed", ["failed"])


def test_a_failure_that_could_not_be_written_counts_as_one(tmp_path: Path) -> None:
    found = population(tmp_path, size=4)
    cells = [found.suggest(str(number))["cell"] for number in range(4)]
    for number, cell in enumerate(cells[1:], start=1):
        train(tmp_path, cell)
        found.on_trial_complete(str(number), {"ended": True})
    found.on_trial_complete("0", {"ended": True, "status": results.FAILED})
    assert found.suggest("4")["cell"]["until"] == 2


def test_a_member_that_was_stopped_in_its_very_last_epoch_goes_on(tmp_path: Path) -> None:
    finish(population(tmp_path, size=4), tmp_path, at_once=1, most=15)
    last = population(tmp_path, size=4).suggest("last")["cell"]
    row = {"id": last["id"], "status": results.STOPPED, "epochs_run": EPOCHS, "validation_macro_f1": None}
    train(tmp_path, last)
    results.write_json(tmp_path / "trials" / last["id"] / "row.json", row)
    again = population(tmp_path, size=4)
    assert again.num_finished == 3
    assert again.suggest("again")["cell"] == last
    train(tmp_path, last)
    again.on_trial_complete("again", {"ended": True, "status": results.FINISHED})
    assert sum(proposal.state == "complete" for proposal in read_proposals(tmp_path)) == 4


def test_what_has_ended_is_told_at_once_and_stays_so(tmp_path: Path) -> None:
    def states() -> list[str]:
        return [proposal.state for proposal in read_proposals(tmp_path)]

    finish(population(tmp_path, size=4), tmp_path, at_once=1, most=14)
    before = states()
    assert before.count("complete") == 2
    assert before.count("pruned") == 3
    population(tmp_path, size=4)
    assert states() == before


def test_copies_are_told_with_the_images_that_their_originals_saw(tmp_path: Path) -> None:
    told: dict[str, int] = {}
    found = population(tmp_path)
    found._on_copy = told.__setitem__
    finish(found, tmp_path)
    copies = {p.runs[0].id: p for p in read_proposals(tmp_path) if p.source == "population"}
    assert told.keys() == copies.keys()
    assert sorted(told.values()) == [64, 64, 128, 128, 192, 192]


def test_another_population_under_the_same_name_is_refused(tmp_path: Path) -> None:
    finish(population(tmp_path, size=4), tmp_path, most=3)
    with pytest.raises(UserError, match="holds a population that began with other members"):
        population(tmp_path, size=4, known=({"rate": 0.05, "sam": False},))


def test_a_disk_that_is_full_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_proposal", full)
    with pytest.raises(UserError, match=r"cannot write proposal 0 to .*: No space left on device"):
        population(tmp_path)


def test_what_cannot_be_a_population_is_refused(tmp_path: Path) -> None:
    def freezes(trial: Any) -> dict[str, Any]:
        return suggest(trial) | {"training.phases": "head 1, all 1"}

    def gives_up(trial: Any) -> dict[str, Any]:
        return suggest(trial) | {"training.patience": 2}

    def anneals(trial: Any) -> dict[str, Any]:
        return suggest(trial) | {"optimizer.schedule": "cosine"}

    for changes, match in (
        ({"objectives": ("images_per_second",)}, "images_per_second is nothing that grows from epoch to epoch"),
        ({"size": 3}, "a population of 3 is too small; expected --trials 4"),
        ({"base": BASE.replace({"training.patience": 2})}, "leave training.patience out"),
        ({"suggest": freezes}, "held 0 different members; expected 8 that train the whole network in one phase"),
        ({"suggest": gives_up}, "held 0 different members"),
        ({"suggest": anneals}, "space made gives optimizer.schedule, which pbt decides"),
    ):
        with pytest.raises(UserError, match=match):
            population(tmp_path, **changes)
    assert read_proposals(tmp_path) == []


@pytest.mark.filterwarnings("ignore:`get_checkpoint` is meant")
def test_what_a_population_finds_gives_the_same_bits_when_it_is_trained_alone(
    tiny_faces: TinyFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "report", lambda values, checkpoint=None: None)
    base = RunConfig.from_flat(
        {
            "data.source": str(tiny_faces.real),
            "model.name": "ShuffleNetV2-x1.0",
            "data.image_size": 32,
            "training.epochs": 3,
            "training.batch_size": 16,
            "runtime.device": "cpu",
            "runtime.threads": 1,
        }
    )
    experiment = open_experiment(base)
    found = Population(
        search(),
        base,
        size=4,
        storage=Storage(str(tmp_path)),
        run_id=lambda config: config.run_id(experiment.signature(config)),
        signature=experiment.signature,
        make_cell=lambda run_id, config, tags: {**cell_of(run_id, tmp_path, **config.flat()), "tags": tags},
    )
    trained = 0
    while isinstance(suggested := found.suggest("one"), dict):
        trial({"cell": suggested["cell"]})
        found.on_trial_complete("one", {"ended": True})
        trained += 1
    assert trained == 3 * 4
    copies = [p for p in read_proposals(tmp_path) if (p.source, p.state) == ("population", "complete")]
    assert copies
    rows = {row["id"]: row for row in results.read_rows(tmp_path)}
    for copy in copies:
        config = base.replace({**copy.config, "training.seed": 0})
        alone = run.execute(config, tmp_path / "alone", experiment=experiment)
        skipped = {*results.COST_COLUMNS, "git_commit", "git_dirty", "proposal", "runtime.checkpoint_seconds"}
        assert {k: v for k, v in alone.items() if k not in skipped} == {
            k: v for k, v in rows[copy.runs[0].id].items() if k not in skipped
        }
        assert copy.values == [alone["validation_macro_f1"]]

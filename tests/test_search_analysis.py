"""What is told of a search: ranking, the best one, its neighbours, the front, importances, the recipe and the page."""

import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from fake_search import write_search
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from rich.console import Console

from fer_ray import cli, recipes, results
from fer_ray.analysis import importance, search, search_tables
from fer_ray.analysis.__main__ import command
from fer_ray.analysis.parameters import distance, parameters
from fer_ray.analysis.report import write_report
from fer_ray.analysis.search import Search, read_search
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.proposals import Proposal, ProposedRun, path_of, read_proposals, study_of, write_proposal


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_search(tmp_path_factory.mktemp("hpo"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_search(tmp_path_factory.mktemp("front"), objectives=("validation_macro_f1", "train_seconds"))


def proposal(number: int, params: dict, values: list[float], seeds: int = 1, **drawn) -> Proposal:
    return Proposal(
        number=number,
        source="sampler",
        params=params,
        distributions={name: distribution_to_json(d) for name, d in drawn.items() if name in params},
        config={},
        state="complete",
        runs=[ProposedRun(f"run-{number}-{seed}", seed, "finished") for seed in range(seeds)],
        values=values,
    )


def search_of(proposals: list[Proposal], directions=("maximize",)) -> Search:
    trials = pd.DataFrame({"id": ["other"], "status": [results.FINISHED]})
    sweep = results.Sweep(Path("nowhere"), {}, trials, pd.DataFrame({"id": []}))
    names = ("validation_macro_f1", "train_seconds", "parameters")[: len(directions)]
    return Search(sweep, proposals, names, directions)


# Ranking and the best one


def test_complete_proposals_are_ranked_and_the_others_follow_by_number(root: Path) -> None:
    frame = search.frame(read_search(root))
    complete = frame[frame["state"] == "complete"]
    assert len(frame) == 42
    assert frame["state"].tolist()[:29] == ["complete"] * 29
    assert complete["validation_macro_f1"].is_monotonic_decreasing
    assert frame["proposal"].tolist()[29:] == sorted(frame["proposal"].tolist()[29:])
    assert frame["state"].value_counts().to_dict() == {
        "complete": 29,
        "pruned": 10,
        "failed": 1,
        "repeated": 1,
        "running": 1,
    }


def test_the_interval_is_students_over_seeds() -> None:
    """By hand: mean .62, standard deviation .02, t(.975, 2) = 4.302653, so half the width is .0496828."""
    low, high = search.interval([0.60, 0.62, 0.64]) or (0, 0)
    assert (low, high) == pytest.approx((0.5703172, 0.6696828), abs=1e-6)
    assert search.interval([0.60, 0.64]) is None


def test_a_stopped_proposal_has_no_rank_and_no_test_figure(root: Path) -> None:
    frame = search.frame(read_search(root)).set_index("state")
    stopped = frame.loc["pruned"]
    assert stopped["validation_macro_f1"].isna().all()
    assert stopped["test_macro_f1"].isna().all()
    assert stopped["last_value"].notna().all()
    assert (stopped["epochs"] == 2).all()


def test_one_lucky_seed_does_not_win_against_five() -> None:
    found = search_of(
        [proposal(0, {}, [0.9], seeds=1), proposal(1, {}, [0.6], seeds=5), proposal(2, {}, [0.7], seeds=5)]
    )
    best = search.best(found)
    assert best is not None
    assert best.number == 2
    assert any("number 0" in sentence and "luck" in sentence for sentence in search_tables.headline(found))


def test_the_best_of_a_loss_is_the_lowest() -> None:
    best = search.best(search_of([proposal(0, {}, [0.9]), proposal(1, {}, [0.6])], ("minimize",)))
    assert best is not None
    assert best.number == 1


def test_without_three_seeds_the_headline_says_that_there_is_no_interval() -> None:
    assert "1 seed, so no interval; 3 are needed" in search_tables.headline(search_of([proposal(0, {}, [0.9])]))[0]


# Parameters and neighbours

DRAWN = {
    "rate": FloatDistribution(1e-4, 1e-1, log=True),
    "layers": IntDistribution(1, 5),
    "optimizer": CategoricalDistribution(("adamw", "sgd", "muon")),
    "rho": FloatDistribution(0, 1),
}


def test_distance_counts_range_scale_choices_and_absence() -> None:
    first = {"rate": 1e-3, "layers": 1, "optimizer": "sgd"}
    second = {"rate": 1e-2, "layers": 2, "optimizer": "muon", "rho": 0.5}
    space = parameters([proposal(0, first, [0.5], **DRAWN), proposal(1, second, [0.5], **DRAWN)])
    assert distance(space, first, second) == pytest.approx((1 / 3 + 1 / 4 + 1 + 1) / 4)
    assert distance(space, first, first) == 0
    assert [p.is_conditional for p in space] == [False, False, False, True]


def test_bounds_of_a_search_that_was_widened_are_those_of_all() -> None:
    other = DRAWN | {"rate": FloatDistribution(1e-5, 1e-2, log=True)}
    (space,) = parameters([proposal(0, {"rate": 1e-3}, [0.5], **DRAWN), proposal(1, {"rate": 1e-3}, [0.5], **other)])
    assert (space.low, space.high, space.is_log) == (1e-5, 1e-1, True)


def test_parameters_of_one_name_in_two_groups_are_told_apart() -> None:
    drawn = {"optimizer.name": DRAWN["optimizer"], "a.size": DRAWN["layers"], "b.size": DRAWN["layers"]}
    point = {"optimizer.name": "sgd", "a.size": 1, "b.size": 2}
    assert [p.label for p in parameters([proposal(0, point, [0.5], **drawn)])] == ["optimizer", "a.size", "b.size"]


def test_neighbours_are_the_nearest_complete_ones(root: Path) -> None:
    found = read_search(root)
    best = search.best(found)
    assert best is not None
    near = search.neighbours(found, best)
    assert [d for d, _ in near] == sorted(d for d, _ in near)
    everything = {p.number: distance(found.parameters, best.params, p.params) for p in found.complete if p is not best}
    assert {p.number for _, p in near} == set(sorted(everything, key=everything.__getitem__)[:5])


# Pareto front


@pytest.mark.parametrize("directions", [("maximize", "minimize"), ("maximize", "minimize", "minimize")])
def test_the_front_is_that_of_optuna(directions) -> None:
    rng = np.random.default_rng(0)
    study = optuna.create_study(directions=directions)
    proposals = []
    for number, values in enumerate(rng.integers(0, 12, size=(60, len(directions)))):
        study.add_trial(optuna.trial.create_trial(values=[float(v) for v in values]))
        proposals.append(proposal(number, {}, [float(v) for v in values]))
    ours = {p.number for p in search.front(search_of(proposals, directions))}
    assert ours == {trial.number for trial in study.best_trials}


# Importance


def ishigami(points: np.ndarray) -> np.ndarray:
    x = (2 * points - 1) * np.pi
    return np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])


def test_sobol_indices_are_those_of_ishigami_and_homma() -> None:
    """Analytic for a = 7, b = .1: S1 .3139, S2 .4424, S3 0, S13 .2437, all other pairs 0."""
    alone, pairs = importance.sobol_indices(ishigami, 3)
    assert [alone[j] for j in range(3)] == pytest.approx([0.3139, 0.4424, 0], abs=0.015)
    assert pairs == pytest.approx({(0, 1): 0, (0, 2): 0.2437, (1, 2): 0}, abs=0.02)


def test_a_constant_has_no_indices() -> None:
    assert importance.sobol_indices(lambda points: np.ones(len(points)), 2) == ({}, {})


@pytest.fixture(scope="module")
def additive() -> Search:
    """60 proposals over three parameters without a logarithmic one, the third without effect."""
    rng = np.random.default_rng(1)
    drawn = {"a": FloatDistribution(0, 1), "b": CategoricalDistribution(("x", "y")), "c": IntDistribution(1, 4)}
    points = [
        {"a": float(rng.random()), "b": str(rng.choice(["x", "y"])), "c": int(rng.integers(1, 5))} for _ in range(60)
    ]
    values = [[p["a"] + 0.4 * (p["b"] == "y") + 0.002 * float(rng.normal())] for p in points]
    return search_of([proposal(n, p, v, **drawn) for n, (p, v) in enumerate(zip(points, values, strict=True))])


def test_main_effects_of_numbers_are_those_of_optunas_fanova(additive: Search) -> None:
    kept = {"a": DRAWN["rho"], "c": IntDistribution(1, 4)}
    points = [{name: p.params[name] for name in kept} for p in additive.complete]
    values = [[point["a"] + 0.1 * point["c"]] for point in points]
    found = search_of([proposal(n, p, v, **kept) for n, (p, v) in enumerate(zip(points, values, strict=True))])
    shares = importance.assess(found)
    assert shares is not None
    theirs = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study_of(found.complete, ["maximize"]))
    assert shares.main == pytest.approx(theirs, abs=0.06)


def test_main_effects_of_numbers_and_choices_are_the_analytic_ones(additive: Search) -> None:
    """Var a = 1/12 and var b = .4^2 / 4, so that of .1233 a causes .676 and b .324."""
    found = importance.assess(additive)
    assert found is not None
    assert found.main == pytest.approx({"a": 0.676, "b": 0.324, "c": 0}, abs=0.03)
    assert found.fit > 0.9
    assert max(found.pairs.values()) < 0.05


def test_ped_anova_is_optunas(additive: Search) -> None:
    found = importance.assess(additive)
    assert found is not None
    study = study_of(additive.complete, ["maximize"])
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.1)
    assert found.num_top == 6
    assert found.ped_anova == pytest.approx(optuna.importance.get_param_importances(study, evaluator=evaluator))
    assert sum(found.ped_anova.values()) == pytest.approx(1)


def test_conditional_parameters_are_in_ped_anova_and_said_to_be_missing_from_fanova(root: Path) -> None:
    found = read_search(root)
    shares = importance.assess(found)
    assert shares is not None
    assert "optimizer.sam_rho" in shares.ped_anova
    assert "optimizer.sam_rho" not in shares.main
    assert "sam rho" in " ".join(search_tables.importance_notes(found, shares))
    assert next(iter(shares.pairs)) == ("optimizer.learning_rate", "optimizer.name")


def test_few_proposals_have_no_importance_but_a_sentence(additive: Search) -> None:
    few = replace(additive, proposals=additive.proposals[:9])
    assert importance.assess(few) is None
    assert search_tables.importance_notes(few, None) == [
        "No importances: 9 complete proposals, at least 10 are needed."
    ]


# The report


def written(root: Path, **options) -> tuple[list[Path], str]:
    console = Console(width=200, record=True, file=io.StringIO())
    return write_report(root, console=console, **options), console.export_text()


@pytest.fixture(scope="module")
def report(root: Path) -> tuple[list[Path], str]:
    return written(root)


@pytest.fixture(scope="module")
def report_of_both(both: Path) -> str:
    return written(both)[1]


def test_the_terminal_names_every_state_and_the_best(root: Path, report: tuple[list[Path], str]) -> None:
    paths, text = report
    assert "42 proposals: 1 running, 29 complete, 10 stopped, 1 failed, 1 repeated, 0 missing of 40 wanted." in text
    assert "60 runs: 49 finished, 10 stopped, 1 failed." in text
    assert "t-interval over 5 seeds" in text
    assert f"python -m fer_ray.train --recipe {root / 'best_recipe.json'} --seed 5" in text
    assert [path.name for path in paths] == [
        "trials.parquet",
        "epochs.parquet",
        "tables",
        "best_recipe.json",
        "dashboard.html",
    ]
    assert {path.name for path in (root / "tables").iterdir()} == {
        *(f"{name}.{kind}" for name in ("proposals", "importance") for kind in ("md", "tex", "csv")),
        "neighbourhood.md",
        "neighbourhood.tex",
    }


def test_the_recipe_is_the_best_proposals_config_without_seed_and_machine(
    root: Path, report: tuple[list[Path], str]
) -> None:
    found = read_search(root)
    best = search.best(found)
    assert best is not None
    path = root / "best_recipe.json"
    recipe = recipes.load(str(path))
    config = RunConfig.from_flat(recipe.values)
    assert config.training.epochs == 8
    assert config.optimizer.learning_rate == best.params["optimizer.learning_rate"]
    assert not [key for key in json.loads(path.read_text()) if key == "training.seed" or key.startswith("runtime.")]
    run = best.runs[0]
    again = config.replace({"training.seed": run.seed})
    assert again.run_id(again.signature("0f3c51aa9d2e4b67", None)) == run.id


def test_two_objectives_have_a_front(report_of_both: str) -> None:
    assert "Pareto front: 2 of 29 complete proposals" in report_of_both
    assert "Importance for train seconds" in report_of_both


def test_the_page_has_every_figure_and_is_closed(both: Path, report_of_both: str) -> None:
    text = (both / "dashboard.html").read_text(encoding="utf-8")
    views = json.loads(re.search(r'id="views">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert {key: len(view["patches"]) for key, view in views.items()} == {
        "history": 2,
        "pareto": 1,
        "importance": 2,
        "interactions": 2,
        "slices": 10,
        "parallel": 2,
        "learning-curves": 1,
    }
    assert "connect-src 'none'" in text
    assert "unsafe-eval" not in text.split("</head>")[0]
    assert "loss is not finite at step 120" in text


def test_writing_again_gives_the_same_bytes(root: Path, report: tuple[list[Path], str]) -> None:
    paths = [path for path in report[0] if path.is_file()]
    before = [path.read_bytes() for path in paths]
    written(root)
    assert [path.read_bytes() for path in paths] == before


def test_a_search_that_just_began_says_so(tmp_path: Path) -> None:
    write_search(tmp_path, trials=2, num_stopped=2, num_failed=0, raced=0)
    for number in (2, 3):
        path_of(tmp_path, number).unlink()
    paths, text = written(tmp_path)
    assert "No proposal is complete, so there is no best one yet." in text
    assert not (tmp_path / "best_recipe.json").exists()
    assert paths[-1].exists()


def test_axes_of_a_factorial_sweep_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.exit_code(command, [str(root), "--rows", "model.name"]) == 2
    assert "--rows" in capsys.readouterr().err


def test_a_search_without_its_proposals_is_refused(tmp_path: Path) -> None:
    write_search(tmp_path, trials=3, num_stopped=0, num_failed=0, raced=0)
    for path in (tmp_path / "proposals").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="without proposals/"):
        write_report(tmp_path, console=Console(quiet=True))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    attack = "</script><img src=x onerror=alert(1)>"
    write_search(tmp_path, trials=12, num_stopped=1, raced=0, question=attack)
    for one in read_proposals(tmp_path):
        choices = distribution_to_json(CategoricalDistribution((attack, "b")))
        changed = replace(
            one,
            params={**one.params, attack: attack},
            distributions={**one.distributions, attack: choices},
            reason=attack,
        )
        write_proposal(tmp_path, changed)
    written(tmp_path)
    text = (tmp_path / "dashboard.html").read_text(encoding="utf-8")
    assert "<img" not in text.replace("\\u003cimg", "")


def test_the_page_draws_every_choice_in_a_browser(both: Path, report_of_both: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    binary = shutil.which("chromium")
    if binary is None:
        pytest.skip("needs chromium")
    problems: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=binary, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        tab = browser.new_page()
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto((both / "dashboard.html").as_uri())
        tab.wait_for_selector("figure[data-view=learning-curves] .main-svg")
        for section in tab.query_selector_all("section:has(select)"):
            for select in section.query_selector_all("select"):
                before = section.query_selector(".plot").inner_html()
                select.select_option(index=1)
                tab.wait_for_timeout(150)
                assert section.query_selector(".plot").inner_html() != before
        assert "null" not in (tab.text_content("main") or "")
        tab.fill("input[type=search]", "sgd stopped")
        assert tab.text_content("output") != "42 of 42"
        browser.close()
    assert problems == []

"""--resume and --extend: the command that they stand for."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from searches import Driver

from fer_ray import results, sweep
from fer_ray.errors import UserError
from fer_ray.tuning import recorded


def recorded_sweep(root: Path, command: str, **info: Any) -> Path:
    folder = root / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    fixed = {"data.source": "demo", "data.synthetic": None}
    line = f"python -m fer_ray.sweep {command}"
    results.write_json(folder / "sweep.json", {"command": line, "fixed": fixed, "kind": "search", "trials": 4, **info})
    return folder


def parsed(root: Path, line: str) -> Any:
    """The flags that a command line with --resume or --extend comes to."""
    given = [*shlex.split(line), f"--storage={root}"]
    return sweep.parser().parse(recorded.arguments(sweep.parser().parse(given), given))


def test_resume_takes_the_flags_of_before_and_what_is_given_now_wins(tmp_path: Path) -> None:
    recorded_sweep(tmp_path, "--space hpo --trials 4 --scheduler asha --concurrency 2 --storage elsewhere --name old")
    options = parsed(tmp_path, "--resume mine --concurrency=1 --time-budget 1h")
    assert (options.space, options.trials, options.scheduler) == ("hpo", 4, "asha")
    assert (options.concurrency, options.time_budget) == (1, 3600)
    assert (options.name, options.storage) == ("mine", str(tmp_path))
    assert options.resume is None


def test_data_are_found_from_any_folder(tmp_path: Path) -> None:
    fixed = {"data.source": "/data/real.csv", "data.synthetic": "/data/faces.parquet", "data.test_source": None}
    recorded_sweep(tmp_path, "--space hpo --data real.csv --synthetic=faces.parquet", fixed=fixed)
    line = ["--resume", "mine", "--storage", str(tmp_path)]
    found = recorded.arguments(sweep.parser().parse(line), line)
    options = sweep.parser().parse(found)
    assert vars(options)["data.source" if "data.source" in vars(options) else "data"] == "/data/real.csv"
    assert "/data/faces.parquet" in found


def test_extend_adds_to_a_search_that_is_finished(tmp_path: Path) -> None:
    root = recorded_sweep(tmp_path, "--space hpo --trials 4")
    Driver(root, num_trials=4).finish()
    assert parsed(tmp_path, "--extend mine --trials 50").trials == 54


def test_an_extension_that_was_interrupted_can_be_given_again(tmp_path: Path) -> None:
    root = recorded_sweep(tmp_path, "--space hpo --trials 4")
    Driver(root, num_trials=4).finish()
    line = parsed(tmp_path, "--extend mine --trials 3")
    assert line.trials == 7
    recorded_sweep(tmp_path, "--space hpo --trials 7", trials=7)  # as the extended sweep records itself
    driver = Driver(root, num_trials=7)
    driver.step()
    driver.step()
    assert parsed(tmp_path, "--extend mine --trials 3").trials == 7
    driver.finish()
    assert parsed(tmp_path, "--extend mine --trials 3").trials == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--resume mein", r"holds no sweep; did you mean 'mine'\?; expected a name under --storage"),
        ("--extend mine", r"--extend: expected --trials N, how many to add"),
        ("--resume mine --space hpo", r"--space: mine has its own; leave it out"),
    ],
)
def test_what_cannot_be_gone_on_with_is_a_message(line: str, message: str, tmp_path: Path) -> None:
    recorded_sweep(tmp_path, "--space hpo")
    with pytest.raises(UserError, match=message):
        parsed(tmp_path, line)


def test_a_factorial_design_is_extended_by_its_axes(tmp_path: Path) -> None:
    recorded_sweep(tmp_path, "--space ratios", kind="factorial")
    with pytest.raises(UserError, match="it is no search; give more --seeds, --models or --fractions instead"):
        parsed(tmp_path, "--extend mine --trials 3")
    assert parsed(tmp_path, "--resume mine --seeds 0,1,2,3").seeds == "0,1,2,3"

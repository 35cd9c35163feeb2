"""What `--log` asks for, and refuses before the first trial."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fer_ray.errors import UserError
from fer_ray.tuning import loggers


class Logger:
    """Stands in for a callback of Ray's."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.is_ready = False

    def setup(self, **info: Any) -> None:
        self.is_ready = True


class Unreachable(Logger):
    def setup(self, **info: Any) -> None:
        raise RuntimeError("no key\nset one")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = "ray.air.integrations"
    monkeypatch.setitem(sys.modules, f"{here}.mlflow", SimpleNamespace(MLflowLoggerCallback=Logger))
    monkeypatch.setitem(sys.modules, f"{here}.wandb", SimpleNamespace(WandbLoggerCallback=Unreachable))


def test_what_is_unknown_or_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"'mlfow' is no logger; did you mean .mlflow"):
        loggers.check(["mlfow"])
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--log tensorboard needs the package tensorboardX: pip install tensorboardX"):
        loggers.check(["tensorboard"])
    monkeypatch.setattr(loggers, "find_spec", lambda name: object())
    loggers.check(["mlflow", "wandb", "tensorboard"])


def test_mlflow_writes_beside_the_results_unless_it_has_a_server(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (here,) = loggers.build_loggers(["mlflow"], tmp_path / "sweep")
    assert here.is_ready
    assert here.given == {"tracking_uri": f"sqlite:///{tmp_path}/sweep/mlflow.db", "experiment_name": "sweep"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    (there,) = loggers.build_loggers(["mlflow"], tmp_path / "sweep")
    assert there.given["tracking_uri"] == "http://there:5000"


def test_a_logger_that_cannot_log_is_told_in_one_line(installed: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--log wandb: no key$"):
        loggers.build_loggers(["wandb", "mlflow"], tmp_path)

"""Ray's own callbacks to MLflow, Weights & Biases and TensorBoard, for those who follow their runs there."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fer_ray.errors import UserError, nearest

LOGGERS = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": "tensorboardX"}
"""Name of a logger -> the package that it needs."""


def check(names: Sequence[str]) -> None:
    """Raises UserError for a logger that is unknown or whose package is missing."""
    for name in names:
        if name not in LOGGERS:
            raise UserError(f"--log: {name!r} is no logger{nearest(name, LOGGERS)}; there are {', '.join(LOGGERS)}")
        if find_spec(LOGGERS[name]) is None:
            raise UserError(f"--log {name} needs the package {LOGGERS[name]}: pip install {LOGGERS[name]}")


def build_loggers(names: Sequence[str], root: Path) -> list[Any]:
    """The callbacks. MLflow and W&B take their servers and keys from their own environment variables; without these
    MLflow writes to `mlflow.db` beside the results, and W&B in its offline mode to `wandb/`. TensorBoard's files are in
    `tensorboard/` there, a folder per trial.

    Raises UserError for a logger that cannot log, because its server cannot be reached, say, or its key is missing.
    """
    callbacks: list[Any] = []
    if "mlflow" in names:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        callbacks.append(MLflowLoggerCallback(tracking_uri=uri, experiment_name=root.name))
    if "wandb" in names:
        from ray.air.integrations.wandb import WandbLoggerCallback

        callbacks.append(WandbLoggerCallback(project=root.name, dir=str(root)))
    if "tensorboard" in names:
        callbacks.append(_tensorboard(root / "tensorboard"))
    for name, callback in zip(sorted(set(names), key=list(LOGGERS).index), callbacks, strict=True):
        try:
            callback.setup()  # Tune does it too, in the middle of its own work
        except Exception as error:  # whatever theirs may raise
            raise UserError(f"--log {name}: {str(error).splitlines()[0]}") from error
    return callbacks


def _tensorboard(root: Path) -> Any:
    from ray.tune.logger import TBXLoggerCallback

    class TensorBoard(TBXLoggerCallback):
        """Ray's, but for the folder: Ray's own record of a sweep, where it would write, does not outlive it."""

        def log_trial_start(self, trial: Any) -> None:
            if trial in self._trial_writer:
                self._trial_writer[trial].close()
            folder = str(root / trial.config["cell"]["id"])
            self._trial_writer[trial] = self._summary_writer_cls(folder, flush_secs=30)
            self._trial_result[trial] = {}

    return TensorBoard()

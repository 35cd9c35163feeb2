"""`study.db`: an Optuna study of what has ended, beside the results, for optuna-dashboard and Optuna's own plots.

A copy for other programs, made from the results and made again when it is lost; nothing of ours reads it.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from fer_ray.proposals import Proposal, frozen_trial
from fer_ray.space import Search
from fer_ray.tuning import samplers
from fer_ray.tuning.trial import finished_row

if TYPE_CHECKING:
    from fer_ray.storage import Storage
    from fer_ray.tuning.plan import Plan

FILE = "study.db"
KEY = "fer_ray"


class Mirror:
    """The study of one sweep. What is in it already is not added again; a disk that is full does not end a sweep."""

    def __init__(self, root: Path, plan: "Plan") -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._plan = plan
        space = plan.space
        objectives = list(space.objectives) if isinstance(space, Search) else ["validation_macro_f1"]
        self._directions = samplers.directions(objectives)
        self._study: optuna.Study | None = None
        self._known: set[str] = set()
        try:
            self._study = optuna.create_study(
                storage=f"sqlite:///{root / FILE}",
                study_name=space.name,
                directions=self._directions,
                load_if_exists=True,
            )
            with warnings.catch_warnings():  # it is marked experimental
                warnings.simplefilter("ignore")
                self._study.set_metric_names(objectives)
            self._known = {str(trial.user_attrs.get(KEY)) for trial in self._study.get_trials(deepcopy=False)}
        except (SQLAlchemyError, OSError, ValueError):
            self._study = None  # as if there were none; the results are elsewhere

    def add_proposal(self, proposal: Proposal) -> None:
        """Adds a proposal that has ended."""
        if proposal.state != "running":
            frozen = frozen_trial(proposal, self._directions)
            frozen.user_attrs[KEY] = f"proposal {proposal.number}"
            self._add(frozen)

    def add_run(self, storage: "Storage", run_id: str) -> None:
        """Adds a finished run of a factorial design: its axes and seed, and its validation macro F1."""
        storage.pull(f"trials/{run_id}")
        row = finished_row(storage.folder, run_id)
        if row is None or f"run {run_id}" in self._known:
            return
        axes: dict[str, list[Any]] = {key: list(values) for key, values in self._plan.axes().items()}
        distributions: dict[str, BaseDistribution] = {k: CategoricalDistribution(v) for k, v in axes.items()}
        value = row["validation_macro_f1"]
        self._add(
            create_trial(
                state=TrialState.FAIL if value is None else TrialState.COMPLETE,
                values=None if value is None else [value],
                params={key: row[key] for key in axes},
                distributions=distributions,
                user_attrs={KEY: f"run {run_id}", **{k: v for k, v in row.items() if k.startswith("test_")}},
            )
        )

    def _add(self, trial: optuna.trial.FrozenTrial) -> None:
        key = trial.user_attrs[KEY]
        if self._study is None or key in self._known:
            return
        try:
            self._study.add_trial(trial)
            self._known.add(key)
        except (SQLAlchemyError, OSError, ValueError):
            self._study = None

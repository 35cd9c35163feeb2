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

from fer_ray import results
from fer_ray.proposals import Proposal, frozen_trial, read_proposals
from fer_ray.space import Search
from fer_ray.tuning import samplers
from fer_ray.tuning.trial import finished_row

if TYPE_CHECKING:
    from fer_ray.storage import Storage
    from fer_ray.tuning.plan import Plan

FILE = "study.db"
KEY = "fer_ray"


class Mirror:
    """The study of one sweep, with all that has ended in it. A disk that is full does not end a sweep."""

    def __init__(self, root: Path, plan: "Plan") -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        space = plan.space
        objectives = list(space.objectives) if isinstance(space, Search) else ["validation_macro_f1"]
        self._directions = samplers.directions(objectives)
        rows = [] if isinstance(space, Search) else results.read_rows(root)
        # An axis may have had other values before.
        self._axes: dict[str, BaseDistribution] = {
            key: CategoricalDistribution(list(dict.fromkeys([*values, *(row[key] for row in rows if key in row)])))
            for key, values in plan.axes().items()
        }
        self._study: optuna.Study | None = None
        self._known: set[str] = set()
        try:
            self._study = self._open(f"sqlite:///{root / FILE}", space.name)
            with warnings.catch_warnings():  # it is marked experimental
                warnings.simplefilter("ignore")
                self._study.set_metric_names(objectives)
            self._known = {str(trial.user_attrs.get(KEY)) for trial in self._study.get_trials(deepcopy=False)}
        except (SQLAlchemyError, OSError, ValueError):
            self._study = None  # as if there were none; the results are elsewhere
        if isinstance(space, Search):
            for proposal in read_proposals(root):
                self.add_proposal(proposal)
        for row in rows:
            self._add_row(row)

    def _open(self, url: str, name: str) -> optuna.Study:
        study = optuna.create_study(storage=url, study_name=name, directions=self._directions, load_if_exists=True)
        if self._axes and any(trial.distributions != self._axes for trial in study.get_trials(deepcopy=False)):
            optuna.delete_study(study_name=name, storage=url)  # Optuna takes no further values of an axis
            study = optuna.create_study(storage=url, study_name=name, directions=self._directions)
        return study

    def add_proposal(self, proposal: Proposal) -> None:
        """Adds a proposal that has ended."""
        if proposal.state != "running":
            frozen = frozen_trial(proposal, self._directions)
            frozen.user_attrs[KEY] = f"proposal {proposal.number}"
            self._add(frozen)

    def add_run(self, storage: "Storage", run_id: str) -> None:
        """Adds a finished run of a factorial design: its axes, validation macro F1 and test metrics."""
        storage.pull(f"trials/{run_id}")
        if (row := finished_row(storage.folder, run_id)) is not None:
            self._add_row(row)

    def _add_row(self, row: dict[str, Any]) -> None:
        value = row["validation_macro_f1"]
        if row["status"] != results.FINISHED or self._axes.keys() - row.keys():
            return
        self._add(
            create_trial(
                state=TrialState.FAIL if value is None else TrialState.COMPLETE,
                values=None if value is None else [value],
                params={key: row[key] for key in self._axes},
                distributions=self._axes,
                user_attrs={KEY: f"run {row['id']}", **{k: v for k, v in row.items() if k.startswith("test_")}},
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

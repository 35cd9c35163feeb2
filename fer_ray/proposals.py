"""What a search proposed and what came of it: a file per proposal, `proposals/00007.json` in the sweep's folder.

Optuna's study lives in a process; these files outlive it. `to_study` builds the study again from them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from fer_ray import results
from fer_ray.errors import UserError
from fer_ray.space import Direction

if TYPE_CHECKING:
    import optuna

FOLDER = "proposals"

State = Literal["running", "complete", "pruned", "failed", "repeated"]
Source = Literal["known", "warm start", "sampler", "population"]


@dataclass(frozen=True)
class ProposedRun:
    """One training of a proposal: the run's id, its seed, and "running" or the status of its row."""

    id: str
    seed: int
    status: Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One point of a search.

    Attributes:
        number: its place in the search, from 0.
        source: a point the space knew, one of an earlier sweep, the sampler, or a copy within a population.
        params: what Optuna was asked for, by the space's names; those of branches not taken are absent.
        distributions: name -> what the value was drawn from, as `optuna.distributions.distribution_to_json` writes it.
        config: flat config keys that the space made of `params`.
        state: how it ended; "repeated" has the runs of an earlier one and was answered from them.
        repeats: number of that earlier proposal.
        runs: its trainings, one per seed, in the order in which they were added.
        values: one per objective, the mean over its finished seeds; None without a finished one.
        intermediate: epoch (from 1) -> first objective in its first run.
        reason: why it was stopped, or its race over seeds ended.
    """

    number: int
    source: Source
    params: Mapping[str, Any]
    distributions: Mapping[str, str]
    config: Mapping[str, Any]
    state: State = "running"
    repeats: int | None = None
    runs: Sequence[ProposedRun] = ()
    values: Sequence[float | None] | None = None
    intermediate: Mapping[int, float | None] = field(default_factory=dict)
    reason: str | None = None


def path_of(root: Path, number: int) -> Path:
    """The file of a proposal."""
    return root / FOLDER / f"{number:05d}.json"


def write_proposal(root: Path, proposal: Proposal) -> Path:
    """Writes a proposal's file atomically, in place of an earlier one. OSError passes through."""
    path = path_of(root, proposal.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    results.write_json(path, asdict(proposal))
    return path


def read_proposals(root: Path) -> list[Proposal]:
    """All proposals of a search by number; none is an empty list. A damaged file raises UserError naming it."""
    return [_read(path) for path in sorted((root / FOLDER).glob("[0-9]*.json"))]


def frozen_trial(proposal: Proposal, directions: Sequence[Direction]) -> "optuna.trial.FrozenTrial":
    """The proposal as Optuna's record of a trial; `study.add_trial` takes it and gives it the next number.

    "complete" and an answered "repeated" are COMPLETE. What was stopped is PRUNED, with the last intermediate value
    where there is one objective, as `study.tell` does. A complete one without all its values is FAIL. The user
    attributes `proposal`, `source`, `runs` and `reason` say where it comes from.

    Raises UserError naming the proposal if it does not fit its own distributions.
    """
    from optuna.distributions import json_to_distribution
    from optuna.trial import TrialState, create_trial

    intermediate = {epoch: value for epoch, value in sorted(proposal.intermediate.items()) if value is not None}
    values = _known(proposal.values, len(directions))
    state = {"running": TrialState.RUNNING, "pruned": TrialState.PRUNED}.get(proposal.state, TrialState.FAIL)
    if proposal.state in ("complete", "repeated") and values:
        state = TrialState.COMPLETE
    elif proposal.state == "repeated" and intermediate:
        state = TrialState.PRUNED
    if state == TrialState.PRUNED and len(directions) == 1 and intermediate:
        values = [intermediate[max(intermediate)]]
    about = {
        "proposal": proposal.number,
        "source": proposal.source,
        "runs": [run.id for run in proposal.runs],
        "reason": proposal.reason,
    }
    try:
        return create_trial(
            state=state,
            values=values if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
            params=dict(proposal.params),
            distributions={name: json_to_distribution(text) for name, text in proposal.distributions.items()},
            user_attrs=about,
            intermediate_values=intermediate,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"proposal {proposal.number}: its params do not fit its distributions ({error})") from error


def study_of(proposals: Iterable[Proposal], directions: Sequence[Direction]) -> "optuna.Study":
    """An in-memory study of these proposals, in their order. Optuna's trial numbers may differ from the proposals',
    which are the user attribute `proposal`.
    """
    import optuna

    # Optuna announces every study that it creates, on standard error; this one is no news.
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=list(directions), storage=optuna.storages.InMemoryStorage())
    optuna.logging.set_verbosity(verbosity)
    study.add_trials([frozen_trial(proposal, directions) for proposal in proposals])
    return study


def to_study(root: str | Path) -> "optuna.Study":
    """The study of a search's folder, with the directions of its sweep.json. Raises UserError if that is no search."""
    root = Path(root)
    info = results.read_json(root / "sweep.json")
    if info.get("kind") != "search":
        raise UserError(f"{root / 'sweep.json'}: not of a search, so there is no Optuna study of it")
    return study_of(read_proposals(root), info["directions"])


def _read(path: Path) -> Proposal:
    try:
        proposal = _SCHEMA.validate_python(json.loads(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {key}: {first['msg']}; delete the file to forget this proposal") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete the file to forget this proposal") from error
    if path.stem != f"{proposal.number:05d}":
        raise UserError(f"{path} holds proposal {proposal.number}, expected the file's own number")
    return proposal


def _known(values: Sequence[float | None] | None, count: int) -> list[float] | None:
    known = [float(value) for value in values or () if value is not None]
    return known if len(known) == count else None


_SCHEMA = TypeAdapter(Proposal)

"""The searcher that Ray Tune asks for trials: Optuna proposes, a race adds seeds, files remember.

Ray's own `OptunaSearch` takes a trial that a scheduler stopped for a complete one, leaves a failed one running for
ever, and knows neither repeated proposals nor seeds. Here Optuna's study is asked and told directly. The proposals'
files are the memory, from which a search goes on in another process.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from fer_ray import results
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.proposals import Proposal, ProposedRun, Source, frozen_trial, write_proposal
from fer_ray.space import Search
from fer_ray.tuning import race, samplers
from fer_ray.tuning.trial import Cell

MAX_REPEATS = 100
"""Proposals in a row that were all there before, after which the space counts as exhausted."""


class Proposer(Searcher):
    """Asks Optuna for configurations and tells it what came of them."""

    def __init__(
        self,
        space: Search,
        base: RunConfig,
        *,
        root: Path,
        sampler: str,
        num_trials: int,
        run_id: Callable[[RunConfig], str],
        make_cell: Callable[[str, RunConfig, dict[str, Any]], Cell],
        earlier: Sequence[Proposal],
        known: Sequence[Mapping[str, Any]],
        observed: Sequence[optuna.trial.FrozenTrial] = (),
        gpus_per_trial: float = 0.0,
        is_over: Callable[[], bool] = lambda: False,
        on_end: Callable[[Proposal], None] = lambda proposal: None,
        on_written: Callable[[Path], None] = lambda path: None,
    ) -> None:
        """Continues a search from its `earlier` proposals.

        Args:
            num_trials: proposals to train in all, those of before included and repeated ones not.
            known: points to begin with, by the names that the space uses; as many as were proposed before are left out.
            observed: complete trials of an earlier search, as Optuna knows them.
            is_over: whether a budget has ended the sweep, so that what ends now was not stopped by the scheduler.
            on_end: told of every proposal that has ended.
            on_written: told of every file of a proposal.
        """
        super().__init__(metric=space.objectives[0], mode="max")
        self._space, self._base, self._root = space, base, root
        self._run_id, self._make_cell, self._is_over, self._on_end = run_id, make_cell, is_over, on_end
        self._num_trials, self._gpus_per_trial, self._on_written = num_trials, gpus_per_trial, on_written
        self._directions = samplers.directions(space.objectives)
        built = samplers.build(sampler, space.seeds[0] + len(earlier), len(space.objectives))
        self._study = optuna.create_study(directions=self._directions, sampler=built)
        self._proposals: dict[int, Proposal] = {}
        self._trials: dict[int, optuna.Trial] = {}
        self._scores: dict[int, dict[int, list[float]]] = {}
        self._by_run: dict[str, int] = {}
        self._waiting: dict[int, list[int]] = {}
        self._queue: deque[tuple[int, int]] = deque()
        self._running: dict[str, tuple[int, int]] = {}
        for trial in observed:
            self._study.add_trial(trial)
        for proposal in earlier:
            self._remember(proposal)
        for point in known[len(earlier) :]:
            self._study.enqueue_trial(dict(point))
        self._num_known = len(known)

    @property
    def proposals(self) -> list[Proposal]:
        """All proposals by number."""
        return [self._proposals[number] for number in sorted(self._proposals)]

    @property
    def num_judged(self) -> int:
        """Proposals that have ended, repeated ones not among them."""
        return sum(proposal.state not in ("repeated", "running") for proposal in self._proposals.values())

    @property
    def num_trained(self) -> int:
        """Proposals that are or were trained, repeated ones not among them."""
        return sum(proposal.state != "repeated" for proposal in self._proposals.values())

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        """Tune's hook; the objectives are known already."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Tune's hook: the next run, None to ask again later, or FINISHED."""
        if not self._queue and self.num_trained < self._num_trials and not self._propose():
            self._num_trials = self.num_trained  # exhausted
        if self._queue:
            number, seed = self._queue.popleft()
            self._running[trial_id] = (number, seed)
            config = self._config(self._proposals[number], seed)
            return {"cell": self._make_cell(self._run_id(config), config, {"proposal": number})}
        return None if self._running else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        """Tune's hook: an epoch of a run."""
        number, seed = self._running[trial_id]
        self._note_epoch(number, seed, result)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Tune's hook: a run ended, was stopped, or its worker died for good."""
        number, seed = self._running.pop(trial_id, (None, None))
        if number is None or seed is None:
            return
        ended = bool(result and result.get("ended"))
        if not ended and not error and self._is_over():
            return  # it goes on when the sweep does
        status = str(result["status"]) if ended and result else results.FAILED if error else results.STOPPED
        if status == results.STOPPED and result:
            self._note_epoch(number, seed, result)  # Tune tells of the last epoch of a stopped trial here alone
        self._end_run(number, seed, status, dict(result or {}))

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Tune's hook; the proposals' files are the memory."""

    def save(self, checkpoint_path: str) -> None:
        """Tune's hook, see `save_to_dir`."""

    def restore(self, checkpoint_path: str) -> None:
        """Tune's hook, never called: see `save_to_dir`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as LiveView's

    def _propose(self) -> bool:
        """Asks until there is a proposal to train; False where the space has none left."""
        for _ in range(MAX_REPEATS):
            trial = self._study.ask()
            point = samplers.propose(self._space, self._base, trial)
            number = len(self._proposals)
            source: Source = "sampler"
            if number < self._num_known:
                source = "known" if number < len(self._space.known) else "warm start"
            first = self._space.seeds[0]
            run_id = self._run_id(point.config.replace({"training.seed": first}))
            self._trials[number] = trial
            proposal = Proposal(
                number=number,
                source=source,
                params=point.params,
                distributions=point.distributions,
                config=point.values,
                runs=(ProposedRun(run_id, first, "running"),),
            )
            if run_id in self._by_run:
                original = self._by_run[run_id]
                self._store(replace(proposal, state="repeated", repeats=original, runs=()))
                self._answer_from(number, original)
                continue
            self._by_run[run_id] = number
            self._store(proposal)
            self._queue.append((number, first))
            return True
        return False

    def _note_epoch(self, number: int, seed: int, result: Mapping[str, Any]) -> None:
        value = result.get(self._space.objectives[0])
        if result.get("ended") or value is None or seed != self._space.seeds[0]:
            return
        proposal = self._proposals[number]
        self._proposals[number] = replace(proposal, intermediate={**proposal.intermediate, result["epoch"]: value})

    def _end_run(self, number: int, seed: int, status: Any, result: Mapping[str, Any]) -> None:
        proposal = self._proposals[number]
        runs = tuple(ProposedRun(run.id, seed, status) if run.seed == seed else run for run in proposal.runs)
        values = self._values(result) if status == results.FINISHED else None
        if values is not None:
            self._scores.setdefault(number, {})[seed] = values
        proposal = replace(proposal, runs=runs, values=self._mean(number))
        if values is None and number not in self._scores:
            self._end(replace(proposal, **self._lost(status, result)))
            return
        if values is None:
            reason = f"seed {seed} {status}, judged by the others"
        else:
            verdict = self._verdict(number)
            if verdict.goes_on:
                following = self._space.seeds[len(runs)]
                run_id = self._run_id(self._config(proposal, following))
                self._store(replace(proposal, runs=(*runs, ProposedRun(run_id, following, "running"))))
                self._queue.append((number, following))
                return
            reason = verdict.reason or ""
        self._end(replace(proposal, state="complete", reason=reason or None))

    def _lost(self, status: str, result: Mapping[str, Any]) -> dict[str, Any]:
        if status == results.STOPPED:
            epoch = result.get("epoch")
            return {"state": "pruned", "reason": f"stopped by the scheduler after epoch {epoch}"}
        return {"state": "failed", "reason": result.get("error") or "a value of its objectives is missing"}

    def _verdict(self, number: int) -> race.Verdict:
        seeds = self._space.seeds
        if len(self._directions) > 1:  # there is no leader on a front
            left = len(self._scores[number]) < len(seeds)
            return race.Verdict(left, None if left else "scored over all seeds")
        first = {n: {seed: values[0] for seed, values in runs.items()} for n, runs in self._scores.items()}
        others = [scores for n, scores in first.items() if n != number]
        return race.judge(first[number], others, seeds, is_higher_better=self._directions[0] == "maximize")

    def _end(self, proposal: Proposal) -> None:
        self._store(proposal)
        self._tell(proposal)
        self._on_end(proposal)
        for number in self._waiting.pop(proposal.number, ()):
            self._answer_from(number, proposal.number)

    def _answer_from(self, number: int, original: int) -> None:
        """Answers a repeated proposal as its original was; while that is running, later."""
        answer = self._proposals[original]
        if answer.state == "running":
            self._waiting.setdefault(original, []).append(number)
            return
        repeated = replace(self._proposals[number], values=answer.values, intermediate=answer.intermediate)
        self._store(repeated)
        self._tell(repeated)

    def _tell(self, proposal: Proposal) -> None:
        trial = self._trials.pop(proposal.number)
        outcome = frozen_trial(proposal, self._directions)
        if outcome.state == TrialState.PRUNED and len(self._directions) == 1:
            for epoch, value in outcome.intermediate_values.items():
                trial.report(value, epoch)
        is_complete = outcome.state == TrialState.COMPLETE
        self._study.tell(trial, outcome.values if is_complete else None, state=outcome.state)

    def _remember(self, proposal: Proposal) -> None:
        """Takes in a proposal of before: what ended is told, what was running is queued again."""
        number = proposal.number
        self._proposals[number] = proposal
        if proposal.state != "repeated":
            self._by_run[proposal.runs[0].id] = number
        for run in proposal.runs:
            if run.status == results.FINISHED:
                row = results.read_json(self._root / "trials" / run.id / "row.json")
                if (values := self._values(row)) is not None:
                    self._scores.setdefault(number, {})[run.seed] = values
        if proposal.state == "running":
            self._study.enqueue_trial(dict(proposal.params))
            self._trials[number] = self._study.ask()
            samplers.propose(self._space, self._base, self._trials[number])  # fixes its parameters
            self._queue.extend((number, run.seed) for run in proposal.runs if run.status == "running")
        elif proposal.state == "repeated" and proposal.values is None and not proposal.intermediate:
            self._study.enqueue_trial(dict(proposal.params))
            self._trials[number] = self._study.ask()
            samplers.propose(self._space, self._base, self._trials[number])
            self._answer_from(number, int(proposal.repeats or 0))
        else:
            self._study.add_trial(frozen_trial(proposal, self._directions))

    def _values(self, result: Mapping[str, Any]) -> list[float] | None:
        known = {**result, "gpu_seconds": (result.get("wall_seconds") or 0) * self._gpus_per_trial}
        values = [known[name] for name in self._space.objectives if known.get(name) is not None]
        return [float(value) for value in values] if len(values) == len(self._space.objectives) else None

    def _mean(self, number: int) -> list[float] | None:
        runs = list(self._scores.get(number, {}).values())
        return [sum(column) / len(runs) for column in zip(*runs, strict=True)] if runs else None

    def _config(self, proposal: Proposal, seed: int) -> RunConfig:
        return self._base.replace({**proposal.config, "training.seed": seed})

    def _store(self, proposal: Proposal) -> None:
        self._proposals[proposal.number] = proposal
        try:
            self._on_written(write_proposal(self._root, proposal))
        except OSError as error:
            raise UserError(f"cannot write proposal {proposal.number} to {self._root}: {error.strerror}") from error


def counts(proposals: Sequence[Proposal]) -> str:
    """`12 complete, 30 pruned, ...` of proposals."""
    found = Counter(proposal.state for proposal in proposals)
    return ", ".join(f"{count} {state}" for state, count in sorted(found.items()))

"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846), as a searcher of Ray Tune.

All members of a population train for a generation. Then each of the worst quarter gives its place to a copy of one of
the best quarter, weights, optimizer and all, which goes on with a learning rate .8 or 1.2 times as high. So the
population settles on the best of its first settings and finds a schedule of the learning rate on the way; between two
generations the rate is constant, without a warm-up. It is greedy: over few epochs what learns fast at first takes
over.

Ray's own scheduler of that name takes no searcher, draws from the clock and from a generator without a seed, and leaves
nothing that can be trained again. Here a generation ends when all its members have ended it, draws depend on the seed
alone, and a copy's config is its original's with another factor in the phases from there on. What is found is therefore
a config, whose own run gives the same bits, and a population goes on after anything: its decisions are made again from
the rows.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from ray.tune.search import Searcher

from fer_ray import results
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.proposals import Proposal, ProposedRun, read_proposals, write_proposal
from fer_ray.space import OBJECTIVES, Search
from fer_ray.storage import Storage
from fer_ray.training import checkpoint
from fer_ray.tuning.members import Family, Member, check
from fer_ray.tuning.trial import Cell

SHARE = 0.25
"""Of the members that give their place away after each generation, and of those that are copied."""


class Population(Searcher):
    """Hands out the members a generation at a time, and decides who goes on."""

    def __init__(
        self,
        space: Search,
        base: RunConfig,
        *,
        size: int,
        storage: Storage,
        run_id: Callable[[RunConfig], str],
        signature: Callable[[RunConfig], str],
        make_cell: Callable[[str, RunConfig, dict[str, Any]], Cell],
        on_end: Callable[[Proposal], None] = lambda proposal: None,
        on_copy: Callable[[str, int], None] = lambda run_id, num_images: None,
    ) -> None:
        """Draws a population, the space's known points first, or goes on with the one in the storage.

        Args:
            size: members, at least LEAST_SIZE.
            signature: of a run, which its checkpoints carry.
            on_end: told of every proposal that has ended.
            on_copy: told of every copy's run and the training images that its original had seen.

        Raises UserError as `check`, where too few of what the space proposes can be members (they have one phase, in
        which all is trained), or where the storage holds another population.
        """
        super().__init__(metric=space.objectives[0], mode="max")
        check(space, base, size)
        self._space, self._storage, self._signature, self._make_cell = space, storage, signature, make_cell
        self._on_end, self._on_copy = on_end, on_copy
        self._sign = 1 if OBJECTIVES[space.objectives[0]] == "maximize" else -1
        self._family = Family(space, base, run_id)
        self._lengths = self._family.lengths
        self._generation = 0
        self._rows: dict[str, dict[str, Any] | None] = {}
        self._lost: set[str] = set()
        self._queue: deque[Member] = deque()
        self._running: dict[str, Member] = {}
        self._members = self._family.founders(size)
        self._count = size
        self._check_founders()
        for member in self._members:
            self._write(member.proposal)
        self._go_on()

    @property
    def num_finished(self) -> int:
        """Members that have come to the end of their last generation."""
        return sum(self._status(member) == results.FINISHED for member in self._members)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        """Tune's hook; the objective is known already."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Tune's hook: the next member's part of a generation, None to ask again later, or FINISHED."""
        if not self._queue and not self._running:
            self._go_on()
        if not self._queue:
            return None if self._running else Searcher.FINISHED
        member = self._running[trial_id] = self._queue.popleft()
        cell = self._make_cell(member.run_id, member.config, {"proposal": member.proposal.number})
        # A copy begins with its original's checkpoint, so that each generation has to leave one.
        config = {**cell["config"], "runtime.checkpoint_seconds": 0.0}
        return {"cell": {**cell, "config": config, "until": self._end}}

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        """Tune's hook; what is decided is decided from the rows."""

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Tune's hook: a member ended its generation, failed, or was stopped by a budget."""
        member = self._running.pop(trial_id, None)
        if member is None:
            return
        self._rows.pop(member.run_id, None)
        if error or (result or {}).get("status") == results.FAILED:
            self._lost.add(member.run_id)
        elif self._status(member) == results.FINISHED:
            self._finish(member)

    def save(self, checkpoint_path: str) -> None:
        """Tune's hook; the files are the memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Tune's hook, never called."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as LiveView's

    @property
    def _end(self) -> int:
        """The last epoch of this generation."""
        return sum(self._lengths[: self._generation + 1])

    def _go_on(self) -> None:
        """Queues what is left of this generation; where nothing is, ends it and goes on to the next."""
        while not self._queue:
            self._queue.extend(filter(self._needs_training, self._members))
            if self._queue or self._generation + 1 == len(self._lengths):
                for member in self._members:
                    if self._status(member) in (results.FAILED, results.FINISHED) and member not in self._queue:
                        self._finish(member)
                return
            self._select()
            self._generation += 1

    def _check_founders(self) -> None:
        there = {proposal.number: proposal.runs[0].id for proposal in read_proposals(self._storage.folder)}
        if any(there.get(member.proposal.number, member.run_id) != member.run_id for member in self._members):
            raise UserError(
                f"{self._storage.location} holds a population that began with other members; give this one its own "
                "--name"
            )

    def _select(self) -> None:
        """Puts copies of the best in the places of the worst, and of all that failed (truncation selection)."""
        ranked = sorted(self._members, key=lambda m: (self._score(m) is None, -(self._score(m) or 0) * self._sign))
        sound = sum(self._score(member) is not None for member in ranked)
        if not sound:
            row = self._row(ranked[0]) or {}
            reason = row.get("error") or f"no epoch has a {self._space.objectives[0]}"
            raise UserError(f"--scheduler pbt: no member is left to copy; {ranked[0].run_id}: {reason}")
        quarter = max(1, int(len(ranked) * SHARE))
        best = ranked[: min(quarter, sound)]
        taken: set[str] = set()
        for worst in ranked[max(len(best), min(sound, len(ranked) - quarter)) :]:
            draw = random.Random(f"{self._space.seeds[0]} {self._generation} {worst.proposal.number}")
            pairs = self._family.copies(best, self._generation + 1, self._count, draw)
            original, copy = next(pair for pair in pairs if pair[1].run_id not in taken)
            taken.add(copy.run_id)
            self._count += 1
            self._hand_over(original, copy)
            self._members[self._members.index(worst)] = copy
            self._write(copy.proposal)
            reason = (
                f"after epoch {self._end} its place went to proposal {copy.proposal.number}, a copy of "
                f"{original.proposal.number} that goes on at {copy.factors[-1]:g} times the learning rate"
            )
            self._finish(worst, reason)

    def _hand_over(self, original: Member, copy: Member) -> None:
        """Gives a copy its original's checkpoint."""
        source, target = f"checkpoints/{original.run_id}", f"checkpoints/{copy.run_id}"
        self._storage.pull(source, target)
        folder = self._storage.folder
        self._on_copy(copy.run_id, int(self._epochs(original).at[self._end, "images_seen"]))
        if self._row(copy) is not None:
            return
        if not any((folder / target).glob("checkpoint-*.pt")):
            # Where the original has gone on since, the copy trains from the start, to the same bits.
            state = checkpoint.load_newest(folder / source, self._signature(original.config))
            if state is not None and len(state["epochs"]) == self._end:
                state["signature"] = self._signature(copy.config)
                checkpoint.save(folder / target, state["place"][0], state)
        self._storage.push(target)

    def _finish(self, member: Member, reason: str | None = None) -> None:
        row, status = self._row(member) or {}, self._status(member)
        run = ProposedRun(member.run_id, self._space.seeds[0], status)
        state: Any = {results.FINISHED: "complete", results.STOPPED: "pruned"}.get(status, "failed")
        value = row.get(self._space.objectives[0]) if status == results.FINISHED else None
        ended = replace(
            member.proposal,
            state="failed" if state == "complete" and value is None else state,
            runs=(run,),
            values=None if value is None else [value],
            intermediate=self._curve(member),
            reason=reason or row.get("error"),
        )
        self._write(ended)
        self._on_end(ended)

    def _row(self, member: Member) -> dict[str, Any] | None:
        if member.run_id not in self._rows:
            self._storage.pull(f"trials/{member.run_id}")
            path = self._storage.folder / "trials" / member.run_id / "row.json"
            self._rows[member.run_id] = results.read_json(path) if path.exists() else None
        return self._rows[member.run_id]

    def _status(self, member: Member) -> Any:
        """Of its row; "running" without one."""
        return results.FAILED if member.run_id in self._lost else (self._row(member) or {}).get("status", "running")

    def _needs_training(self, member: Member) -> bool:
        """Whether it has not ended this generation. What failed would fail again; what was stopped in its very last
        epoch has its test before it.
        """
        status, epochs = self._status(member), (self._row(member) or {}).get("epochs_run") or 0
        if status in (results.FAILED, results.FINISHED):
            return False
        return epochs < self._end or self._end == sum(self._lengths)

    def _epochs(self, member: Member) -> pd.DataFrame:
        """Its epochs so far, by number."""
        path = self._storage.folder / "trials" / member.run_id / "epochs.parquet"
        empty = pd.DataFrame(columns=["epoch", self._space.objectives[0]])
        return (results.read_parquet(path) if path.exists() else empty).set_index("epoch")

    def _curve(self, member: Member) -> dict[int, float]:
        found = self._epochs(member)[self._space.objectives[0]].dropna()
        return {int(epoch): float(value) for epoch, value in found.items()}

    def _score(self, member: Member) -> float | None:
        """The objective at the end of this generation; None where it failed before."""
        return None if self._status(member) == results.FAILED else self._curve(member).get(self._end)

    def _write(self, proposal: Proposal) -> None:
        try:
            path: Path = write_proposal(self._storage.folder, proposal)
        except OSError as error:
            raise UserError(
                f"cannot write proposal {proposal.number} to {self._storage.folder}: {error.strerror}"
            ) from error
        self._storage.push(str(path.relative_to(self._storage.folder)))

"""Freeze schedules as text: `head 30, last-30 20 x0.1` is two phases of a run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

GRAMMAR = "PART SHARE [xFACTOR] [carry], ... with PART head, last-N, from-BLOCK or all"

_PHASE = re.compile(
    r"(all|head|last-[1-9]\d{0,3}|from-[A-Za-z_][\w.]*) (\d{1,4}(?:\.\d+)?)(?: x(\d*\.?\d+(?:e-?\d+)?))?( carry)?"
)


@dataclass(frozen=True)
class Phase:
    """A part of a run in which the same layers are trained.

    Attributes:
        trainable: "all"; "head", what comes after the features; "last-N", the last N layers that have weights, with
            norms and head among them; "from-BLOCK", the named block of the backbone and all after it, and the head.
        share: of the run's epochs, relative to the other phases.
        factor: of `optimizer.learning_rate`.
        carries: whether the optimizer keeps its state (moments) from the phase before.
    """

    trainable: str
    share: float
    factor: float = 1.0
    carries: bool = False


def parse_phases(text: str | None) -> tuple[Phase, ...]:
    """The phases of a run; None is one in which all is trained. Raises ValueError saying what was expected.

    >>> parse_phases("head 3, all 6 x.1 carry")[1]
    Phase(trainable='all', share=6.0, factor=0.1, carries=True)
    """
    if text is None:
        return (Phase("all", 1.0),)
    phases = []
    for part in text.split(","):
        match = _PHASE.fullmatch(" ".join(part.split()))
        if not match or not float(match[2]) or (match[3] and not float(match[3])):
            raise ValueError(f"phases as {GRAMMAR}; cannot read {part.strip()!r}")
        phases.append(Phase(match[1], float(match[2]), float(match[3] or 1), bool(match[4])))
    if phases[0].carries:
        raise ValueError("a first phase without carry, as nothing comes before it")
    return tuple(phases)


def epochs_of(phases: Sequence[Phase], epochs: int) -> list[int]:
    """How many of `epochs` each phase gets: to its share, by largest remainders; at least one each.

    With fewer epochs than phases every phase still gets one.

    >>> epochs_of(parse_phases("head 30, all 20"), 10)
    [6, 4]
    """
    spare = max(0, epochs - len(phases))
    total = sum(phase.share for phase in phases)
    exact = [max(0.0, phase.share / total * max(epochs, len(phases)) - 1) for phase in phases]
    scale = spare / sum(exact) if sum(exact) else 0.0
    whole = [int(value * scale + 1e-9) for value in exact]
    by_remainder = sorted(range(len(phases)), key=lambda i: (whole[i] - exact[i] * scale, i))
    for i in by_remainder[: spare - sum(whole)]:
        whole[i] += 1
    return [1 + count for count in whole]

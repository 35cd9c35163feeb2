"""Progress of long work that lies deep below a command: told here, shown by whoever listens."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console

MIN_COUNT = 2000
"""Shorter work is over before anybody would read of it."""

LINE_SECONDS = 15.0


class Listener(Protocol):
    """Hears what is being done, how much of it is done, and how much there is."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell(what: str, done: int, total: int) -> None:
    """Says that `done` of `total` images are through `what`, e.g. "decoding"."""
    if (listener := _listener.get()) is not None and total >= MIN_COUNT:
        listener(what, done, total)


@contextmanager
def shown(console: Console) -> Iterator[None]:
    """Shows what is told meanwhile: a bar on a terminal, elsewhere a line every quarter of a minute."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {}
        said = started = time.monotonic()

        def listen(what: str, done: int, total: int) -> None:
            nonlocal said
            if console.is_terminal:
                if what not in tasks:
                    tasks[what] = progress.add_task(what, total=total)
                progress.update(tasks[what], completed=done)
            elif (now := time.monotonic()) - said > LINE_SECONDS:
                said = now
                left = (now - started) / done * (total - done)
                console.print(f"{what}: {done:,} of {total:,} images, about {left / 60:.1f} minutes left")

        token = _listener.set(listen)
        try:
            yield
        finally:
            _listener.reset(token)

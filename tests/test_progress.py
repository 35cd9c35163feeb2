"""Long work deep below a command is heard of."""

import io

from rich.console import Console

from fer_ray import progress


def test_nothing_is_said_where_nobody_listens() -> None:
    progress.tell("decoding", 5, 10_000)


def test_a_listener_hears_long_work_and_not_short_work(monkeypatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
    text = io.StringIO()
    with progress.shown(Console(file=text, width=200)):
        progress.tell("decoding", 5000, 10_000)
        progress.tell("reading sizes", 5, 10)
    assert "decoding: 5,000 of 10,000 images, about " in text.getvalue()
    assert "reading sizes" not in text.getvalue()

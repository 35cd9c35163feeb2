"""One HTML page that works offline: nothing is fetched, nothing is sent, and what comes from outside is escaped."""

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import plotly.graph_objects as go

_DRAW = """
const quiet = getComputedStyle(document.body).getPropertyValue("--quiet");
for (const place of document.querySelectorAll("[data-figure]")) {
  const figure = JSON.parse(document.getElementById("figures").textContent)[place.dataset.figure];
  const layout = {...figure.layout, paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: {color: quiet}};
  Plotly.newPlot(place, figure.data, layout, {responsive: true, displaylogo: false});
}
"""

JPEG_QUALITY = 85


def render(title: str, sections: Sequence[str], figures: "Mapping[str, go.Figure] | None" = None) -> str:
    """A page of sections, each made by `section`. `figures` are drawn where `figure` put their key."""
    body = "\n".join([f"<header><h1>{escape(title)}</h1></header>", "<main>", *sections, "</main>"])
    if not figures:
        return document(title, body)
    from plotly.offline import get_plotlyjs

    data = {key: json.loads(drawn.to_json()) for key, drawn in figures.items()}
    return document(title, body, data={"figures": data}, scripts=[get_plotlyjs(), _DRAW])


def document(
    title: str,
    body: str,
    *,
    data: Mapping[str, Any] | None = None,
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
) -> str:
    """The whole HTML around a body that is HTML already.

    Args:
        title: plain text.
        body: HTML.
        data: id -> value, put into the page as JSON for the scripts.
        scripts: JavaScript, run in this order at the end; only these run, by their hash.
        styles: CSS after the common one.
    """
    records = (
        f'<script type="application/json" id="{escape(key)}">{_json(value)}</script>'
        for key, value in (data or {}).items()
    )
    common = files("fer_ray").joinpath("page.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>",
            common,
            *styles,
            "</style>\n</head>\n<body>",
            body,
            *records,
            *(f"<script>{script}</script>" for script in scripts),
            "</body>\n</html>\n",
        ]
    )


def section(key: str, title: str, content: str) -> str:
    """A part of the page with a heading: `key` is its id (letters, digits, dashes), `content` is HTML."""
    return f'<section aria-labelledby="{key}-title"><h2 id="{key}-title">{escape(title)}</h2>{content}</section>'


def facts(values: Mapping[str, Any]) -> str:
    """Names and values side by side; those that are None or empty are left out."""
    known = {key: value for key, value in values.items() if value not in (None, "")}
    items = (f"<div><dt>{escape(key)}</dt><dd>{escape(str(value))}</dd></div>" for key, value in known.items())
    return f"<dl>{''.join(items)}</dl>"


def paragraphs(sentences: Iterable[str]) -> str:
    """A paragraph per sentence of plain text."""
    return "".join(f"<p>{escape(sentence).replace(' %', '&nbsp;%')}</p>" for sentence in sentences)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of plain text: the first column names the row, numbers have thousands separators."""
    titles = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{_entry(first)}</th>{"".join(f"<td>{_entry(value)}</td>" for value in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<div class="twin"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(key: str, caption: str = "") -> str:
    """Where the plotly figure of this key is drawn, with a caption in plain text below."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="plot" data-figure="{key}"></div>{below}</figure>'


def image(pixels: "np.ndarray", alt: str, width: int | None = None) -> str:
    """A picture inside the page: uint8 [H, W, 1 or 3] as JPEG, shown `width` CSS pixels wide (its own width)."""
    from PIL import Image

    file = io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    source = base64.b64encode(file.getvalue()).decode()
    shown = width or picture.width
    height = round(shown * picture.height / picture.width)
    return (
        f'<img src="data:image/jpeg;base64,{source}" alt="{escape(alt)}" title="{escape(alt)}" '
        f'width="{shown}" height="{height}" loading="lazy">'
    )


def _entry(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _policy(scripts: Iterable[str]) -> str:
    """Only the scripts of this page run, by their hash, and nothing may be loaded or sent."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )

"""HTML of one file that loads nothing: tables, figures for a light and a dark page, and the page around them."""

import html
import io
from base64 import b64encode
from collections.abc import Callable, Sequence


def page_html(title: str, body: str) -> str:
    """The page with that title around a `body` of ready HTML."""
    head, foot = _PAGE.split("BODY")
    return head.replace("TITLE", escape(title)) + body + foot


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of ready HTML; on a phone each row is a block with its labels."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    labelled = [zip(header, row, strict=True) for row in rows]
    body = "".join(
        "<tr>" + "".join(f"<td data-label='{escape(name)}'><span>{cell}</span></td>" for name, cell in row) + "</tr>"
        for row in labelled
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def figures_html(figures: Sequence[tuple[str, Callable]]) -> str:
    """Each figure, a (caption, draw(dark=...)), drawn twice: for a light and a dark page."""
    parts = []
    for caption, draw in figures:
        light, dark = (_data_uri(draw(dark=dark)) for dark in (False, True))
        parts.append(
            f"<figure><picture><source media='(prefers-color-scheme: dark)' srcset='{dark}'>"
            f"<img src='{light}' alt='{escape(caption)}'></picture><figcaption>{escape(caption)}</figcaption></figure>"
        )
    return f"<div class='figures'>{''.join(parts)}</div>"


def escape(text: object) -> str:
    """Any text as HTML that shows it, a path that is not UTF-8 among them."""
    return html.escape(str(text).encode("utf-8", "backslashreplace").decode(), quote=True)


def _data_uri(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark; --ink: #222; --soft: #666; --paper: #fff; --line: #ddd }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --soft: #a5a9b0; --paper: #1b1e24; --line: #3a3f48 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.25rem; margin-top: 2.5rem } h3 { font-size: 1rem; margin: 1.5rem 0 .5rem }
.note, figcaption { color: var(--soft); font-size: .875rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: break-word }
th { color: var(--soft); font-weight: 600 }
td i { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .5em }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)); gap: 1rem;
  align-items: start }
figure { margin: 1rem 0 0; max-width: 34rem } img { width: 100%; height: auto; display: block }
sub { line-height: 0 } summary { cursor: pointer; margin: 1rem 0 .5rem }
@media (max-width: 640px) {
  thead { display: none } tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line) }
  td { display: grid; grid-template-columns: 8.5rem 1fr; border: 0; padding: .1rem 0 }
  td::before { content: attr(data-label); color: var(--soft) }
}
</style></head><body>
BODY
</body></html>
"""

"""What the page shows, as HTML: every text that comes from elsewhere is escaped here.

Gradio puts the value of a `gr.HTML` into the page as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from code_search.highlight import code_html
from code_search.indexing import Progress
from code_search.search import Result


def message(text: str, *, kind: str = "error") -> str:
    """Return a box with a sentence; ``kind`` is "error" or "note"."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="cs-message cs-{kind}" role="{role}">{escape(text)}</div>'


def progress(now: Progress) -> str:
    """Return the bar and the counts of an indexing, under way or ended."""
    whole = now.done and not now.cancelled
    share = 1.0 if whole else now.files / now.files_total if now.files_total else 0.0
    counts = [
        ("files", f"{now.files:,} of {now.files_total:,}"),
        ("chunks", f"{now.chunks:,}"),
        ("embedded", f"{now.embedded:,}"),
        ("kept", f"{now.kept:,}"),
        ("removed", f"{now.removed:,}"),
        ("cache hits", f"{now.hits:,} ({now.hit_rate:.0%})"),
        ("rate", f"{now.chunks_per_second:,.0f} chunks/s"),
        ("time", f"{now.seconds:.1f} s"),
    ]
    state = "cancelled" if now.cancelled else "done" if now.done else "running"
    return (
        f'<div class="cs-progress" data-state="{state}">'
        f'<div class="cs-bar" role="progressbar" aria-valuenow="{share:.0%}">'
        f'<div style="width: {share:.1%}"></div></div>'
        f"{_pairs(counts)}{_skipped(now)}"
        f'<p role="status">{escape(now.message)}</p></div>'
    )


def results(found: Sequence[Result], query: str, seconds: float) -> str:
    """Return the results of a search, best first."""
    if found:
        html = f'<p class="cs-count">{len(found)} results in {seconds * 1000:.0f} ms</p>'
        html += "".join(_result(rank, one) for rank, one in enumerate(found, 1))
    else:
        html = message(f"Nothing found for “{query}” within these filters.", kind="note")
    return f'<section data-question="{escape(query)}">{html}</section>'


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and values, a pair a line."""
    return _pairs(rows, "cs-table")


def _result(rank: int, one: Result) -> str:
    where = f"{one.path}:{one.start}-{one.end}"
    shown = f"<code>{escape(where)}</code>"
    if one.url:
        shown = f'<a href="{escape(one.url)}" target="_blank" rel="noopener noreferrer">{shown}</a>'
    symbol = f'<span class="cs-symbol">{escape(one.symbol)}</span>' if one.symbol else ""
    return (
        f'<article class="cs-result" data-path="{escape(one.path)}">'
        f'<header><span class="cs-rank">{rank}</span>{shown}{symbol}'
        f'<span class="cs-language">{escape(one.language)}</span>'
        f'<span class="cs-score" title="score">{one.score:.3f}</span></header>'
        f"{code_html(one.text, one.path, one.language, one.start)}</article>"
    )


def _pairs(rows: Iterable[tuple[str, str]], kind: str = "cs-pairs") -> str:
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in rows
    )
    return f'<dl class="{kind}">{cells}</dl>'


def _skipped(now: Progress) -> str:
    if not now.skipped:
        return ""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in now.skipped.most_common())
    return f'<p class="cs-skipped">Files left out: {escape(reasons)}.</p>'

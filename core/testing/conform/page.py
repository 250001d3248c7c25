"""The report as one HTML page: self-contained, no network, readable in light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .report import Outcome, Report, by_family

_STYLE = """
:root { --ground:#fbfaf8; --card:#fff; --ink:#1d1f24; --faint:#6b7079; --line:#e5e3de;
  --held:#1f7a4d; --skipped:#9a7b1e; --failed:#b3261e; --wash:#fdf1f0; }
@media (prefers-color-scheme: dark) { :root { --ground:#14161a; --card:#1c1f25; --ink:#e7e5e0;
  --faint:#9097a1; --line:#2e323a; --held:#5ec98f; --skipped:#d9b650; --failed:#ff8a80;
  --wash:#2a1e1f; } }
* { box-sizing:border-box }
body { margin:0; background:var(--ground); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif }
main { max-width:62rem; margin:0 auto; padding:2.5rem 1.25rem 5rem }
h1 { font-size:1.7rem; margin:0 0 .2rem; letter-spacing:-.01em }
h2 { font-size:1.05rem; margin:2.4rem 0 .6rem }
h2 small, .where, .facts dt { color:var(--faint); font-weight:400 }
.verdict { display:inline-block; margin-left:.6rem; padding:.1rem .6rem; border-radius:1rem;
  font-size:.95rem; font-weight:600; color:var(--card); vertical-align:.2rem }
.bar { display:flex; height:.6rem; margin:1.4rem 0 .5rem; border-radius:.3rem; overflow:hidden;
  background:var(--line) }
.bar i { display:block }
.counts span { margin-right:1.4rem } .counts b { font-size:1.25rem }
.held { color:var(--held) } .skipped { color:var(--skipped) } .failed { color:var(--failed) }
.bg-held { background:var(--held) } .bg-skipped { background:var(--skipped) }
.bg-failed { background:var(--failed) }
.facts { display:grid; grid-template-columns:max-content 1fr; gap:.15rem 1.2rem; margin:1.2rem 0 }
.facts dd { margin:0; overflow-wrap:anywhere }
table { width:100%; border-collapse:collapse; background:var(--card);
  border:1px solid var(--line); border-radius:.5rem; overflow:hidden }
td { padding:.4rem .7rem; border-top:1px solid var(--line); vertical-align:top }
tr:first-child td { border-top:0 }
td:first-child { width:4.5rem; font-weight:600; font-variant-numeric:tabular-nums }
td:nth-child(2) { width:5.2rem } td:last-child { width:8rem; text-align:right;
  color:var(--faint); font-variant-numeric:tabular-nums; white-space:nowrap }
td em { color:var(--faint); font-style:normal }
tr.fail td { background:var(--wash) }
pre { margin:.6rem 0; padding:.8rem 1rem; overflow-x:auto; background:var(--ground);
  border:1px solid var(--line); border-radius:.4rem; font:13px/1.5 ui-monospace,monospace }
ol { margin:.6rem 0; padding-left:1.6rem; font:13px/1.6 ui-monospace,monospace;
  overflow-wrap:anywhere }
summary { cursor:pointer; color:var(--faint) }
@media print { details > * { display:block } }
"""

_WORDS = {"held": "held", "skipped": "skipped", "failed": "failed"}

#: What the modules of properties are about, as headings.
FAMILIES = {
    "layers": "Life of snapshots",
    "mounts": "Mounts",
    "posix": "File systems semantics through the mount",
    "diff": "Diff and apply",
    "quota": "Quota and usage",
    "crash": "Crashes",
    "concurrency": "Concurrency",
    "selection": "Selection and status",
    "capability": "Declared capabilities",
    "machine": "State machine",
    "bugs": "Bug classes of the field",
    "containerd": "What containerd's suite never wrote",
}


def page(report: Report) -> str:
    """Return *report* as an HTML document."""
    verdict = "failed" if not report.passed else "held"
    title = f"{report.driver}: storage driver conformance"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{escape(report.driver)}"
            f'<span class="verdict bg-{verdict}">{"conforms" if report.passed else "fails"}</span>'
            "</h1>",
            f'<div class="where">Storage driver conformance · {escape(report.title)}</div>',
            _bar(report),
            _counts(report),
            _facts(report),
            *(part for name, found in by_family(report).items() for part in _section(name, found)),
            "</main></body></html>",
        ]
    )


def _bar(report: Report) -> str:
    total = max(1, len(report.outcomes))
    parts = "".join(
        f'<i class="bg-{status}" style="width:{100 * report.count(status) / total:.2f}%"></i>'
        for status in ("held", "failed", "skipped")
    )
    return f'<div class="bar">{parts}</div>'


def _counts(report: Report) -> str:
    spans = (
        f'<span class="{status}"><b>{report.count(status)}</b> {word}</span>'
        for status, word in _WORDS.items()
    )
    return f'<div class="counts">{"".join(spans)}</div>'


def _facts(report: Report) -> str:
    claimed = [name for name, value in report.capabilities.items() if value]
    rows = {
        "Claims": ", ".join(claimed),
        "Options": ", ".join(report.options) or "none",
        "Run": f"{report.seconds:.1f} s, {report.examples} examples, seed {report.seed},"
        f" Stowage {report.version}",
    }
    inner = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items()
    )
    return f'<dl class="facts">{inner}</dl>'


def _section(name: str, outcomes: list[Outcome]) -> Iterator[str]:
    held = sum(outcome.status == "held" for outcome in outcomes)
    heading = FAMILIES.get(name, name.replace("_", " ").capitalize())
    yield f"<h2>{escape(heading)} <small>{held} of {len(outcomes)} held</small></h2><table>"
    for outcome in outcomes:
        yield _row(outcome)
    yield "</table>"


def _row(outcome: Outcome) -> str:
    fail = ' class="fail"' if outcome.status == "failed" else ""
    effort = f"{outcome.examples} in {outcome.seconds:.1f} s" if outcome.examples else ""
    text = escape(outcome.text)
    if outcome.reason:
        text += f" <em>({escape(outcome.reason)})</em>"
    return (
        f'<tr{fail} id="{escape(outcome.name)}"><td>{escape(outcome.name)}</td>'
        f'<td class="{outcome.status}">{_WORDS[outcome.status]}</td>'
        f"<td>{text}{_details(outcome)}</td><td>{effort}</td></tr>"
    )


def _details(outcome: Outcome) -> str:
    if outcome.status != "failed":
        return ""
    steps = "".join(f"<li>{escape(step)}</li>" for step in outcome.program)
    return (
        f"<pre>{escape(outcome.message)}</pre>"
        f"<details open><summary>The program, shrunk</summary><ol>{steps}</ol></details>"
        f"<details><summary>As a script</summary><pre>{escape(outcome.snippet)}</pre></details>"
    )


__all__ = ["FAMILIES", "page"]

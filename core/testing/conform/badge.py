"""A badge for a README: ``conforms 81/81`` in the flat style that readers know."""

from __future__ import annotations

from html import escape

from .report import Report

_HELD, _FAILED = "#2a8a57", "#b3261e"
_LABEL = "storage driver"


def badge(report: Report) -> str:
    """Return *report* as an SVG image; the text counts what held of what applies."""
    applies = len(report.outcomes) - report.count("skipped")
    value = f"{'conforms' if report.passed else 'fails'} {report.count('held')}/{applies}"
    left, right = _width(_LABEL), _width(value)
    colour = _HELD if report.passed else _FAILED
    title = escape(f"{report.title}: {report.summary}")
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" \
role="img" aria-label="{escape(_LABEL)}: {escape(value)}">
<title>{title}</title>
<clipPath id="r"><rect width="{left + right}" height="20" rx="3"/></clipPath>
<g clip-path="url(#r)">
<rect width="{left}" height="20" fill="#444c56"/>
<rect x="{left}" width="{right}" height="20" fill="{colour}"/>
</g>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{left / 2}" y="14">{escape(_LABEL)}</text>
<text x="{left + right / 2}" y="14">{escape(value)}</text>
</g>
</svg>
"""


def _width(text: str) -> int:
    return round(6.6 * len(text)) + 12


__all__ = ["badge"]

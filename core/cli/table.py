"""Rows as Docker's columns, as JSON lines, or through a ``--format`` template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

Row = Mapping[str, object]

_MINIMUM_WIDTH = 10
_PADDING = 3


def columns(lines: Iterable[Sequence[str]], minimum: int = _MINIMUM_WIDTH) -> str:
    """Return *lines* of cells as Go's tabwriter lays them out for Docker.

    Each column but the last is three wider than its widest cell and at least *minimum* wide.
    """
    rows = [list(line) for line in lines]
    widths: list[int] = []
    for row in rows:
        for index, cell in enumerate(row[:-1]):
            if index == len(widths):
                widths.append(minimum)
            widths[index] = max(widths[index], len(cell) + _PADDING)
    return "\n".join(
        "".join(
            cell.ljust(widths[index]) if index < len(row) - 1 else cell
            for index, cell in enumerate(row)
        )
        for row in rows
    )


class Listing:
    """How the rows of one command may be shown.

    *headings* are by field; *default* is the template of its table. *names* is the field that
    ``-q`` prints.
    """

    def __init__(self, headings: Mapping[str, str], default: Sequence[str], quiet: str) -> None:
        self.headings = headings
        self.default = default
        self.quiet = quiet

    def show(
        self,
        rows: Iterable[Row],
        *,
        format: str | None = None,
        quiet: bool = False,
        fields: Sequence[str] | None = None,
    ) -> str:
        """Return the text, without a last newline; empty for no rows where Docker prints none.

        Raises:
            InvalidArgument: if *format* is not a template, or does not fit the rows.
        """
        if quiet and format in (None, "table"):
            return "\n".join(str(row[self.quiet]) for row in rows)
        if format in (None, "", "table"):
            shown = fields or self.default
            lines = [[str(row[name]) for name in shown] for row in rows]
            return columns([[self.headings[name] for name in shown], *lines])
        assert format is not None
        if re.match(r"table\s", format):
            return self._table(_unescaped(format[len("table") :].lstrip(" ")), rows)
        from .template import Template

        template = Template("{{json .}}" if format == "json" else _unescaped(format))
        return "\n".join(template.render(row) for row in rows)

    def _table(self, format: str, rows: Iterable[Row]) -> str:
        from .template import Template

        template = Template(format)
        heading = template.render(_Headings(self.headings))
        return columns(line.split("\t") for line in (heading, *(template.render(r) for r in rows)))


class _Headings(dict[str, object]):
    """Stands for a row when a table's first line is rendered; a method gives its argument."""

    def __init__(self, headings: Mapping[str, str]) -> None:
        super().__init__(headings)
        self["Label"] = lambda name: str(name)


def _unescaped(text: str) -> str:
    r"""Turn ``\t`` and ``\n`` that the shell left alone into what they mean, as Docker does."""
    return text.replace("\\t", "\t").replace("\\n", "\n")


def pretty_json(value: object) -> str:
    """Return *value* as ``docker inspect`` prints it: four spaces, order kept."""
    return json.dumps(value, indent=4, ensure_ascii=False)

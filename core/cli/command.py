"""What a command is: its usage, its flags, what it does; and its help in Docker's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from .flags import Flag, Parsed, UsageError, parse

if TYPE_CHECKING:
    from .context import Context

_WIDTH = 80


class Command(Struct, frozen=True):
    """One command; *action* returns the exit code, None meaning 0.

    *usage* is what follows the command's words (``[OPTIONS] IMAGE [COMMAND] [ARG...]``); the
    number of arguments is read from it.
    With *bare* the command is for our own processes: configuration comes from its flags alone.
    """

    usage: str
    action: Callable[[Context, Parsed], int | None]
    flags: Sequence[Flag] = ()
    interspersed: bool = True
    bare: bool = False
    needs_root: bool = False

    def read(self, words: Sequence[str], name: str) -> Parsed:
        """Read *words*, what follows the command called *name*.

        Raises:
            UsageError: if a flag is wrong, or there are too few or too many arguments.
        """
        parsed = parse(self.flags, words, interspersed=self.interspersed)
        least, most = self.arity
        count = len(parsed.arguments)
        if count < least or (most is not None and count > most):
            raise UsageError(f'"{name}" {_required(least, most)}.', exit_code=1)
        return parsed

    @property
    def arity(self) -> tuple[int, int | None]:
        """Least and most arguments (None: no limit), as *usage* says."""
        words = [word for word in _grouped(self.usage) if word != "[OPTIONS]"]
        endless = any("..." in word or " " in word for word in words)
        least = sum(1 for word in words if not word.startswith("["))
        return least, None if endless else len(words)

    def help(self, name: str, summary: str, aliases: Sequence[str] = ()) -> str:
        """Return the text of ``--help``."""
        lines = [f"Usage:  {name} {self.usage}".rstrip(), "", summary]
        if len(aliases) > 1:
            lines += ["", "Aliases:", "  " + ", ".join(aliases)]
        flags = [flag for flag in self.flags if flag.meaning]  # a second name has none
        if flags:
            lines += ["", "Options:", *_option_lines(flags)]
        return "\n".join(lines)


def _grouped(usage: str) -> list[str]:
    """Split at spaces outside of brackets: ``[ps OPTIONS]`` is one word."""
    words: list[str] = []
    for word in usage.split():
        if words and words[-1].count("[") > words[-1].count("]"):
            words[-1] += f" {word}"
        else:
            words.append(word)
    return words


def _required(least: int, most: int | None) -> str:
    plural = "" if least == 1 else "s"
    if most == 0:
        return "accepts no arguments"
    if most == least:
        return f"requires exactly {least} argument{plural}"
    if most is None:
        return f"requires at least {least} argument{plural}"
    return f"requires at least {least} and at most {most} argument{'' if most == 1 else 's'}"


def _option_lines(flags: Sequence[Flag]) -> list[str]:
    shown = {flag.name: _shown(flag) for flag in flags}
    width = max(len(text) for text in shown.values())
    lines: list[str] = []
    for flag in sorted(flags, key=lambda one: one.name):
        default = ""
        if flag.kind == "one" and flag.default not in (None, ""):
            quote = '"' if isinstance(flag.default, str) else ""
            default = f" (default {quote}{flag.default}{quote})"
        first, *more = _wrapped(flag.meaning + default, _WIDTH - width - 5)
        lines.append(f"  {shown[flag.name].ljust(width)}   {first}")
        lines += [" " * (width + 5) + line for line in more]
    return lines


def _shown(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    return f"{short}--{flag.name} {flag.value}".rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines

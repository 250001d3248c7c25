"""What may come next on a command line: commands, flags, and names of what there is.

All of it is read from the table of commands, their flags and their usage (``CONTAINER`` in a
usage is completed with containers), so a new command is completed without a word about it here.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Protocol

from msgspec import Struct, field

from . import commands
from .command import Command
from .flags import Flag, switch

#: Stands among the candidates for "any file".
FILES = ":files"

_HELP = switch("help", "Print usage")


class Names(Protocol):
    """Where names of what there is come from."""

    def of(self, kind: str) -> Sequence[str]:
        """Return the names of all that is a *kind*."""


class Candidate(Struct, frozen=True):
    """One word that fits, and what it means."""

    word: str
    meaning: str = ""

    def __str__(self) -> str:
        return f"{self.word}\t{self.meaning}" if self.meaning else self.word


def candidates(
    words: Sequence[str], global_flags: Sequence[Flag], names: Names
) -> Sequence[Candidate]:
    """Return what may stand for the last of *words* (those after ``stowage``), beginning as it
    does; :data:`FILES` among them means any path."""
    *before, current = words or [""]
    found = _Completion(global_flags, names).next(before, current)
    return [one for one in found if one.word == FILES or one.word.startswith(current)]


class _Walk(Struct):
    """What a part of a line holds: arguments, the flag that waits for its value, and whether
    flags are over."""

    arguments: list[str] = field(default_factory=list)
    waiting: Flag | None = None
    over: bool = False


def _walk(flags: Sequence[Flag], words: Sequence[str], *, interspersed: bool) -> _Walk:
    by_name = {f"--{flag.name}": flag for flag in flags}
    by_short = {flag.short: flag for flag in flags if flag.short}
    walk = _Walk()
    for word in words:
        if walk.waiting is not None:
            walk.waiting = None
        elif walk.over or not word.startswith("-") or word == "-":
            walk.arguments.append(word)
            walk.over = walk.over or not interspersed
        elif word == "--":
            walk.over = True
        elif word.startswith("--"):
            flag = by_name.get(word)
            walk.waiting = flag if flag and flag.kind != "switch" else None
        else:
            walk.waiting = _last_short(by_short, word)
    return walk


def _last_short(by_short: dict[str, Flag], word: str) -> Flag | None:
    """Return the flag of ``-itv`` whose value is the next word."""
    for position, letter in enumerate(word[1:], 1):
        flag = by_short.get(letter)
        if flag is not None and flag.kind != "switch":
            return flag if position == len(word) - 1 else None
    return None


class _Completion:
    def __init__(self, global_flags: Sequence[Flag], names: Names) -> None:
        self._globals = global_flags
        self._names = names

    def next(self, before: Sequence[str], current: str) -> Iterator[Candidate]:
        walk = _walk(self._globals, before, interspersed=False)
        words = walk.arguments
        if not words:
            return self._at(walk, self._globals, current, _first_words)
        second = words[1] if len(words) > 1 else None
        if words[0] in commands.GROUPS and second is None:
            group = words[0]
            return iter(_summaries(commands.names(group), lambda word: f"{group} {word}"))
        entry, taken = commands.find(words[0], second)
        if entry is None:
            return iter(())
        command: Command = import_module(f".{entry.module}", __package__).COMMANDS[entry.words]
        inner = _walk(command.flags, words[taken:], interspersed=command.interspersed)
        return self._at(
            inner,
            [*command.flags, _HELP],
            current,
            lambda: self._arguments(command, entry.words, inner.arguments),
        )

    def _at(
        self,
        walk: _Walk,
        flags: Sequence[Flag],
        current: str,
        otherwise: Callable[[], Iterator[Candidate]],
    ) -> Iterator[Candidate]:
        if walk.waiting is not None:
            return self._values(walk.waiting)
        name, equals, _ = current.partition("=")
        if equals and current.startswith("--") and not walk.over:
            known = (flag for flag in flags if f"--{flag.name}" == name)
            return (
                Candidate(one.word if one.word == FILES else f"{name}={one.word}", one.meaning)
                for flag in known
                for one in self._values(flag)
            )
        if current.startswith("-") and not walk.over:
            shown = sorted((flag for flag in flags if flag.meaning), key=lambda flag: flag.name)
            return (Candidate(f"--{flag.name}", flag.meaning) for flag in shown)
        return otherwise()

    def _arguments(self, command: Command, words: str, given: Sequence[str]) -> Iterator[Candidate]:
        """Complete an argument by its word in the usage; the last one goes on if it has dots."""
        places = [word for word in command.usage.split() if word != "[OPTIONS]"]
        if not places:
            return
        place = places[min(len(given), len(places) - 1)]
        if len(given) >= len(places) and "..." not in place:
            return
        if "CONTAINER:" in place:
            yield from (Candidate(f"{name}:") for name in self._names.of("container"))
        verb = words.split()[-1]
        kind = _kind(place.strip("[]."), verb)
        for name in self._names.of(kind):
            if name not in given:
                yield Candidate(name)
        if kind == "choice":
            yield from map(Candidate, place.strip("[]").split("|"))
        elif kind in ("file", "local path"):
            yield Candidate(FILES)

    def _values(self, flag: Flag) -> Iterator[Candidate]:
        kind = _KIND_BY_FLAG.get(flag.name) or _KIND_BY_VALUE.get(flag.value, "")
        if flag.name in _WORDS_BY_FLAG:
            yield from map(Candidate, _WORDS_BY_FLAG[flag.name])
        elif flag.name == "signal":
            yield from (Candidate(one.name.removeprefix("SIG")) for one in signal.Signals)
        yield from map(Candidate, self._names.of(kind))
        if kind in ("file", "volume"):
            yield Candidate(FILES)


def _first_words() -> Iterator[Candidate]:
    for group, summary in commands.GROUPS.items():
        yield Candidate(group, summary)
    short = [name for name in commands.names() if name not in commands.GROUPS]
    yield from _summaries(sorted(short), lambda word: word)


def _summaries(words: Sequence[str], full: Callable[[str], str]) -> Iterator[Candidate]:
    summaries = {name: entry.summary for entry in commands.every() for name in entry.names}
    return (Candidate(word, summaries.get(full(word), "")) for word in words)


#: What a word of a usage stands for.
_KINDS = {
    "CONTAINER": "container",
    "IMAGE": "image",
    "SOURCE_IMAGE[:TAG": "image",
    "TARGET_IMAGE[:TAG": "image",
    "REPOSITORY[:TAG": "image",
    "NETWORK": "network",
    "VOLUME": "volume",
    "DRIVER": "driver",
    "NAME|ID": "object",
    "SNAPSHOT": "snapshot",
    "IMAGE|LAYER": "image or layer",
    "file|-": "file",
}
#: Verbs that take containers in one state only.
_STATES = {
    "start": "stopped",
    "stop": "running",
    "kill": "running",
    "exec": "running",
    "attach": "running",
    "pause": "running",
    "top": "running",
    "unpause": "paused",
}


def _kind(place: str, verb: str) -> str:
    if place in _KINDS:
        kind = _KINDS[place]
        return _STATES.get(verb, kind) if kind == "container" else kind
    if "|" in place and place.islower():
        return "choice"
    return "file" if place in ("ARG", "COMMAND") or "PATH" in place else ""


_KIND_BY_VALUE = {"file": "file", "directory": "file", "network": "network"}
_KIND_BY_FLAG = {
    "network": "network",
    "net": "network",
    "storage-driver": "storage driver",
    "to": "storage driver",
    "volumes-from": "container",
    "volume": "volume",
    "env-file": "file",
    "label-file": "file",
    "cidfile": "file",
    "input": "file",
    "output": "file",
}
_WORDS_BY_FLAG = {
    "pull": ("always", "missing", "never"),
    "restart": ("always", "no", "on-failure", "unless-stopped"),
    "type": ("container", "image", "layer", "network", "volume"),
    "format": ("json", "table"),
    "log-level": ("debug", "info", "warn", "error", "fatal"),
}

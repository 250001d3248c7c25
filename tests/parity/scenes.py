"""The command lines of ``commands.txt``, and running them against one side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from .normal import normal

HERE = Path(__file__).resolve().parent
COMMANDS = HERE / "commands.txt"
RECORDED = HERE / "docker-20.10.json"

#: What lines may call besides ``docker``; the names are told in commands.txt.
FUNCTIONS = f"""
paths() {{ {sys.executable} -S {HERE / "json_paths.py"} "$@"; }}
until_ok() {{
  local left=$1; shift
  until "$@" 2>/dev/null; do
    left=$((left - 1)); [ $left -gt 0 ] || return 1; sleep 0.1
  done
}}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """A topic with its lines; those that say ``docker`` are compared."""

    topic: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What one line did, normalised."""

    topic: str
    line: str
    stdout: str
    stderr: str
    code: int


class Side(Protocol):
    """A program to run the lines with."""

    def fresh(self) -> None:
        """Remove all containers and volumes, and all images but busybox."""

    def run(self, line: str, directory: Path) -> tuple[str, str, int]:
        """Run *line* in *directory*; return stdout, stderr and the exit code."""


def scenes(text: str | None = None) -> Sequence[Scene]:
    """Return the scenes of *text* (default: commands.txt), in their order."""
    found: list[tuple[str, list[str]]] = []
    for line in (COMMANDS.read_text() if text is None else text).splitlines():
        if line.startswith("== "):
            found.append((line[3:], []))
        elif line.strip() and not line.startswith("#"):
            found[-1][1].append(line)
    return [Scene(topic, tuple(lines)) for topic, lines in found]


def compared(line: str) -> bool:
    """Tell whether a line is compared, or only prepares others."""
    return "docker" in line and not line.startswith("until_ok")


def play(scene: Scene, side: Side, directory: Path) -> Iterator[Result]:
    """Run the lines of *scene* in order in the empty *directory*; yield what is compared."""
    side.fresh()
    for line in scene.lines:
        out, err, code = side.run(line, directory)
        if compared(line):
            places = {str(directory): "$PWD"}
            yield Result(scene.topic, line, normal(out, places), normal(err, places), code)


def bash(
    line: str, directory: Path, function: str, environment: Mapping[str, str] | None = None
) -> tuple[str, str, int]:
    """Run *line* by bash with the function ``docker`` defined as *function*."""
    done = subprocess.run(
        ["bash", "-c", f"{FUNCTIONS}\ndocker() {{ {function} \"$@\"; }}\n{line}"],
        cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
    )  # fmt: skip
    return _text(done.stdout), _text(done.stderr), done.returncode


def _text(output: bytes) -> str:
    return output.decode(errors="backslashreplace")


def record(results: Sequence[Result], path: Path = RECORDED) -> None:
    """Write *results* as the recorded ones."""
    path.write_text(json.dumps([asdict(one) for one in results], indent=1) + "\n")


def recorded(path: Path = RECORDED) -> Sequence[Result]:
    """Return what was recorded of Docker."""
    return [Result(**one) for one in json.loads(path.read_text())]


def differing(
    theirs: Sequence[Result], ours: Sequence[Result], tell: Callable[[Result, Result], None]
) -> set[str]:
    """Return the lines whose results differ, and *tell* of each.

    Raises:
        ValueError: if the two are not about the same lines.
    """
    if [(r.topic, r.line) for r in theirs] != [(r.topic, r.line) for r in ours]:
        raise ValueError("not the lines that were recorded: python -m tests.parity record")
    found = set()
    for one, other in zip(theirs, ours, strict=True):
        if one != other:
            tell(one, other)
            found.add(one.line)
    return found

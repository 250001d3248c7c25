"""Completion: from the table of commands and what is in the root, in real shells."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.cli import commands
from stowage.cli.completing import FILES, candidates
from stowage.cli.completion import SCRIPTS
from stowage.cli.flags import Flag, switch

from .conftest import Run

GLOBALS = (Flag("root", "Root", value="directory"), switch("debug", "Debug", "D"))


class Names:
    """Names as a root would have them."""

    def of(self, kind: str) -> Sequence[str]:
        return {
            "container": ["web", "old"],
            "running": ["web"],
            "stopped": ["old"],
            "image": ["busybox:latest"],
            "network": ["bridge", "host"],
            "volume": ["data"],
            "driver": ["overlay"],
            "storage driver": ["overlay", "vfs"],
            "object": ["web", "old", "busybox:latest", "data"],
        }.get(kind, [])


def found(line: str) -> list[str]:
    return [one.word for one in candidates(line.split(" "), GLOBALS, Names())]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ren", ["rename"]),
        ("--debug ima", ["image", "images"]),
        ("--root ", [FILES]),
        ("--root /x ima", ["image", "images"]),
        ("--root=/x image tag ", ["busybox:latest"]),
        ("image hist", ["history"]),
        ("rename ", ["web", "old"]),
        ("rm web ", ["old"]),
        ("start ", ["old"]),
        ("exec ", ["web"]),
        ("stop -t 5 ", ["web"]),
        ("inspect b", ["busybox:latest"]),
        ("run --network ", ["bridge", "host"]),
        ("run --network=h", ["--network=host"]),
        ("run --storage-driver v", ["vfs"]),
        ("run -itv ", ["data", FILES]),
        ("run -itvx bu", ["busybox:latest"]),
        ("run --rm busybox --na", [FILES]),
        ("run --label-f", ["--label-file"]),
        ("rename --he", ["--help"]),
        ("rename a b ", []),
        ("kill --signal TER", ["TERM"]),
        ("driver explain ", ["overlay"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("load -i ", [FILES]),
        ("cp ", ["web:", "old:", FILES]),
        ("cp we", ["web:", FILES]),
        ("nosuch ", []),
        ("container nosuch ", []),
    ],
)
def test_what_fits_is_offered(line: str, expected: list[str]) -> None:
    """By the place in the usage, the flag that waits, and the state that a verb needs."""
    assert [word for word in found(line) if word in expected or len(expected) < 3] == expected


def test_every_command_and_its_flags_are_offered() -> None:
    """What help shows; nothing is written down a second time."""
    for entry in commands.every():
        for name in [entry.words, *(name for name in entry.names if " " not in name)]:
            *before, last = name.split(" ")
            assert last in found(" ".join([*before, last])), name
        assert "--help" in found(f"{entry.names[0]} -")


@given(st.lists(st.text("abc-=: /x", max_size=6), max_size=5))
def test_no_line_breaks_it(words: list[str]) -> None:
    for one in candidates(["run", *words], GLOBALS, Names()):
        assert one.word == FILES or one.word.startswith(words[-1] if words else "run")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("completion")
    for shell, text in SCRIPTS.items():
        (place / shell).write_text(text)
    return place


@pytest.fixture
def environment(cli_root: Path, stowage: Run) -> Iterator[dict[str, str]]:
    """A root with a container ``complete-me``, and the command in the path."""
    stowage("create", "--network", "none", "--name", "complete-me", "busybox", "true")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    yield {**os.environ, "PATH": path, "ROOT": str(cli_root), "TERM": "dumb"}
    stowage("rm", "complete-me")


def test_bash_completes_names_flags_and_broken_words(
    scripts: Path, environment: dict[str, str]
) -> None:
    """Words that bash breaks at ``:`` and ``=`` are answered with what follows the break."""
    script = f"""
    source {scripts}/bash
    try() {{
        COMP_LINE=$1 COMP_POINT=${{#1}}; COMPREPLY=(); _stowage; echo "${{COMPREPLY[*]}}"
    }}
    try "stowage --root $ROOT start comp"
    try "stowage --root $ROOT rm complete-"
    try "stowage --root $ROOT tag busybox:la"
    try "stowage run --network=n"
    try "stowage run --cidf"
    try "stowage unpau"
    complete -p stowage
    """

    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True
    )

    assert done.stdout.splitlines()[:5] == [
        "complete-me", "complete-me", "latest", "none", "--cidfile",
    ], done.stderr  # fmt: skip
    assert done.stdout.splitlines()[-1] == "complete -F _stowage stowage"


@pytest.mark.requires("fish")
def test_fish_completes_with_meanings(scripts: Path, environment: dict[str, str]) -> None:
    script = f"""
    source {scripts}/fish
    complete -C "stowage --root $ROOT rename comp"
    complete -C "stowage imag"
    complete -C "stowage run --cidf"
    """

    done = subprocess.run(
        ["fish", "--no-config", "-c", script], env=environment, capture_output=True, text=True
    )

    assert done.stdout.splitlines() == [
        "complete-me",
        "image\tManage images",
        "images\tList images",
        "--cidfile\tWrite the container ID to the file",
    ], done.stderr


@pytest.mark.requires("zsh")
def test_zsh_completes_what_is_typed(
    scripts: Path, environment: dict[str, str], stowage: Run
) -> None:
    """On a terminal, for zsh's completion lives in its line editor."""
    keys = (
        f"autoload -U compinit; compinit -D -u; source {scripts}/zsh\n"
        f"stowage --root {environment['ROOT']} rename comp\tby-zsh\n"
    )

    def renamed() -> bool:
        return stowage("ps", "-a", "--format", "{{.Names}}").out == "by-zsh\n"

    shown = _typed(["zsh", "-f", "-i"], environment, keys, until=renamed)

    assert renamed(), shown
    stowage("rename", "by-zsh", "complete-me")


def _typed(
    command: list[str], environment: dict[str, str], keys: str, *, until: Callable[[], bool]
) -> str:
    """Type *keys* into *command* on a terminal; return what it shows until *until* is true."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    shown = ""
    try:
        os.write(ours, keys.encode())
        deadline = time.monotonic() + 30
        while not until() and time.monotonic() < deadline:
            while select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 4096).decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown

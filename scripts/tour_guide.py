"""What the tour speaks with: text, commands with their output, Python lines, and times."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

WIDTH = 92


class StepFailed(Exception):
    """A step of the tour did not do what it shows."""


class Guide:
    """Prints and runs the tour's steps against the root at *root*.

    *commands* is the directory that holds ``stowage``.
    """

    def __init__(self, root: Path, commands: Path) -> None:
        self._environment = {
            **os.environ,
            "PATH": f"{commands}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "STOWAGE_ROOT": str(root),
        }
        self._root = root
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._names: dict[str, object] = {"root": root, "os": os}
        self._chapter = ""
        self._times: list[tuple[str, str, float]] = []

    # --- words -------------------------------------------------------------------------------

    def _styled(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def say(self, text: str) -> None:
        """Print a paragraph."""
        print(f"\n{textwrap.fill(' '.join(text.split()), WIDTH)}\n", flush=True)

    def chapter(self, title: str, text: str | None) -> None:
        """Begin a chapter with its explanation."""
        self._chapter = title
        print(f"\n{self._styled(f'── {title} ' + '─' * (WIDTH - len(title) - 4), '1')}")
        if text:
            self.say(text)

    def line(self, text: str) -> None:
        """Print a line of output."""
        print(f"    {text}", flush=True)

    # --- steps -------------------------------------------------------------------------------

    def shell(self, command: str, *, limit: int = 40) -> None:
        """Show *command*, run it, show at most *limit* lines of what it prints, and its time.

        Raises:
            StepFailed: if it exits with another status than 0.
        """
        print(self._styled(f"  $ {command}", "1;36"), flush=True)
        started = time.monotonic()
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self._environment,
            cwd="/",
        )
        seconds = time.monotonic() - started
        lines = done.stdout.splitlines()
        for line in lines[:limit]:
            self.line(line)
        if len(lines) > limit:
            self.line(f"… and {len(lines) - limit:,} more lines")
        self._took(command, seconds)
        if done.returncode != 0:
            raise StepFailed(f"`{command}` exited with {done.returncode}")

    def python(self, source: str) -> None:
        """Show Python lines, run them in one namespace, and show the last expression's value.

        Raises:
            StepFailed: if they raise.
        """
        source = textwrap.dedent(source).strip()
        for number, line in enumerate(source.splitlines()):
            prompt = "..." if number and line.startswith((" ", ")")) else ">>>"
            print(self._styled(f"  {prompt} {line}", "1;36"), flush=True)
        started = time.monotonic()
        try:
            value = self._evaluate(source)
        except Exception as error:  # shown as a step that failed, whatever it was
            self.line(f"{type(error).__name__}: {error}")
            raise StepFailed(f"`{source.splitlines()[0]}` raised") from error
        seconds = time.monotonic() - started
        if value is not None:
            self.line(repr(value))
        self._took(source.splitlines()[0], seconds)

    def _evaluate(self, source: str) -> object:
        body = ast.parse(source).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "<tour>", "exec"), self._names)
        if not isinstance(last, ast.Expr):
            return None
        value: object = eval(compile(ast.Expression(last.value), "<tour>", "eval"), self._names)
        return value

    def _took(self, what: str, seconds: float) -> None:
        self._times.append((self._chapter, what, seconds))
        print(self._styled(f"    ({_shown(seconds)})", "2") + "\n", flush=True)

    # --- the end -----------------------------------------------------------------------------

    def summary(self) -> None:
        """Print how long each step took."""
        print(f"\n{self._styled('── How long each step took ' + '─' * (WIDTH - 27), '1')}\n")
        for _, what, seconds in self._times:
            shown = what if len(what) <= WIDTH - 16 else what[: WIDTH - 17] + "…"
            print(f"  {_shown(seconds):>9}  {shown}")
        total = sum(seconds for _, _, seconds in self._times)
        print(f"  {_shown(total):>9}  altogether")
        self.say("Nothing is left behind. `stowage --help` lists the commands; README.md goes on.")

    def remove_all(self) -> None:
        """Remove every container that the tour, or its interruption, left running."""
        if not self._root.exists():
            return
        command = "stowage ps -aq | xargs -r stowage rm -f"
        subprocess.run(
            ["sh", "-c", command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"

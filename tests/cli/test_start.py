"""``stowage --version`` and ``--help`` cost nothing; wrong words are answered as Docker does."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from stowage.cli import commands, main
from stowage.cli.command import Command
from stowage.version import VERSION

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_the_distributions() -> None:
    """One constant, kept equal to pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_the_start_imports_next_to_nothing(flag: str) -> None:
    """None of what makes Python programs slow to start; a ratio is measured in bench/."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from stowage.cli import main\n"
        f"assert main([{flag!r}]) == 0\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    imported = set(done.stderr.split())
    assert imported <= {
        "stowage", "stowage.cli", "stowage.version", "stowage.cli.commands",
        "typing", "_typing", "collections.abc", "importlib", "importlib._bootstrap",
        "importlib._bootstrap_external", "typing.io", "typing.re", "contextlib", "functools",
        "collections", "re",
    } | {name for name in imported if name.startswith(("re.", "_"))}  # fmt: skip


def test_every_command_of_the_table_is_there() -> None:
    """And each module holds no command that the table does not know."""
    known: dict[str, set[str]] = {}
    for row in commands._ROWS:
        known.setdefault(row[0], set()).add(f"{row[1]} {row[2]}".strip())
    for module, words in known.items():
        held = import_module(f"stowage.cli.{module}").COMMANDS
        assert set(held) == words
        assert all(isinstance(one, Command) for one in held.values())


@pytest.mark.parametrize(
    "words", [entry.words for entry in commands.every()], ids=lambda words: words
)
def test_every_command_has_help(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Usage, summary, and each flag with its meaning."""
    assert main([*words.split(), "--help"]) == 0

    out = capsys.readouterr().out
    assert out.startswith(f"Usage:  stowage {words}")
    assert "Options:" in out or "[OPTIONS]" not in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nosuch"], 1, "stowage: 'nosuch' is not a stowage command"),
        (["imges"], 1, "did you mean 'images'?"),
        (["container", "nosuch"], 1, "'container nosuch' is not a stowage command"),
        (["--nosuch", "ps"], 125, "unknown flag: --nosuch\nSee 'stowage --help'."),
        (["ps", "--nosuch"], 125, "unknown flag: --nosuch\nSee 'stowage ps --help'."),
        (["ps", "--root", "/x"], 125, "--root is a global flag: stowage --root … ps …"),
        (["ps", "x"], 1, '"stowage ps" accepts no arguments.'),
        (["run"], 1, '"stowage run" requires at least 1 argument.'),
        (["tag", "a"], 1, '"stowage tag" requires exactly 2 arguments.'),
        (["run", "--name"], 125, "flag needs an argument: --name\nSee 'stowage run --help'."),
        (["ps", "-f", "x"], 125, "bad format of filter (expected name=value)"),
    ],
)
def test_wrong_words_are_answered(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With Docker's words and codes, and where to look."""
    assert main(words) == code

    assert message in capsys.readouterr().err


def test_help_of_a_container_is_the_containers(capsys: pytest.CaptureFixture[str]) -> None:
    """``-h`` of run is the hostname."""
    assert main(["run", "-h", "me", "--help"]) == 0
    assert "--hostname" in capsys.readouterr().out
    assert main(["container"]) == 0
    assert "Manage containers" in capsys.readouterr().out


def test_a_wrong_configuration_is_one_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File, place, problem; no traceback."""
    path = tmp_path / "daemon.json"
    path.write_text('{"debug": true,}')

    assert main(["--config", str(path), "system", "config"]) == 1

    error = capsys.readouterr().err
    assert f"Error: unable to configure stowage with file {path}" in error
    assert "line 1, column 15: trailing comma" in error
    assert "Traceback" not in error


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    """``stowage … | head``: SIGPIPE's code, no message."""
    code = "import sys; from stowage.cli import main; sys.exit(main(['system', 'config']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        error = process.stderr.read()

    assert process.returncode == 141
    assert error == b""


def test_ctrl_c_while_modules_are_read_says_nothing() -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'stowage.config': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from stowage.cli import main\n"
        "sys.exit(main(['ps']))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (130, "")

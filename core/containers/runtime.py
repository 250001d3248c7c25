"""The OCI runtime: crun, else runc, run as a command; its errors in Docker's words.

Both keep their state below ``exec-root/<root-id>/runtime``. Only *creating* a container needs a
mount namespace without a hybrid host's v2 hierarchy, and only with crun; state, start, kill,
exec and delete run in the host's (tried with crun 1.8.1 and runc 1.1.5).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from ..effects import effect
from ..errors import CommandFailed, NotSupported

KNOWN = ("crun", "runc")
_TIMEOUT_SECONDS = 60.0


class Runtime(Struct, frozen=True):
    """One runtime: *path* of its program, *root* where it keeps its state."""

    name: str
    path: str
    root: Path

    @property
    def hides_unified(self) -> bool:
        """Whether it refuses to create beside a hybrid host's v2 hierarchy; harmless if not."""
        return self.name != "runc"

    def command(self, log: Path, verb: str, *arguments: str) -> list[str]:
        """Return the command line for a verb; errors go to *log* as JSON lines."""
        return [
            self.path, "--root", str(self.root), "--log", self._log_target(log),
            "--log-format", "json", verb, *arguments,
        ]  # fmt: skip

    def _log_target(self, log: Path) -> str:
        """crun takes what stands before a colon for the kind of log; runc knows files only."""
        return f"file:{log}" if self.name == "crun" else str(log)

    def start(self, container_id: str, log: Path) -> None:
        """Let a created container's process run.

        Raises:
            CommandFailed: with the exit code that Docker gives for it.
        """
        self._call("runtime.start", log, "start", container_id)

    def update(self, container_id: str, resources: Path, log: Path) -> None:
        """Change the limits of a running container to those in the file *resources*.

        Raises:
            CommandFailed: with the runtime's own words.
        """
        self._call("runtime.update", log, "update", "--resources", str(resources), container_id)

    def delete(self, container_id: str, log: Path) -> None:
        """Forget a container, killing what is left of it. Idempotent."""
        if (self.root / container_id).exists():
            with effect("runtime.delete", id=container_id):
                self._run(self.command(log, "delete", "--force", container_id))

    def forget(self, container_id: str) -> None:
        """Remove what is left of a container's state, whatever its condition. Idempotent."""
        with effect("runtime.forget", id=container_id):
            shutil.rmtree(self.root / container_id, ignore_errors=True)

    def _call(self, name: str, log: Path, verb: str, *arguments: str) -> None:
        with effect(name, arguments=arguments):
            log.unlink(missing_ok=True)
            done = self._run(self.command(log, verb, *arguments))
        if done.returncode:
            raise self.failure(log, verb, done.stderr.decode(errors="replace"))

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_TIMEOUT_SECONDS,
                check=False,
                env=helper_environment(),
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(
                f"the runtime {self.path} did not end within {_TIMEOUT_SECONDS:g} seconds",
                details=" ".join(command),
            ) from error
        except OSError as error:
            raise CommandFailed(
                f"the runtime {self.path} cannot be run", details=str(error)
            ) from error

    def failure(
        self, log: Path, verb: str, stderr: str = "", arguments: Sequence[str] = ()
    ) -> CommandFailed:
        """Return what went wrong, from the runtime's log or else its stderr."""
        message = read_log_error(log) or stderr.strip() or "it said nothing"
        what = f"OCI runtime {verb} failed: "
        command = arguments[0] if arguments else ""
        return start_failure(message, command, what)


def read_log_error(log: Path) -> str | None:
    """Return the last error in a runtime's JSON log, or None if there is none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
            return str(entry.get("msg", ""))
    return None


_CRUN_NOT_FOUND = re.compile(r"executable file [`'](?P<command>.*?)['`] not found")
_CRUN_CHDIR = re.compile(r"chdir (?:to )?[`'](?P<path>.*?)['`]: (?P<reason>.*)")
_NOT_FOUND = ("executable file not found", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "operation not permitted", "is a directory")


#: The class of all errors of a runtime, as Docker says it (containerd's errdefs).
_UNKNOWN = ": unknown"


def start_failure(message: str, command: str, what: str) -> CommandFailed:
    """Return the error for a runtime's *message*, in Docker's words and with its exit code.

    127 if the command was not found, 126 if it cannot be executed, else 125 (docker/cli,
    ``runStartContainerErr``).
    """
    words = "unable to start container process: "
    message = message.rpartition(words)[2].strip().removesuffix(_UNKNOWN)
    missing = _CRUN_NOT_FOUND.search(message)
    if missing is not None:
        name = missing["command"]
        reason = (
            f"stat {name}: no such file or directory"
            if "/" in name
            else "executable file not found in $PATH"
        )
        message = f'exec: "{name}": {reason}'
    elif (directory := _CRUN_CHDIR.search(message)) is not None:
        reason = directory["reason"].lower()
        message = f'{words}chdir to cwd ("{directory["path"]}") set in config.json failed: {reason}'
    elif message.startswith("open executable:"):
        message = f'exec: "{command}": permission denied'
    lowered = message.lower()
    if message.startswith("exec") and any(sign in lowered for sign in _NOT_FOUND):
        code = 127
    elif message.startswith("exec") and any(sign in lowered for sign in _NOT_EXECUTABLE):
        code = 126
    else:
        return CommandFailed(what + message + _UNKNOWN, 125)
    return CommandFailed(what + words + message + _UNKNOWN, code)


def find_runtime(configured: str | None, root: Path) -> Runtime:
    """Return the runtime to use: *configured* (a name or a path), else crun, else runc.

    Raises:
        NotSupported: if there is none; says which package brings it.
    """
    for name in (configured,) if configured else KNOWN:
        path = shutil.which(name, path=search_path())
        if path is not None:
            return Runtime(os.path.basename(name), path, root)
    for name in (configured,) if configured else KNOWN:
        if there := shutil.which(name, mode=os.F_OK, path=search_path()):
            raise NotSupported(
                f"the OCI runtime {there} is not executable", resolution=f"chmod +x {there}"
            )
    if configured:
        raise NotSupported(
            f"the OCI runtime {configured!r} (default-runtime) is not installed",
            resolution=f"apt-get install {configured}"
            if configured in KNOWN
            else "install it, or set default-runtime to crun or runc",
        )
    raise NotSupported(
        "no OCI runtime is installed; containers need crun or runc",
        resolution="apt-get install crun",
    )


_KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "LANG")
_KEPT_PREFIXES = ("LC_", "PYTHON", "STOWAGE_")


def helper_environment(**more: str) -> Mapping[str, str]:
    """Return the environment for a program that works for us: what a start of this program needs.

    Nothing else goes to it: runtimes obey ``LISTEN_FDS`` (they hand those descriptors into the
    container) and ``NOTIFY_SOCKET`` (they wait for the container to write to it), which are
    meant for whoever called us (sd_listen_fds(3), sd_notify(3)).
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }
    return {**kept, **more}


def search_path() -> str:
    """PATH, and the directories that a user's PATH may lack (runc is in /usr/sbin)."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])


def find_program(name: str, package: str) -> str:
    """Return the path of a program that we need.

    Raises:
        NotSupported: if it is not installed; says the package.
    """
    path = shutil.which(name, path=search_path())
    if path is None:
        raise NotSupported(f"{name} is not installed", resolution=f"apt-get install {package}")
    return path

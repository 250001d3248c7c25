"""The two programs: dockerd of a lab, and this checkout."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stowage.cli import main
from stowage.testing.lab import Lab

from . import zygote
from .scenes import bash

IMAGE = "busybox"


class Docker:
    """The client of a dockerd that :func:`dockerd` has started."""

    def __init__(self, client: str, socket: Path, archive: Path) -> None:
        self._function = f"{client} -H unix://{socket}"
        self._archive = archive
        config = socket.with_name("client")
        self._environment = {**os.environ, "DOCKER_CONFIG": str(config), "TZ": "UTC"}

    def fresh(self) -> None:
        line = f"""
        docker ps -aq | xargs -r {self._function} rm -fv
        docker volume ls -q | xargs -r {self._function} volume rm
        docker images -aq | sort -u | xargs -r {self._function} rmi -f
        docker load -q -i {self._archive}
        """
        _, err, code = self.run(line, self._archive.parent)
        if code:
            raise RuntimeError(f"docker could not be emptied: {err}")

    def run(self, line: str, directory: Path) -> tuple[str, str, int]:
        return bash(line, directory, self._function, self._environment)


@contextmanager
def dockerd(lab: Lab, archive: Path, *, directory: Path = Path("/usr")) -> Iterator[Docker]:
    """Run Debian's dockerd in the lab's namespaces, with all that it keeps in the lab's directory.

    *archive* holds the image. The daemon, its containers and its cgroups are gone afterwards.

    Raises:
        RuntimeError: outside a lab, or if the daemon does not come up, with the end of its log.
    """
    if not lab.isolated:
        raise RuntimeError(f"dockerd is started in a lab only: {lab.reason}")
    place = lab.directory / "docker"
    place.mkdir()
    socket, log = place / "docker.sock", place / "dockerd.log"
    command = [
        str(directory / "sbin/dockerd"), "--data-root", str(place / "data"),
        "--exec-root", str(place / "exec"), "--pidfile", str(place / "pid"),
        "-H", f"unix://{socket}", "--config-file", str(place / "none.json"),
        "--exec-opt", "native.cgroupdriver=cgroupfs",
    ]  # fmt: skip
    (place / "none.json").write_text("{}")
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    client = Docker(str(directory / "bin/docker"), socket, archive)
    try:
        for _ in range(300):
            if client.run("docker version", place)[2] == 0:
                break
            if process.poll() is not None:
                raise RuntimeError("dockerd ended:\n" + log.read_text()[-3000:])
            time.sleep(0.1)
        yield client
        client.fresh()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        for cgroup in Path("/sys/fs/cgroup").glob("*/docker"):
            with suppress(OSError):
                cgroup.rmdir()


class Stowage:
    """This checkout on the root *root*, which has the image already.

    A line that is one ``docker`` and nothing else runs in a child of this process, which has
    everything imported; bash runs all others, and asks a process forked from this one.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._socket = root.with_name("zygote")
        client = f"{sys.executable} -I -S {Path(zygote.__file__)} {self._socket}"
        self._function = f"{client} --root {root}"
        self._before = dict(os.environ)
        # what conmon calls at the end of a container is compiled once, whatever the machine says
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ.update(TZ="UTC", PYTHONPYCACHEPREFIX=f"{root}.pyc")
        self._process = zygote.start(self._socket, main)

    def close(self) -> None:
        """End the process that bash asks."""
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._socket.unlink()
        os.environ.clear()
        os.environ.update(self._before)
        shutil.rmtree(f"{self._root}.pyc", ignore_errors=True)

    def fresh(self) -> None:
        from stowage import Engine

        with Engine(self._root) as engine:
            for record in engine.containers.list():
                engine.containers.remove(record.id, force=True)
            for image in engine.images.list(intermediate=True):
                if f"{IMAGE}:latest" not in image.tags:
                    with suppress(Exception):
                        engine.images.remove(image.id, force=True)

    def run(self, line: str, directory: Path) -> tuple[str, str, int]:
        words = _plain_words(line)
        if words is None:
            return bash(line, directory, self._function)
        return _forked(["--root", str(self._root), *words], directory)


def _plain_words(line: str) -> list[str] | None:
    """Return the words of a line that is one ``docker`` and nothing else; None for others."""
    lexer = shlex.shlex(line, posix=False, punctuation_chars=True)
    lexer.whitespace_split = True
    for word in lexer:
        quoted = word.startswith("'") and word.endswith("'")
        if not quoted and set(word) & set("|&;<>()$`*\\\"'"):
            return None
    words = shlex.split(line)
    return words[1:] if words[0] == "docker" else None


def _forked(words: list[str], directory: Path) -> tuple[str, str, int]:
    out, err = directory.with_name("stdout"), directory.with_name("stderr")
    child = os.fork()
    if child == 0:  # pragma: no cover  # in the child
        code = zygote.FAILED
        try:
            writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            streams = [
                os.open(os.devnull, os.O_RDONLY), os.open(out, writing), os.open(err, writing),
            ]  # fmt: skip
            code = zygote.become(words, str(directory), streams, main)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return (
        out.read_bytes().decode(errors="backslashreplace"),
        err.read_bytes().decode(errors="backslashreplace"),
        os.waitstatus_to_exitcode(status),
    )


@contextmanager
def stowage(lab: Lab) -> Iterator[Stowage]:
    """Give a root of the lab with the image in it; it and its containers are gone afterwards."""
    root = lab.directory / "parity"
    assert main(["--root", str(root), "bootstrap", "-q", IMAGE]) == 0
    side = Stowage(root)
    try:
        yield side
    finally:
        side.fresh()
        side.close()
        shutil.rmtree(root)


def archive_of(lab: Lab) -> Path:
    """Save Stowage's busybox for Docker to load; return the file."""
    path = lab.directory / f"{IMAGE}.tar"
    with stowage(lab) as side:
        code = side.run(f"docker save -o {path} {IMAGE}", lab.directory)[2]
        assert code == 0
    return path

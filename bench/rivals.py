"""Docker and Podman in a lab: found, started, and gone afterwards with all that they made.

Both are Debian's. They run in the lab's namespaces and keep everything beneath one directory, so
nothing of the machine's own is touched. Where one is not installed it is named with its package.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stowage.linux.mount import unmount

_HYBRID = Path("/sys/fs/cgroup/unified")
_START_SECONDS = 30
_DOCKERD, _DOCKER, _PODMAN = Path("/usr/sbin/dockerd"), "/usr/bin/docker", "/usr/bin/podman"


@dataclass(frozen=True, slots=True)
class Rival:
    """A program that takes Docker's command lines; *command* is what stands before the words.

    *monitors* are names of the processes that it keeps for the life of a container.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    monitors: tuple[str, ...] = ()

    def run(self, *words: str) -> str:
        """Run one command line and return what it printed.

        Raises:
            RuntimeError: with what it said, if it fails.
        """
        done = subprocess.run(
            [*self.command, *words],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=self.environment,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name} {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start one command line and do not wait for it."""
        return subprocess.Popen(
            [*self.command, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.environment,
        )

    def remove_all(self) -> None:
        """Remove all containers, so that nothing of them is left when it ends."""
        if ids := self.run("ps", "-aq").split():
            self.run("rm", "-f", *ids)


@contextmanager
def docker(place: Path) -> Iterator[Rival]:
    """Run dockerd with everything beneath *place* (a short path: its sockets lie there).

    Raises:
        RuntimeError: if it does not come up, with the end of its log.
        FileNotFoundError: if it is not installed, with the package.
    """
    if not _DOCKERD.exists() or not os.path.exists(_DOCKER):
        raise FileNotFoundError("docker is not installed (apt-get install docker.io)")
    place.mkdir()
    socket, log = place / "docker.sock", place / "dockerd.log"
    (place / "none.json").write_text("{}")
    command = [
        str(_DOCKERD), "--data-root", str(place / "data"), "--exec-root", str(place / "exec"),
        "--pidfile", str(place / "pid"), "-H", f"unix://{socket}",
        "--config-file", str(place / "none.json"), "--exec-opt", "native.cgroupdriver=cgroupfs",
    ]  # fmt: skip
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    environment = {**os.environ, "DOCKER_CONFIG": str(place / "client")}
    rival = Rival(
        "docker",
        (_DOCKER, "-H", f"unix://{socket}"),
        environment,
        ("containerd-shim", "docker-proxy"),
    )
    try:
        _wait_for(rival, daemon, log)
        yield rival
    finally:
        rival.remove_all()
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        for cgroup in Path("/sys/fs/cgroup").glob("*/docker"):
            with suppress(OSError):
                cgroup.rmdir()


def _wait_for(rival: Rival, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            rival.run("version")
        except RuntimeError:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    "dockerd does not come up:\n" + log.read_text()[-3000:]
                ) from None
            time.sleep(0.1)
        else:
            return


@contextmanager
def podman(place: Path) -> Iterator[Rival]:
    """Give Podman with everything beneath *place*; what it is told it needs on this machine is in
    reference/rivals.md: no hybrid cgroups for crun, and no limits above ours.

    Raises:
        FileNotFoundError: if it is not installed, with the packages.
    """
    if not os.path.exists(_PODMAN) or not os.path.exists("/usr/lib/cni/bridge"):
        packages = "podman containernetworking-plugins"
        raise FileNotFoundError(f"podman is not installed (apt-get install {packages})")
    place.mkdir()
    networks = place / "net.d"
    networks.mkdir()
    for shipped in Path("/etc/cni/net.d").glob("*podman*"):
        shutil.copy(shipped, networks)
    (place / "containers.conf").write_text(
        "[containers]\n"
        'default_ulimits = ["nofile=10000:10000", "nproc=10000:10000"]\n'
        "[engine]\n"
        'cgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "crun"\n'
        f'tmp_dir = "{place}/tmp"\n'
        "[network]\n"
        f'network_backend = "cni"\nnetwork_config_dir = "{networks}"\n'
    )
    (place / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/graph"\nrunroot = "{place}/run"\n'
    )
    environment = {
        **os.environ,
        "CONTAINERS_CONF": str(place / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
    }
    if _HYBRID.is_mount():  # in the lab's mount namespace
        unmount(_HYBRID, lazy=True)
    rival = Rival("podman", (_PODMAN,), environment, ("conmon",))
    try:
        yield rival
    finally:
        rival.remove_all()
        for cgroup in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
            with suppress(OSError):
                cgroup.rmdir()


def stowage(root: Path, command: Sequence[str], fork_server: str = "off") -> Rival:
    """Give this checkout's own command on the root *root*, with a fork server there or "off"."""
    environment = {**os.environ, "STOWAGE_FORK_SERVER": fork_server}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed command is compiled once
    name = "alone" if fork_server == "off" else "forked"
    return Rival(name, (*command, "--root", str(root)), environment, ("conmon",))

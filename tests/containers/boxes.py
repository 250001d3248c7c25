"""A root with a busybox image, and short words to run containers in it."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from stowage.containers.context import Context
from stowage.containers.model import ContainerRecord, ContainerSpec
from stowage.containers.running import RunResult
from stowage.containers.service import Containers
from stowage.containers.streams import Streams
from stowage.engine import Engine
from stowage.linux.cgroups import Cgroup
from stowage.linux.mountinfo import read_mountinfo
from stowage.testing.abilities import find_command

PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n"
GROUP = b"root:x:0:\napp:x:1001:\nextra:x:2000:app,other\n"
_APPLETS = str.split(
    """
    cat chmod cut dd echo env false grep head hostname httpd id ip kill ln ls mkdir mknod mount
    ping ps pwd readlink rm rmdir sh sleep stty touch tr true tty umount wc wget
    """
)
#: What conmon runs at a container's end: the same work as the hidden command, no command line.
_FINISH = """
import sys
from stowage.engine import Engine
with Engine(sys.argv[1]) as engine:
    engine.containers.finish(*sys.argv[2:])
"""


def busybox_tree() -> io.BytesIO:
    """The archive of a root with busybox, its applets and a few accounts."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "home", "root", "tmp"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        tar.add(find_command("busybox") or "/bin/busybox", "bin/busybox")
        for name in _APPLETS:
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        for name, text in (("etc/passwd", PASSWD), ("etc/group", GROUP)):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    out.seek(0)
    return out


class Boxes:
    """The containers of one root; every container has network none unless it is told otherwise."""

    def __init__(self, root: Path, **config: Any) -> None:
        self.root = root
        self.engine = Engine(root, **config)
        self.containers = self.open()
        self.engine.images.import_tree(busybox_tree(), "busybox", changes=('CMD ["sh"]',))

    def open(self) -> Containers:
        """Open the containers anew, as the next command would: recovery runs."""
        finish = [sys.executable, "-c", _FINISH, str(self.root)]
        opened = Containers(self.engine, exit_command=finish)
        self.engine.__dict__["containers"] = opened
        return opened

    @property
    def context(self) -> Context:
        return self.containers._context

    def spec(self, *command: str, **asked: Any) -> ContainerSpec:
        known = {"image": "" if "rootfs" in asked else "busybox", "network": "none", **asked}
        return ContainerSpec(command=command, **known)

    def run(
        self, *command: str, stdin: bytes = b"", timeout: float | None = 60, **asked: Any
    ) -> RunResult:
        """Run to the end, in process; the container is removed."""
        asked = {"auto_remove": True, **asked}
        spec = self.spec(*command, **asked)
        return self.containers.run(spec, Streams(stdin=stdin), timeout_seconds=timeout)

    def sh(self, script: str, **asked: Any) -> str:
        """Run a shell script to the end, in process; returns what it wrote, errors included."""
        result = self.run("sh", "-c", f"exec 2>&1; {script}", **asked)
        return result.stdout.decode()

    def start(self, *command: str, **asked: Any) -> ContainerRecord:
        """Start a container under conmon."""
        record = self.containers.create(self.spec(*command, **asked))
        return self.containers.start(record.id)

    def shell(self, record: ContainerRecord, script: str, **asked: Any) -> str:
        """Run a shell script in a running container; returns what it wrote."""
        from stowage.containers.exec import ExecSpec

        spec = replace(ExecSpec(("sh", "-c", f"exec 2>&1; {script}")), **asked)
        return self.containers.exec(record.id, spec).stdout.decode()

    def cgroup(self, record: ContainerRecord) -> Cgroup:
        return self.context.cgroup(record)

    def leftovers(self) -> list[str]:
        """What there is of containers besides rows: directories, cgroups, runtime state, mounts."""
        places = (
            self.context.bundles,
            self.context.running_directory / "runtime",
            self.engine.layout.containers,
        )
        found = [str(entry) for place in places if place.exists() for entry in place.iterdir()]
        found += [str(Path(place)) for place in self.context.cgroup_parent.directories()]
        found += [entry.target for entry in read_mountinfo() if str(self.root) in entry.target]
        return found

    def processes(self) -> list[str]:
        """The processes that work for this root: conmon and its exit command."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                words = entry.joinpath("cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(self.root) in words:
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def clear(self) -> None:
        """Remove every container and wait for the processes that served them."""
        for record in self.containers.list():
            self.containers.remove(record.id, force=True)
        until(lambda: not self.processes(), "conmon and its exit command to end")

    def close(self) -> None:
        self.clear()
        self.engine.close()


def until(true: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait for something that is to happen soon."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)

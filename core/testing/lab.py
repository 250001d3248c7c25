"""The lab: namespaces that a test session enters, so that nothing it does reaches the machine.

As root the session's main thread gets a network namespace (only ``lo``, up) and a mount
namespace of its own, a private tmpfs to work in, and it adopts the orphans of its descendants.
All of it dies with the session, a killed one included. Without the privilege there is only a
directory to work in.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

from msgspec import Struct, field

from ..linux.mount import MS_REC, MS_SLAVE, set_propagation, syscall_mount, unmount
from ..linux.namespaces import CLONE_NEWNET, CLONE_NEWNS, loopback_up, unshare
from .abilities import missing

#: Inherited by every process that the session starts; its value is the lab's id.
MARKER = "STOWAGE_LAB"
#: What steers the tests themselves.
SETTINGS = frozenset({"STOWAGE_REQUIRED_TESTS", "STOWAGE_TEST_PROFILE"})


class Lab(Struct):
    """Where a session works, and how to tell what belongs to it.

    *isolated* says whether the namespaces could be made; *reason* why not.
    """

    directory: Path
    id: str
    reason: str | None
    kept: set[str] = field(default_factory=set)
    """What session-scoped fixtures hold on purpose (paths of mounts), no leaks."""
    roots: set[str] = field(default_factory=set)
    """Ids of roots whose directories are gone already; their cgroups are looked at all the same."""

    @property
    def isolated(self) -> bool:
        return self.reason is None

    def leave(self) -> None:
        """Unmount and remove the directory; the namespaces go with the process. Idempotent."""
        if self.isolated and self.directory.exists():
            unmount(self.directory, lazy=True)
        for path, names, _ in os.walk(self.directory):
            for directory in (os.path.join(path, name) for name in names):
                if not os.path.islink(directory):
                    os.chmod(directory, 0o700)  # a test may have closed it to a plain user
        shutil.rmtree(self.directory, ignore_errors=True)


def forget_networks() -> None:
    """Delete the bridges and rules that roots made in this network namespace, which must be a
    lab's: roots that are gone would keep subnets from those that follow."""
    from ..linux.netlink import Netlink
    from ..linux.nft import NftSession
    from ..linux.rtnetlink import delete_link, read_links

    with Netlink() as netlink:
        ours = [link.name for link in read_links(netlink) if link.alias.startswith("stowage-")]
        if not ours:
            return
        netlink.try_each("lab.delete_links", [delete_link(name) for name in ours])
    session = NftSession()
    try:
        for item in session.query("list tables"):
            name = item.get("table", {}).get("name", "")
            if name.startswith("stowage-"):
                session.transact(f"delete table inet {name}\n")
    finally:
        session.close()


def enter_lab(size_bytes: int = 4 << 30) -> Lab:
    """Move the calling thread, which should be the main one, into a lab; see the module.

    Threads and processes started afterwards inherit it. The tmpfs takes at most *size_bytes*
    of memory. Variables ``STOWAGE_*`` that would change what is tested are dropped.
    """
    for name in [name for name in os.environ if name.startswith("STOWAGE_")]:
        if name not in SETTINGS:
            del os.environ[name]
    reason = missing("mounts") or missing("netns")
    directory = Path(tempfile.mkdtemp(prefix="stowage-lab-"))
    lab = Lab(directory, uuid4().hex, reason)
    os.environ[MARKER] = lab.id
    if lab.isolated:
        unshare(CLONE_NEWNET | CLONE_NEWNS)
        loopback_up()
        # slave, not private: a private copy would pin what the machine unmounts meanwhile
        set_propagation("/", MS_REC | MS_SLAVE)
        options = f"size={size_bytes},mode=0755"
        syscall_mount("stowage-lab", directory, "tmpfs", 0, options)
    return lab

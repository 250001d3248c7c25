"""The guided tour behind `make run`: real commands, their real output, and how long each took.

Everything happens in a lab (network and mount namespaces of its own, a root on a private tmpfs)
and is gone afterwards. Where containers cannot run it says which ability is missing and tours
what works without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from stowage.testing.abilities import missing
from stowage.testing.lab import Lab, enter_lab
from tour_guide import Guide, StepFailed

INTRODUCTION = """
Stowage runs containers on storage and network drivers that are chosen at run time. This tour
shows the commands as you would type them, what they print, and how long they took.
"""
IN_A_LAB = """
It works in network and mount namespaces of its own, on a root in memory, so nothing of this
machine is touched, and it cleans up behind itself.
"""

ABILITIES = {
    "root": "being root",
    "mounts": "mount namespaces (CAP_SYS_ADMIN)",
    "netns": "network namespaces",
    "namespaces": "pid and host name namespaces",
    "cgroups": "cgroups that may be written to",
    "runtime": "an OCI runtime (crun or runc)",
    "conmon": "conmon, for detached containers",
    "overlay": "kernel overlayfs",
    "busybox": "busybox, for the smallest image",
}


def machine(guide: Guide) -> None:
    """What this machine can do; tried just now, not guessed from versions."""
    for ability, meaning in ABILITIES.items():
        reason = missing(ability)
        guide.line(f"{'no ' if reason else 'yes'}  {meaning}{': ' + reason if reason else ''}")


def drivers(guide: Guide) -> None:
    """Each driver is a plugin. Its probe does the real thing in a scratch directory and says
    what it achieved, or what is missing and what would help."""
    guide.shell("stowage driver ls")
    guide.shell("stowage driver explain")


def image(guide: Guide) -> None:
    """An image can be made from Debian's own packages, without a registry: one layer, kept under
    its digest, with a recipe that gives the archive back byte for byte."""
    guide.shell("stowage bootstrap busybox")
    guide.shell("stowage images")
    guide.shell("stowage layers")


def on_overlay(guide: Guide) -> None:
    """A container on the kernel's overlayfs. It runs detached, so conmon keeps its output and
    its exit code; no daemon is involved. We write in it, from another process."""
    guide.shell(
        "stowage run -d --name ship --network none --storage-driver overlay "
        "busybox sh -c 'echo hello from $(hostname); exec sleep 600'"
    )
    guide.shell("stowage exec ship sh -c 'echo cargo > /hold; rm /etc/group; ls /'")
    guide.shell("stowage logs ship")
    guide.shell("stowage ps")
    guide.shell("stowage diff ship")


def isolation(guide: Guide) -> None:
    """Seen from inside: processes of its own, a host name of its own, no link but `lo`."""
    guide.shell("stowage exec ship sh -c 'hostname; ps; ls /sys/class/net'")
    guide.shell("stowage exec ship awk '$2 == \"/\" { print $1, $2, $3 }' /proc/mounts")


def on_vfs(guide: Guide) -> None:
    """The same image on another driver: full copies, no overlayfs. The layers are brought over
    once, checked by digest. Both drivers serve this root side by side."""
    guide.shell(
        "stowage run --name raft --network none --storage-driver vfs "
        "busybox sh -c 'echo plank > /deck; echo I float'"
    )
    guide.shell("stowage diff raft")
    guide.shell("stowage ps -a")


def again(guide: Guide) -> None:
    """What a container changed becomes a new layer on top of its image, and runs again."""
    guide.shell("stowage commit ship loaded")
    guide.shell("stowage images")
    guide.shell("stowage run --rm --network none loaded cat /hold")


def own_root(guide: Guide) -> None:
    """This machine's own root as a container: copy-on-write, so that anything may be tried."""
    guide.shell(
        "stowage run --name wreck --network none --rootfs / "
        "sh -c 'rm -rf /usr/share /etc/passwd; echo gone > /etc/motd; ls /usr'"
    )
    guide.shell("stowage diff wreck", limit=8)
    guide.say("And the machine itself:")
    guide.shell("head -n 1 /etc/passwd; ls -d /usr/share")


def on_the_bridge(guide: Guide) -> None:
    """A web server on the default network, published: reached at every address of this machine,
    by other containers and by itself. No proxy: one element of an nftables map."""
    guide.shell("stowage run -d --name web -p 8080:80 busybox httpd -f -h /home")
    guide.shell("stowage exec web sh -c 'echo Ahoy from $(hostname -i) > /home/index.html'")
    guide.shell("busybox wget -q -O - http://127.0.0.1:8080/")
    guide.shell("stowage run --rm busybox wget -q -O - http://172.17.0.2/")
    guide.shell("stowage run --rm --network container:web busybox wget -q -O - http://127.0.0.1/")
    guide.shell("stowage ps; stowage port web; stowage network ls")
    guide.shell("stowage diff web")
    guide.shell("stowage commit web site")
    guide.shell("stowage rm -f web")
    guide.shell("stowage run --rm site cat /home/index.html")


def accounts(guide: Guide) -> None:
    """What all that takes on disk, and whether it is whole: every file against its digest."""
    guide.shell("stowage df")
    guide.shell("stowage check")


def clean_up(guide: Guide) -> None:
    """Removing is a rename; the space comes back in the background."""
    guide.shell("stowage rm -f ship raft wreck")
    guide.shell("stowage rmi site loaded busybox")
    guide.shell("stowage gc")
    guide.shell("stowage layers")


def without_privileges(guide: Guide) -> None:
    """Layers need no privilege on the driver vfs. The same store, from Python: a tree is packed
    into a layer, unpacked, changed, compared, committed and given back byte for byte."""
    guide.python(
        """
        import io, tarfile
        from stowage import Engine
        engine = Engine(root, storage_driver="vfs")
        layers = engine.layers
        """
    )
    guide.python(
        """
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in ("hold", "deck"):
                entry = tarfile.TarInfo(name)
                entry.size, entry.uid, entry.gid = 6, os.getuid(), os.getgid()
                tar.addfile(entry, io.BytesIO(b"cargo\\n"))
        """
    )
    guide.python("base = layers.add_layer(io.BytesIO(archive.getvalue()), None); base.name")
    guide.python("layers.prepare('work', base.name).kind.value")
    guide.python(
        """
        with layers.attached('work') as tree:
            os.unlink('deck', dir_fd=tree)
            os.mkdir('mast', dir_fd=tree)
        """
    )
    guide.python(
        "[(change.kind.letter, change.path.decode()) for change in layers.changes('work')]"
    )
    guide.python("layers.commit('changed', 'work').usage")
    guide.python("out = io.BytesIO(); layers.export(base.name, out)")
    guide.python("out.getvalue() == archive.getvalue()")
    guide.python("engine.close()")


Chapter = tuple[str, Callable[[Guide], None], tuple[str, ...]]

WITH_CONTAINERS: tuple[Chapter, ...] = (
    ("Drivers", drivers, ()),
    ("An image", image, ("busybox",)),
    ("A container on overlay", on_overlay, ("busybox", "overlay", "conmon")),
    ("Isolation", isolation, ("busybox", "overlay", "conmon")),
    ("A container on vfs", on_vfs, ("busybox",)),
    ("Commit, and run again", again, ("busybox", "overlay", "conmon")),
    ("A web server on the bridge", on_the_bridge, ("busybox", "overlay", "conmon")),
    ("Your own root, copy-on-write", own_root, ("overlay",)),
    ("Accounts", accounts, ()),
    ("Cleaning up", clean_up, ("busybox", "overlay", "conmon")),
)
WITHOUT: tuple[Chapter, ...] = (
    ("Drivers", drivers, ()),
    ("Layers without privileges", without_privileges, ()),
)


def tour(guide: Guide, *, isolated: bool) -> None:
    guide.say(INTRODUCTION + (IN_A_LAB if isolated else ""))
    guide.chapter("This machine", machine.__doc__)
    machine(guide)
    reason = missing("containers")
    if reason:
        guide.say(
            f"Containers cannot run here: {reason}. What works without them follows; "
            "as root on a machine with those abilities `make run` shows the rest."
        )
    for title, chapter, needs in WITHOUT if reason else WITH_CONTAINERS:
        guide.chapter(title, chapter.__doc__)
        lacking = [why for ability in needs if (why := missing(ability))]
        if lacking:
            guide.say(f"Left out here: {'; '.join(lacking)}.")
            continue
        chapter(guide)


def main() -> int:
    lab: Lab = enter_lab()
    guide = Guide(lab.directory / "root", Path(sys.executable).parent)
    try:
        tour(guide, isolated=lab.isolated)
    except StepFailed as error:
        guide.say(f"The tour ends early: {error}")
        return 1
    except KeyboardInterrupt:
        guide.say("Interrupted; cleaning up.")
        return 130
    finally:
        guide.remove_all()
        lab.leave()
    guide.summary()
    return 0


if __name__ == "__main__":
    sys.exit(main())

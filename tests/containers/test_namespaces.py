"""Namespaces of one's own, the host's and other containers': refused, entered, told."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stowage.containers.namespaces import (
    Namespaces,
    check_namespaces,
    host_namespaces,
    namespace_entries,
)
from stowage.containers.resources import Resources
from stowage.containers.security import Security
from stowage.errors import FailedPrecondition, InvalidArgument, NotFound
from stowage.linux.cgroups import hierarchies

from .boxes import Boxes

texts = st.text(max_size=6)


@given(st.builds(Namespaces, texts, texts, texts, texts, texts))
def test_modes_survive_json(asked: Namespaces) -> None:
    assert Namespaces.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert Namespaces.from_json({"of-tomorrow": 1}) == Namespaces()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"pid": "private"}, "--pid: invalid PID mode"),
        ({"pid": "container:"}, "--pid: invalid PID mode"),
        ({"uts": "private"}, "--uts: invalid UTS mode"),
        ({"uts": "container:x", "pid": "container:x"}, "--uts: invalid UTS mode"),
        ({"userns": "keep-id"}, "--userns: invalid USER mode"),
        ({"cgroupns": "x"}, "--cgroupns: invalid CGROUP mode"),
        ({"ipc": "shared"}, "invalid IPC mode: shared"),
    ],
)
def test_modes_that_there_are_not_are_refused(asked: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        check_namespaces(Namespaces(**asked), "")


def test_modes_that_there_are_pass() -> None:
    for pid in ("", "host", "container:x"):
        for ipc in ("", "none", "private", "shareable", "host", "container:x"):
            check_namespaces(Namespaces(pid, ipc, "host", "host", "private"), "")
    with pytest.raises(InvalidArgument, match="conflicting options: hostname and the UTS mode"):
        check_namespaces(Namespaces(uts="host"), "name")


def test_entries_in_the_runtimes_words() -> None:
    assert namespace_entries(Namespaces(), {}, "/n") == [
        {"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"},
        {"type": "network", "path": "/n"},
    ]  # fmt: skip
    shared = Namespaces("container:a", "host", "host", "host", "private")
    assert namespace_entries(shared, {"pid": "/p"}, None) == [
        {"type": "mount"}, {"type": "pid", "path": "/p"}, {"type": "cgroup"},
    ]  # fmt: skip


# --- real containers --------------------------------------------------------------------------


def links(*kinds: str) -> str:
    return "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)


def ours(*kinds: str) -> list[str]:
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]


def test_the_hosts_namespaces_are_used_where_asked_for(by_runtime: Boxes) -> None:
    boxes, kinds = by_runtime, ("pid", "ipc", "uts", "user")
    asked = Namespaces("host", "host", "host", "host", "host")
    mine = boxes.sh(links(*kinds)).split()
    assert not set(mine[:3]) & set(ours(*kinds))
    assert mine[3] == ours("user")[0]

    shared = boxes.sh(links(*kinds, "cgroup") + "; hostname; echo $HOSTNAME", namespaces=asked)
    name = os.uname().nodename
    assert shared.split() == [*ours(*kinds, "cgroup"), name, name]
    assert "kernel.domainname" not in boxes.sh("true", namespaces=asked, domainname="d")


def test_the_hosts_shared_memory_is_seen(boxes: Boxes) -> None:
    place = Path(f"/dev/shm/stowage-test-{os.getpid()}")
    place.write_text("of the host")
    try:
        wrote = boxes.sh(f"cat {place}", namespaces=Namespaces(ipc="host"))
    finally:
        place.unlink()
    assert wrote == "of the host"


def test_no_ipc_means_no_shared_memory(boxes: Boxes) -> None:
    wrote = boxes.sh("mount; " + links("ipc"), namespaces=Namespaces(ipc="none"))

    assert "/dev/shm" not in wrote
    assert ours("ipc")[0] not in wrote


def test_a_cgroup_namespace_of_its_own_hides_where_it_is(by_runtime: Boxes) -> None:
    wrote = by_runtime.sh("cat /proc/self/cgroup", namespaces=Namespaces(cgroupns="private"))

    assert "/stowage/" not in wrote
    seen = by_runtime.sh("cat /proc/self/cgroup", namespaces=Namespaces(cgroupns="host"))
    assert "/stowage/" in seen


def test_a_containers_processes_are_joined(by_runtime: Boxes) -> None:
    """Seen and signalled; it ends, and with the first process of its own the rest of it."""
    boxes = by_runtime
    donor = boxes.start(
        "sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.05; done", name="donor"
    )
    asked = Namespaces(pid="container:donor")

    guest = boxes.start("sh", "-c", "sleep 61 & sleep 60", namespaces=asked)
    assert guest.spec.namespaces.pid == f"container:{donor.id}"
    for one, other in ((donor, guest), (guest, donor)):
        assert boxes.shell(one, links("pid")) == boxes.shell(other, links("pid"))
    seen = boxes.shell(donor, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "sleep 60" in seen
    boxes.containers.stop(guest.id, timeout_seconds=0)
    assert boxes.cgroup(guest).processes() == set()
    assert "sleep 61" not in boxes.shell(donor, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")

    assert boxes.run("kill", "-USR1", "1", namespaces=asked).exit_code == 0
    assert boxes.containers.wait(donor.id, 20) == 5


def test_a_direct_run_in_another_namespace_can_be_killed(boxes: Boxes) -> None:
    """Its first process is process 1 of nothing."""
    result = boxes.run("sleep", "60", namespaces=Namespaces(pid="host"), timeout=0.5)

    assert result.timed_out
    assert boxes.leftovers() == []


def test_shared_memory_and_ipc_are_joined(by_runtime: Boxes) -> None:
    """What one writes the other reads; it stays as long as one of them lives."""
    boxes = by_runtime
    donor = boxes.start(
        "sleep", "60", name="donor",
        namespaces=Namespaces(ipc="shareable"), resources=Resources(shm_size_bytes=1 << 20),
    )  # fmt: skip
    asked = Namespaces(ipc="container:donor")
    boxes.shell(donor, "echo from donor > /dev/shm/x")
    guest = boxes.start("sleep", "60", namespaces=asked, resources=Resources(shm_size_bytes=5))

    assert boxes.shell(guest, "cat /dev/shm/x; echo from guest > /dev/shm/y") == "from donor\n"
    assert boxes.shell(donor, "cat /dev/shm/y") == "from guest\n"
    assert boxes.shell(donor, links("ipc")) == boxes.shell(guest, links("ipc"))
    assert "size=1024k" in boxes.shell(guest, "mount | grep /dev/shm")
    boxes.containers.remove(donor.id, force=True)
    assert boxes.shell(guest, "cat /dev/shm/x") == "from donor\n"


def test_what_cannot_be_joined_is_refused_in_dockers_words(boxes: Boxes) -> None:
    ended = boxes.containers.create(boxes.spec("true", name="ended"))
    private = boxes.start("sleep", "60", name="private")

    def start(**asked: str) -> Any:
        record = boxes.containers.create(boxes.spec("true", namespaces=Namespaces(**asked)))
        return boxes.containers.start(record.id)

    with pytest.raises(NotFound, match="No such container: nosuch"):
        start(pid="container:nosuch")
    with pytest.raises(FailedPrecondition, match=f"Container {ended.id} is not running"):
        start(pid="container:ended")
    with pytest.raises(FailedPrecondition, match=rf"can't join IPC of container {private.id}: non"):
        start(ipc="container:private")
    sysctl = boxes.spec(
        "true", namespaces=Namespaces(ipc="host"), security=Security(sysctls={"kernel.sem": "1"})
    )
    with pytest.raises(InvalidArgument, match="not allowed in the hosts ipc namespace"):
        boxes.containers.create(sysctl)


def test_inspect_tells_the_modes(boxes: Boxes) -> None:
    record = boxes.containers.create(boxes.spec("true"))
    host = host_namespaces(record.spec.namespaces)

    on_v2 = hierarchies().layout == "v2"
    assert (host["IpcMode"], host["PidMode"]) == ("private", "")
    assert host["CgroupnsMode"] == ("private" if on_v2 else "host")
    assert replace(record.spec.namespaces, cgroupns="") == Namespaces(ipc="private")

"""Limits: how they are read and checked, and what they do to real processes."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stowage.config_types import Ulimit
from stowage.containers import own_limits, resource_checks
from stowage.containers.describe import inspect_document
from stowage.containers.namespaces import Namespaces
from stowage.containers.resource_checks import verified
from stowage.containers.resource_config import resource_config, rlimits
from stowage.containers.resource_values import (
    parse_device_bps,
    parse_device_iops,
    parse_list,
    parse_memory_swap,
    parse_ulimit,
    parse_weight_device,
)
from stowage.containers.resources import DeviceValue, Resources, with_defaults
from stowage.containers.security import Security
from stowage.containers.units import parse_memory, parse_nano_cpus
from stowage.errors import InvalidArgument, PermissionDenied
from stowage.linux.cgroups import hierarchies
from stowage.linux.controllers import Support
from stowage.records import field_names

from .boxes import Boxes

ABLE = Support(
    memory=True, swap=True, swappiness=True, oom_kill_disable=True, pids=True, cpu=True,
    cpuset=True, io=True, cpus="0-1", mems="0",
)  # fmt: skip
counts = st.integers(0, 1 << 62)
values = st.lists(st.builds(DeviceValue, st.text(max_size=4), counts), max_size=2).map(tuple)
limits = st.dictionaries(
    st.sampled_from(["nofile", "core"]), st.builds(Ulimit, st.integers(-1, 9), st.integers(-1, 9))
)


@given(st.builds(Resources, memory_bytes=counts, device_read_bps=values, ulimits=limits))
def test_limits_survive_json(resources: Resources) -> None:
    assert Resources.from_json(json.loads(json.dumps(resources.to_json()))) == resources
    assert Resources.from_json({"of-tomorrow": 1}) == Resources()


# --- what users write -------------------------------------------------------------------------


def test_values_are_read_as_docker_reads_them() -> None:
    assert [parse_memory(text) for text in ("64m", "1.5g", "512KiB", "4096", "1 kb")] == [
        64 << 20, 3 << 29, 512 << 10, 4096, 1024,
    ]  # fmt: skip
    assert parse_memory_swap("-1") == -1
    assert [parse_nano_cpus(text) for text in ("1.5", ".5", "2", "0.000000001")] == [
        1_500_000_000, 500_000_000, 2_000_000_000, 1,
    ]  # fmt: skip
    assert parse_ulimit("nofile=1024:2048") == ("nofile", Ulimit(1024, 2048))
    assert parse_ulimit("core=-1") == ("core", Ulimit(-1, -1))
    assert parse_device_bps("/dev/sda:1mb") == DeviceValue("/dev/sda", 1 << 20)
    assert parse_device_iops("/dev/sda:7") == DeviceValue("/dev/sda", 7)
    assert parse_weight_device("/dev/sda:1000") == DeviceValue("/dev/sda", 1000)
    assert parse_list("0-2,7") == {0, 1, 2, 7}


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_memory, "lots", "invalid size: 'lots'"),
        (parse_memory, "-5", "invalid size: '-5'"),
        (parse_nano_cpus, "1/2", "failed to parse 1/2 as a rational number"),
        (parse_nano_cpus, "0.00000000001", "value is too precise"),
        (parse_ulimit, "nofile", "invalid ulimit argument: nofile"),
        (parse_ulimit, "nofiles=1", "invalid ulimit type: nofiles"),
        (parse_ulimit, "nofile=1:2:3", "too many limit value arguments - 1:2:3"),
        (parse_ulimit, "nofile=2:1", "soft limit must be less than or equal to hard limit: 2 > 1"),
        (parse_weight_device, "/dev/sda", "bad format: /dev/sda"),
        (parse_weight_device, "sda:10", "bad format for device path: sda:10"),
        (parse_weight_device, "/dev/sda:9", "invalid weight for device: /dev/sda:9"),
        (parse_device_bps, "/dev/sda:fast", "invalid rate for device: /dev/sda:fast"),
        (parse_device_iops, "/dev/sda:1mb", "invalid rate for device: /dev/sda:1mb"),
        (parse_list, "1-0", "invalid format: 1-0"),
        (parse_list, "9" * 5000, "invalid format: 999"),
        (parse_memory, "٣g", "invalid size: '٣g'"),
        (parse_nano_cpus, "٣", "failed to parse ٣ as a rational number"),
        (parse_ulimit, "nofile=٣", "limits are whole numbers from -1 on"),
        (parse_ulimit, "nofile=-5:-5", "limits are whole numbers from -1 on"),
        (parse_device_iops, "/dev/sda:٣", "invalid rate for device: /dev/sda:٣"),
        (parse_device_iops, "/dev/sda:" + "9" * 20, "invalid rate for device: /dev/sda:999"),
    ],
)
def test_wrong_values_are_refused_in_the_clients_words(
    parse: Callable[[str], object], text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


@given(st.text(max_size=12))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    for parse in (
        parse_memory, parse_memory_swap, parse_nano_cpus, parse_ulimit, parse_device_bps,
        parse_device_iops, parse_weight_device, parse_list,
    ):  # fmt: skip
        try:
            parse(text)
        except ValueError:
            pass


# --- bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"memory_bytes": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        (
            {"memory_bytes": 9 << 20, "memory_swap_bytes": 8 << 20},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"memory_swap_bytes": 8 << 20},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        ({"memory_swappiness": 101}, "invalid value: 101. Valid memory swappiness range is 0-100"),
        ({"memory_reservation_bytes": 1}, "Minimum memory reservation allowed is 6MB"),
        (
            {"memory_bytes": 7 << 20, "memory_reservation_bytes": 8 << 20},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            {"nano_cpus": 10**9, "cpu_period": 5000},
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (
            {"nano_cpus": 10**9, "cpu_quota": 5000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        ({"cpu_period": 5}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than"),
        ({"cpu_quota": 5}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"cpu_quota": 1 << 60}, "CPU cfs quota can not be larger than 17592186044415"),
        ({"pids_limit": 4_194_305}, "Invalid value 4194305, the pids limit is at most 4194304"),
        ({"memory_bytes": 1 << 63}, "memory_bytes is larger than 64 bits hold"),
        ({"shm_size_bytes": -1}, "SHM size can not be less than 0"),
        ({"cgroup_parent": "../../x"}, "invalid cgroup parent: '../../x' contains '..'"),
        ({"cgroup_parent": "/a/.."}, "invalid cgroup parent: '/a/..' contains '..'"),
        ({"cpuset_cpus": "0-9"}, "Requested CPUs are not available - requested 0-9, available"),
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        ({"cpuset_mems": "7"}, "Requested memory nodes are not available - requested 7"),
        ({"blkio_weight": 9}, "Range of blkio weight is from 10 to 1000"),
        ({"oom_score_adj": 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        ({"device_read_bps": (DeviceValue("/dev/nosuch", 1),)}, "stat /dev/nosuch: no such file"),
    ],
)
def test_limits_that_cannot_be_are_refused_in_dockers_words(
    asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        verified(Resources(**asked), able=ABLE)
    assert refusal.value.brief.startswith(message)


def test_too_many_cpus_are_refused_naming_what_there_is() -> None:
    count = len(os.sched_getaffinity(0))
    for asked in (64 * 10**9, 1):
        with pytest.raises(InvalidArgument) as refusal:
            verified(Resources(nano_cpus=asked), able=ABLE)
        assert refusal.value.brief == (
            f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )


def test_swap_defaults_to_twice_the_memory() -> None:
    assert verified(Resources(memory_bytes=8 << 20), able=ABLE).memory_swap_bytes == 16 << 20
    unlimited = Resources(memory_bytes=8 << 20, memory_swap_bytes=-1)
    assert verified(unlimited, able=ABLE) == unlimited


def test_what_the_kernel_lacks_is_discarded_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """As dockerd does, in its words."""
    off = {name: False for name in field_names(Support) if name not in ("cpus", "mems")}
    unable = replace(ABLE, **off)
    asked = Resources(
        memory_bytes=8 << 20, memory_reservation_bytes=7 << 20, memory_swappiness=1,
        oom_kill_disable=True, pids_limit=5, cpu_shares=5, cpu_period=5000, cpuset_cpus="0",
        blkio_weight=10,
    )  # fmt: skip

    assert verified(asked, able=unable) == Resources(memory_swap_bytes=-1)
    said = [record.getMessage() for record in caplog.records]
    assert (
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. "
        "Limitation discarded." in said
    )
    assert "Your kernel does not support OomKillDisable. OomKillDisable discarded." in said
    assert len(said) == 9
    with pytest.raises(InvalidArgument, match="NanoCPUs can not be set"):
        verified(Resources(nano_cpus=10**9), able=unable)


def test_limits_in_the_runtimes_words() -> None:
    config = resource_config(
        Resources(
            memory_bytes=8, memory_swap_bytes=-1, memory_swappiness=0, nano_cpus=500_000_000,
            cpu_shares=7, pids_limit=-1, device_write_bps=(DeviceValue("/dev/null", 9),),
        )
    )  # fmt: skip
    assert config == {
        "memory": {"limit": 8, "swap": -1, "swappiness": 0},
        "cpu": {"shares": 7, "period": 100_000, "quota": 50_000},
        "pids": {"limit": -1},
        "blockIO": {"throttleWriteBpsDevice": [{"major": 1, "minor": 3, "rate": 9}]},
    }
    assert resource_config(Resources()) == {}
    assert rlimits(Resources(ulimits={"nofile": Ulimit(-1, 5)})) == [
        {"type": "RLIMIT_NOFILE", "soft": (1 << 64) - 1, "hard": 5}
    ]


def test_configured_defaults_hold_where_nothing_is_asked() -> None:
    asked = Resources(ulimits={"core": Ulimit(0, 0)})
    defaults = {"core": Ulimit(1, 1), "nofile": Ulimit(2, 2)}

    got = with_defaults(asked, defaults, 5)

    assert got.ulimits == {"core": Ulimit(0, 0), "nofile": Ulimit(2, 2)}
    assert got.shm_size_bytes == 5
    assert with_defaults(Resources(shm_size_bytes=1), {}, 5).shm_size_bytes == 1


# --- what we may not do -----------------------------------------------------------------------


def test_what_the_kernel_would_refuse_us_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_limits, "effective", lambda: frozenset({"CAP_SYS_ADMIN"}))
    monkeypatch.setattr(resource, "getrlimit", lambda number: (10, 20))
    for resources, words in (
        (Resources(ulimits={"nofile": Ulimit(5, 21)}), "--ulimit nofile: the hard limit"),
        (Resources(ulimits={"nproc": Ulimit(-1, -1)}), "hard limit cannot be unlimited"),
        (Resources(oom_score_adj=-1), "--oom-score-adj -1 cannot be set"),
    ):
        with pytest.raises(PermissionDenied, match=words) as refusal:
            own_limits.check_own_limits(resources)
        assert "CAP_SYS_RESOURCE" in str(refusal.value.details)
    own_limits.check_own_limits(Resources(ulimits={"nofile": Ulimit(5, 20)}, oom_score_adj=5))

    monkeypatch.setattr(own_limits, "effective", lambda: frozenset({"CAP_SYS_RESOURCE"}))
    own_limits.check_own_limits(Resources(ulimits={"nofile": Ulimit(5, 21)}, oom_score_adj=-1))


# --- real containers --------------------------------------------------------------------------


def _limit(boxes: Boxes, record: Any, *names: str) -> str:
    """What the first of these files of a container's cgroup says."""
    for directory in boxes.cgroup(record).directories():
        for name in names:
            file = Path(directory, name)
            if file.exists():
                return file.read_text().strip()
    raise AssertionError(names)


def test_limits_reach_the_kernel(by_runtime: Boxes) -> None:
    """Each in its cgroup, by both runtimes; also the weight, which crun cannot set under bfq."""
    boxes = by_runtime
    record = boxes.start(
        "sleep", "60",
        resources=Resources(
            memory_bytes=64 << 20, memory_reservation_bytes=32 << 20, nano_cpus=500_000_000,
            cpu_shares=512, cpuset_cpus="0", pids_limit=50, blkio_weight=300,
            ulimits={"nofile": Ulimit(100, 200), "core": Ulimit(0, 0)}, oom_score_adj=300,
            shm_size_bytes=1 << 20,
        ),
    )  # fmt: skip

    assert _limit(boxes, record, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert _limit(boxes, record, "memory.soft_limit_in_bytes", "memory.low") == str(32 << 20)
    if hierarchies().v1:
        assert _limit(boxes, record, "memory.memsw.limit_in_bytes") == str(128 << 20)
    assert _limit(boxes, record, "pids.max") == "50"
    assert _limit(boxes, record, "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert _limit(boxes, record, "cpuset.cpus") == "0"
    weight = _limit(boxes, record, "blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight")
    assert weight.split()[-1] in ("300", "2929")
    inside = boxes.shell(record, "cat /proc/1/limits /proc/1/oom_score_adj; ulimit -Hn")
    assert "Max open files            100                  200" in inside
    assert "Max core file size        0                    0" in inside
    assert inside.splitlines()[-2:] == ["300", "200"]
    assert "shm on /dev/shm type tmpfs (rw,nosuid,nodev,noexec,relatime,size=1024k" in boxes.shell(
        record, "mount"
    )
    host = inspect_document(record, dict.fromkeys(("resolv.conf", "hostname", "hosts", "log"), ""),
                            {}, "none", Path)["HostConfig"]  # fmt: skip
    assert isinstance(host, dict)
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (
        64 << 20,
        128 << 20,
        5 * 10**8,
    )
    assert host["Ulimits"] == [
        {"Name": "nofile", "Hard": 200, "Soft": 100}, {"Name": "core", "Hard": 0, "Soft": 0},
    ]  # fmt: skip


EATER = ("sh", "-c", "a=x; while :; do a=$a$a; done")


def test_who_eats_more_than_its_memory_is_killed(by_runtime: Boxes) -> None:
    """137, and the record says why."""
    boxes, few = by_runtime, Resources(memory_bytes=8 << 20)
    eaten = boxes.run(*EATER, resources=few, auto_remove=False)
    assert (eaten.exit_code, eaten.oom_killed) == (137, True)
    assert boxes.containers.get(eaten.container_id).runtime.oom_killed
    killed = boxes.run("sh", "-c", "kill -9 $$; exit 9", resources=few)
    assert (killed.exit_code, killed.oom_killed) == (9, False)

    record = boxes.start(*EATER, resources=few)
    assert boxes.containers.wait(record.id, 30) == 137
    assert boxes.containers.get(record.id).runtime.oom_killed
    assert boxes.run("true", resources=few).exit_code == 0


def test_no_more_processes_than_allowed(boxes: Boxes) -> None:
    wrote = boxes.sh(
        "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait", resources=Resources(pids_limit=5)
    )

    assert "can't fork: Resource temporarily unavailable" in wrote


def test_a_cgroup_parent_is_used_and_left(boxes: Boxes) -> None:
    """Its owner may have set limits on it: nobody else removes it."""
    parent = f"/stowage-test-{os.getpid()}"
    record = boxes.start("sleep", "60", resources=Resources(cgroup_parent=parent))
    places = list(boxes.cgroup(record).directories())
    try:
        assert all(f"{parent}/{record.id}" in place for place in places)
        assert parent + "/" + record.id in boxes.shell(record, "cat /proc/1/cgroup")

        boxes.containers.remove(record.id, force=True)
        assert not any(os.path.exists(place) for place in places)
        assert all(os.path.isdir(os.path.dirname(place)) for place in places)
    finally:
        boxes.clear()
        for place in places:
            os.rmdir(os.path.dirname(place))


def test_nothing_is_made_for_a_limit_that_cannot_be(boxes: Boxes) -> None:
    for resources in (Resources(memory_bytes=1), Resources(oom_score_adj=5000)):
        with pytest.raises(InvalidArgument):
            boxes.containers.create(boxes.spec("true", resources=resources))
    assert boxes.containers.list() == []
    assert boxes.leftovers() == []


def test_a_limit_beyond_ours_is_refused_at_start_too(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been asked for by somebody who was allowed more."""
    monkeypatch.setattr("stowage.containers.creating.check_own_limits", lambda resources: None)
    monkeypatch.setattr(own_limits, "effective", frozenset)
    record = boxes.containers.create(boxes.spec("true", resources=Resources(oom_score_adj=-5)))

    with pytest.raises(PermissionDenied, match="--oom-score-adj -5 cannot be set"):
        boxes.containers.start(record.id)
    assert boxes.containers.get(record.id).runtime.error.startswith("--oom-score-adj")


def test_the_checks_say_what_this_machine_has() -> None:
    assert resource_checks.verified(Resources(cpuset_cpus="0")).cpuset_cpus == "0"


def test_python_users_ask_for_them_by_name(boxes: Boxes) -> None:
    """Limits, rights and namespaces go to ``Engine.run`` as they are."""
    script = "ulimit -n; grep NoNewPrivs /proc/self/status; readlink /proc/self/ns/uts"
    done = boxes.engine.run(
        "busybox", ["sh", "-c", script], network="none",
        resources=Resources(ulimits={"nofile": Ulimit(77, 77)}),
        security=Security(no_new_privileges=True), namespaces=Namespaces(uts="host"),
    )  # fmt: skip

    assert done.stdout.decode().split() == [
        "77", "NoNewPrivs:", "1", os.readlink("/proc/self/ns/uts"),
    ]  # fmt: skip
    assert not done.oom_killed

"""What a container may do: how it is asked for, and what its processes find."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.containers import init_process, security
from stowage.containers.describe_security import host_security
from stowage.containers.devices import (
    Device,
    check_rule,
    device_nodes,
    device_rules,
    host_devices,
    parse_device,
)
from stowage.containers.seccomp_profile import convert, read_profile
from stowage.containers.security import (
    CAPABILITIES,
    Security,
    capabilities_of,
    capability_names,
    check_capabilities,
)
from stowage.containers.security_options import check_sysctls, parse_sysctl, with_options
from stowage.errors import InvalidArgument, NotSupported, PermissionDenied
from stowage.linux.capabilities import NAMES

from .boxes import Boxes

STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"
words = st.lists(st.text(max_size=4), max_size=2).map(tuple)


devices = st.lists(st.builds(Device, st.text(), st.text(), st.text()), max_size=2).map(tuple)
sysctls = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)
wishes = st.builds(
    Security,
    cap_add=words,
    privileged=st.booleans(),
    options=words,
    devices=devices,
    sysctls=sysctls,
)


@given(wishes)
def test_wishes_survive_json(asked: Security) -> None:
    assert Security.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert Security.from_json({"of-tomorrow": 1}) == Security()


# --- capabilities -----------------------------------------------------------------------------


@pytest.fixture
def all_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "bounding", lambda: frozenset(NAMES))


@pytest.mark.usefixtures("all_ours")
def test_capabilities_are_added_and_dropped_as_docker_does_it() -> None:
    def held(*add: str, drop: tuple[str, ...] = (), privileged: bool = False) -> set[str]:
        return set(capabilities_of(Security(add, drop, privileged)))

    assert held() == set(CAPABILITIES)
    assert held("net_admin") == {*CAPABILITIES, "CAP_NET_ADMIN"}
    assert held(drop=("CAP_CHOWN", "mknod")) == set(CAPABILITIES) - {"CAP_CHOWN", "CAP_MKNOD"}
    assert held("SYS_TIME", drop=("all",)) == {"CAP_SYS_TIME"}
    assert held("ALL", drop=("SYS_ADMIN",)) == set(NAMES) - {"CAP_SYS_ADMIN"}
    assert held(drop=("ALL",), privileged=True) == set(NAMES)


def test_nobody_hands_out_what_he_has_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked for by name it is refused; with all of them it is missing, and that is said."""
    monkeypatch.setattr(security, "bounding", lambda: frozenset(NAMES) - {"CAP_SYS_RESOURCE"})
    with pytest.raises(PermissionDenied, match="--cap-add SYS_RESOURCE: this process has not"):
        check_capabilities(Security(("sys_resource",)))
    for asked in (Security(("ALL",)), Security(privileged=True)):
        caplog.clear()
        check_capabilities(asked)
        assert "all capabilities but CAP_SYS_RESOURCE" in caplog.text
        assert "CAP_SYS_RESOURCE" not in capabilities_of(asked)
    caplog.clear()
    check_capabilities(Security())
    assert caplog.text == ""


def test_unknown_capabilities_are_refused_in_dockers_words() -> None:
    assert capability_names(["net_raw", "CAP_KILL", "all"]) == ["CAP_NET_RAW", "CAP_KILL", "ALL"]
    with pytest.raises(InvalidArgument, match='invalid CapAdd: unknown capability: "CAP_FOO"'):
        check_capabilities(Security(("foo",)))
    with pytest.raises(InvalidArgument, match='invalid CapDrop: unknown capability: "CAP_CAP"'):
        check_capabilities(Security((), ("cap",)))


# --- devices ----------------------------------------------------------------------------------


def test_devices_are_read_as_docker_reads_them() -> None:
    assert parse_device("/dev/null") == (Device("/dev/null", "/dev/null"),)
    assert parse_device("/dev/null:/dev/x") == (Device("/dev/null", "/dev/x"),)
    assert parse_device("/dev/null:r") == (Device("/dev/null", "/dev/null", "r"),)
    assert parse_device("/dev/null:/dev/x:mr") == (Device("/dev/null", "/dev/x", "mr"),)
    assert Device("/dev/zero", "/dev/zero") in parse_device("/dev/z*")


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_device, "a:b:c:d", "bad format for path: a:b:c:d"),
        (parse_device, ":/dev/x", "bad format for path: :/dev/x"),
        (parse_device, "/dev/null:/dev/x:q", "bad mode specified: q"),
        (parse_device, "/dev/null:rr", "rr is not an absolute path"),
        (parse_device, "null", "null is not an absolute path"),
        (parse_device, "/dev/z*:/x", "device with * suffix can't have dst: /dev/z*:/x"),
        (check_rule, "c 1:3 x", "invalid device cgroup format 'c 1:3 x'"),
        (parse_sysctl, "net.ipv4.ip_forward", "sysctl 'net.ipv4.ip_forward' is not allowed"),
        (parse_sysctl, "kernel.panic=1", "sysctl 'kernel.panic=1' is not allowed"),
    ],
)
def test_wrong_values_are_refused_in_dockers_words(
    parse: Callable[[str], object], text: str, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        parse(text)


@given(st.text(max_size=12))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    for parse in (
        parse_device, check_rule, parse_sysctl, lambda word: with_options(Security(), (word,)),
    ):  # fmt: skip
        try:
            parse(text)
        except InvalidArgument:
            pass


def test_nodes_and_rules_in_the_runtimes_words(tmp_path: Path) -> None:
    (node,) = device_nodes([Device("/dev/null", "/dev/x", "r")])
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/x", "c", 1, 3)
    rules = device_rules([Device("/dev/zero", "/z", "r")], ["c 42:* rw", "b 8:1 m"])
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert rules[-3:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"},
        {"allow": True, "type": "c", "major": 42, "access": "rw"},
        {"allow": True, "type": "b", "major": 8, "minor": 1, "access": "m"},
    ]
    assert device_rules((), (), everything=True) == [{"allow": True, "access": "rwm"}]
    for path, reason in (("/dev/nosuch", "no such file or directory"), (__file__, "not a device")):
        with pytest.raises(InvalidArgument, match=f'custom device "{path}": {reason}'):
            device_nodes([Device(path, path)])


@pytest.mark.requires_root
def test_a_directory_means_all_devices_below(tmp_path: Path) -> None:
    tmp_path.joinpath("deep").mkdir()
    os.mknod(tmp_path / "deep/one", 0o020600, os.makedev(1, 3))
    tmp_path.joinpath("file").touch()

    nodes = device_nodes([Device(str(tmp_path), "/dev/many")])

    assert [node["path"] for node in nodes] == ["/dev/many/deep/one"]


def test_the_hosts_devices_leave_out_the_containers_own() -> None:
    paths = {node["path"] for node in host_devices()}

    assert "/dev/null" in paths
    assert not any(path.startswith(("/dev/pts/", "/dev/shm/")) for path in paths)
    assert "/dev/console" not in paths


# --- --security-opt, --sysctl, --init -----------------------------------------------------------


def test_options_are_read_and_shown(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text('{ "defaultAction": "SCMP_ACT_ALLOW" }')

    got = with_options(
        Security(),
        [
            "no-new-privileges", f"seccomp={profile}", "systempaths=unconfined",
            "apparmor=x", "label=disable",
        ],
    )  # fmt: skip

    assert got.no_new_privileges
    assert got.unconfined_paths
    assert got.seccomp == '{"defaultAction":"SCMP_ACT_ALLOW"}'
    assert (got.apparmor, got.labels) == ("x", ("disable",))
    assert host_security(got)["SecurityOpt"] == [
        "no-new-privileges", f"seccomp={got.seccomp}", "apparmor=x", "label=disable",
    ]  # fmt: skip
    assert host_security(got)["MaskedPaths"] == []
    assert not with_options(Security(), ["no-new-privileges:false"]).no_new_privileges
    assert with_options(Security(), ["seccomp:unconfined"]).seccomp == "unconfined"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("foo", 'Invalid --security-opt: "foo"'),
        ("foo=1", 'invalid --security-opt 2: "foo=1"'),
        ("no-new-privileges=maybe", 'invalid --security-opt 2: "no-new-privileges=maybe"'),
        (
            "seccomp=/nosuch",
            "opening seccomp profile (/nosuch) failed: open /nosuch: no such file or directory",
        ),
        ("seccomp=/dev/null", "compacting json for seccomp profile (/dev/null) failed"),
    ],
)
def test_wrong_options_are_refused_in_dockers_words(option: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        with_options(Security(), [option])


def test_a_label_is_refused_where_it_would_mean_something(monkeypatch: pytest.MonkeyPatch) -> None:
    with_options(Security(), ["label=type:x"])  # no SELinux here: as in Docker it means nothing
    monkeypatch.setattr(os.path, "isdir", lambda path: True)
    with pytest.raises(NotSupported, match="containers are not labelled"):
        with_options(Security(), ["label=type:x"])
    assert with_options(Security(), ["label=disable"]).labels == ("disable",)


def test_a_sysctl_of_the_hosts_namespace_is_refused() -> None:
    net, ipc = Security(sysctls={"net.a": "1"}), Security(sysctls={"kernel.sem": "1"})
    for asked in (net, ipc):
        check_sysctls(asked, host_network=False, host_ipc=False)
    with pytest.raises(InvalidArgument, match=r'"net\.a" not allowed in host network namespace'):
        check_sysctls(net, host_network=True, host_ipc=False)
    with pytest.raises(InvalidArgument, match=r'"kernel\.sem" is not allowed in the hosts ipc'):
        check_sysctls(ipc, host_network=False, host_ipc=True)


def test_a_missing_init_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init_process, "search_path", lambda: "/nonexistent")
    with pytest.raises(NotSupported) as refusal:
        init_process.find_init()
    assert refusal.value.resolution == "apt-get install tini"


# --- seccomp profiles -------------------------------------------------------------------------


def test_rules_of_a_profile_hold_where_they_say() -> None:
    """By capability, by machine, by kernel."""

    def rule(name: str, **more: Any) -> dict[str, Any]:
        return {"names": [name], "action": "SCMP_ACT_ALLOW", **more}

    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            ],
            "syscalls": [
                rule("always", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}], comment="x"),
                rule("admin", includes={"caps": ["CAP_SYS_ADMIN"]}),
                rule("no_admin", excludes={"caps": ["CAP_SYS_ADMIN"]}),
                rule("elsewhere", includes={"arches": ["vax"]}),
                rule("not_on_vax", excludes={"arches": ["vax"]}),
                rule("new", includes={"minKernel": "4.8"}),
                rule("of_tomorrow", includes={"minKernel": "99.0"}),
                {"name": "old_form", "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            ],
        }
    )

    def names(*capabilities: str) -> list[str]:
        profile = convert(text, capabilities)
        assert profile is not None
        assert len(profile["architectures"]) == 2
        return [name for call in profile["syscalls"] for name in call["names"]]

    common = ["not_on_vax", "new", "old_form"]
    assert names() == ["always", "no_admin", *common]
    assert names("CAP_SYS_ADMIN") == ["always", "admin", *common]
    profile = convert(text, ())
    assert profile is not None
    assert profile["syscalls"][0] == {
        "names": ["always"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
    }  # fmt: skip
    assert convert("{}", ()) is None


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"defaultAction": "x", "architectures": ["a"], "archMap": [{}]}, "use either 'architec"),
        ({"syscalls": [{"name": "a", "names": ["b"], "action": "x"}]}, "use either 'name' or 'na"),
        ({"syscalls": [{"names": ["b"]}]}, "Decoding seccomp profile failed"),
        ([], "Decoding seccomp profile failed"),
    ],
)
def test_profiles_that_cannot_be_are_refused(tmp_path: Path, profile: Any, message: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(profile))

    with pytest.raises(InvalidArgument, match=message):
        read_profile(str(path))


# --- real containers --------------------------------------------------------------------------


def _status(text: str) -> dict[str, str]:
    return dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)


def test_a_container_has_dockers_rights(by_runtime: Boxes) -> None:
    """What a container of dockerd 20.10 finds: capabilities, filter, devices, mounts of /proc."""
    boxes = by_runtime
    wrote = boxes.sh(f"{STATUS}; ls /dev; mount | grep -E ' /(sys|proc)'")

    assert wrote.startswith(
        "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n"
        "CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n"
    )
    there = wrote.partition("Seccomp:\t2\n")[2].partition("\nproc on")[0].split()
    assert [name for name in there if name != "core"] == [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ]  # fmt: skip
    for line in (
        "proc on /proc type proc (rw,nosuid,nodev,noexec,relatime)",
        "sysfs on /sys type sysfs (ro,nosuid,nodev,noexec,relatime)",
    ):
        assert line in wrote
    for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"):
        assert re.search(rf"proc on {path} type proc \(ro,", wrote)
    for path in ("/proc/acpi", "/sys/firmware"):
        assert re.search(rf"tmpfs on {path} type tmpfs \(ro,", wrote)


def test_a_privileged_container_has_all_of_ours(by_runtime: Boxes) -> None:
    boxes = by_runtime
    ours = _status(Path("/proc/self/status").read_text())["CapBnd"]
    wrote = boxes.sh(
        f"{STATUS}; mount | grep -E ' /(sys|proc)'; ls /dev; touch /dev/shm/x; echo 1 > /dev/null",
        security=Security(privileged=True),
    )

    status = _status(wrote)
    assert status["CapEff"] == status["CapBnd"] == ours
    assert status["Seccomp"] == "0"
    assert "sysfs on /sys type sysfs (rw," in wrote
    assert " /proc/sys " not in wrote
    assert "loop-control" in wrote


def test_rights_are_taken_and_given(by_runtime: Boxes) -> None:
    """Also for what is executed later in the container."""
    asked = Security(
        cap_add=("net_raw",), cap_drop=("ALL",), no_new_privileges=True, seccomp="unconfined",
        group_add=("extra", "77"),
    )  # fmt: skip
    record = by_runtime.start("sleep", "60", security=asked)
    for process in ("1", "self"):
        inside = by_runtime.shell(record, f"cat /proc/{process}/status")
        status = {key: value.split() for key, value in _status(inside).items()}
        assert status["CapEff"] == status["CapBnd"] == ["0000000000002000"]
        assert status["NoNewPrivs"] == ["1"]
        assert status["Seccomp"] == ["0"]
        assert status["Groups"] == ["0", "77", "2000"]


def test_a_profile_of_the_users_filters(by_runtime: Boxes, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"],'
        ' "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}'
    )
    asked = with_options(Security(), [f"seccomp={path}"])

    assert "mkdir: can't create directory '/d': No space left" in by_runtime.sh(
        "mkdir /d; touch /x && echo went on", security=asked
    )


def test_a_read_only_root_can_be_written_only_where_it_was_asked_for(boxes: Boxes) -> None:
    from stowage.containers.mounts import Tmpfs

    wrote = boxes.sh(
        "for f in /x /etc/hosts /etc/hostname /run/x /dev/shm/x; do touch $f && echo ok $f; done",
        security=Security(read_only_root=True), tmpfs=(Tmpfs("/run"),),
    )  # fmt: skip

    assert wrote.count("Read-only file system") == 3
    assert [line for line in wrote.splitlines() if line.startswith("ok")] == [
        "ok /run/x", "ok /dev/shm/x",
    ]  # fmt: skip


def test_a_device_is_there_and_may_be_used_as_said(by_runtime: Boxes) -> None:
    """Read-only: opening it for writing is refused by the cgroup."""
    asked = Security(devices=(Device("/dev/fuse", "/dev/asked", "r"),))
    wrote = by_runtime.sh(
        "ls -l /dev/asked; true < /dev/asked && echo read; true > /dev/asked && echo written;"
        "mknod /m c 10 229; true < /m && echo by another name",
        security=asked,
    )

    assert re.match(r"crw.* 10, +229 .*/dev/asked", wrote)
    assert "\nread\n" in wrote
    assert "written" not in wrote
    assert "by another name" in wrote
    plain = by_runtime.sh("mknod /m c 10 229; true < /m && echo by another name")
    assert "Operation not permitted" in plain


def test_sysctls_are_set_in_the_containers_namespaces(by_runtime: Boxes) -> None:
    host = Path("/proc/sys/kernel/msgmax").read_text()
    wrote = by_runtime.sh(
        "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_default_ttl",
        security=Security(sysctls={"kernel.msgmax": "5555", "net.ipv4.ip_default_ttl": "33"}),
    )

    assert wrote.split() == ["5555", "33"]
    assert Path("/proc/sys/kernel/msgmax").read_text() == host


@pytest.mark.requires("containers")
def test_an_init_reaps_and_forwards(by_runtime: Boxes) -> None:
    """It is process 1, signals reach its child, and nobody's children do not stay zombies."""
    boxes, asked = by_runtime, Security(init=True)
    record = boxes.start(
        "sh", "-c", "trap 'exit 7' TERM; (sleep 0 &); while :; do sleep 0.05; done", security=asked
    )

    assert boxes.shell(record, "tr '\\0' ' ' < /proc/1/cmdline").startswith("/sbin/docker-init --")
    assert boxes.containers.diff(record.id) == []
    assert "Z" not in boxes.shell(record, "cat /proc/[0-9]*/stat | cut -d' ' -f3")
    boxes.containers.stop(record.id)
    assert boxes.containers.wait(record.id) == 7


def test_nothing_is_made_for_what_cannot_be(boxes: Boxes) -> None:
    for asked in (
        Security(cap_add=("FOO",)), Security(devices=(Device("/dev/nosuch", "/x"),)),
        Security(sysctls={"kernel.panic": "1"}),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument):
            boxes.containers.create(boxes.spec("true", security=asked))
    spec = boxes.spec(
        "true", network="host", security=Security(sysctls={"net.ipv4.ip_forward": "1"})
    )
    with pytest.raises(InvalidArgument, match="not allowed in host network namespace"):
        boxes.containers.create(spec)
    assert boxes.containers.list() == []
    assert boxes.leftovers() == []

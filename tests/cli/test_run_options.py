"""What ``run`` is asked becomes a specification, or an error in Docker's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from stowage.cli.environment import read_environment, read_labels
from stowage.cli.flags import UsageError, parse
from stowage.cli.run_options import CREATE_FLAGS, requested
from stowage.config_types import Ulimit
from stowage.containers.devices import Device
from stowage.containers.model import ContainerSpec
from stowage.containers.namespaces import Namespaces
from stowage.containers.resources import DeviceValue, Resources
from stowage.containers.security import Security
from stowage.errors import InvalidArgument, StowageError


def asked(*words: str, attached: bool = True) -> ContainerSpec:
    return requested(parse(CREATE_FLAGS, words, interspersed=False), attached=attached)


def test_everything_that_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each flag lands in its field."""
    monkeypatch.setenv("FROM_HERE", "yes")
    monkeypatch.delenv("NOT_HERE", raising=False)
    env_file = tmp_path / "env"
    env_file.write_text("# a comment\n\nA=file\nB=from file\nFROM_HERE\n")

    spec = asked(
        *("--name", "web", "-it", "--rm", "-e", "A=flag", "-e", "NOT_HERE", "--env-file"),
        *(str(env_file), "-w", "/work", "-u", "1:2", "-v", "/srv:/data:ro", "--network", "none"),
        *("-h", "box", "--entrypoint", "/bin/sh", "--storage-driver", "vfs", "--storage-opt"),
        *("size=1G", "-l", "a=1", "-l", "b", "--stop-signal", "INT", "--stop-timeout", "3"),
        *("busybox", "ls", "-l"),
    )

    assert spec.image == "busybox"
    assert spec.arguments == ("/bin/sh", "ls", "-l")
    assert spec.env == ("A=file", "B=from file", "FROM_HERE=yes", "A=flag")
    assert (spec.name, spec.hostname, spec.network, spec.user) == ("web", "box", "none", "1:2")
    assert (spec.tty, spec.open_stdin, spec.stdin_once, spec.auto_remove) == (True,) * 4
    assert [str(bind) for bind in spec.binds] == ["/srv:/data:ro"]
    assert spec.labels == {"a": "1", "b": ""}
    assert (spec.storage_driver, spec.storage_options) == ("vfs", ("size=1G",))
    assert (spec.stop_signal, spec.stop_timeout_seconds) == ("INT", 3)
    assert ContainerSpec.from_json(spec.to_json()) == spec


def test_rootfs_takes_the_place_of_the_image() -> None:
    """All arguments are the command then."""
    spec = asked("--rootfs", "/", "sh", "-c", "true")

    assert (spec.rootfs, spec.image) == (Path("/"), "")
    assert spec.command == ("sh", "-c", "true")


def test_an_empty_entrypoint_takes_the_images_away() -> None:
    """As ``--entrypoint ""`` does in Docker; without the flag the image's stays."""
    assert asked("--entrypoint", "", "busybox").entrypoint == ()
    assert asked("busybox").entrypoint is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-w", "relative", "i"), "the working directory 'relative' is invalid"),
        (("-h", "-bad-", "i"), "invalid hostname format: -bad-"),
        (("-v", "rel/ative:/x", "i"), "includes invalid characters for a local volume name"),
        (("-v", "/a:/x", "-v", "/b:/x", "i"), "Duplicate mount point: /x"),
        (("-v", "/a:/x", "--tmpfs", "/x", "i"), "Duplicate mount point: /x"),
        (("--mount", "type=x,dst=/x", "i"), 'config for type "x": mount type unknown'),
        (("--mount", "src=v1,dst=/x", "-v", "v2:/x", "i"), "Duplicate mount point: /x"),
        (("--volumes-from", "c:xx", "i"), "invalid mode: xx"),
        (("-l", "=x", "i"), "invalid label '=x': empty name"),
        (("--cap-add", "ALL", "--security-opt", "x", "i"), 'Invalid --security-opt: "x"'),
        (("--device", "null", "i"), "null is not an absolute path"),
        (("--env-file", "/nonexistent", "i"), "open /nonexistent: no such file"),
    ],
)
def test_wrong_values_are_refused_in_dockers_words(words: tuple[str, ...], message: str) -> None:
    """Before anything is made."""
    with pytest.raises(StowageError) as caught:
        asked(*words)

    assert message in caught.value.brief


def test_a_time_out_is_a_number_of_seconds() -> None:
    """-1 waits without end."""
    assert asked("--stop-timeout", "-1", "i").stop_timeout_seconds == -1
    with pytest.raises(UsageError, match='invalid argument "-2" for "--stop-timeout" flag'):
        asked("--stop-timeout", "-2", "i")


def test_a_bad_env_file_names_the_line(tmp_path: Path) -> None:
    """A name with a blank is a mistake, not a variable."""
    path = tmp_path / "env"
    for text, message in (
        ("A B=1", "variable 'A B' contains whitespaces"),
        ("=1", "no variable name on line '=1'"),
    ):
        path.write_text(text)
        with pytest.raises(InvalidArgument, match="poorly formatted environment") as caught:
            read_environment([str(path)], [], {})
        assert message in caught.value.brief
    assert read_labels(["x"]) == {"x": ""}


def test_limits_rights_and_namespaces_are_asked_for_by_dockers_flags() -> None:
    """Every flag reaches its field."""
    spec = asked(
        *("-m", "64m", "--memory-swap", "-1", "--memory-reservation", "32m", "--cpus", "1.5"),
        *("--memory-swappiness", "7", "-c", "512", "--cpu-period", "9000", "--cpu-quota", "8000"),
        *("--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "5", "--blkio-weight", "10"),
        *("--blkio-weight-device", "/dev/a:10", "--device-read-bps", "/dev/a:1kb"),
        *("--device-write-bps", "/dev/a:2", "--device-read-iops", "/dev/a:3"),
        *("--device-write-iops", "/dev/a:4", "--ulimit", "nofile=1:2", "--ulimit", "core=0"),
        *("--oom-score-adj", "-5", "--oom-kill-disable", "--shm-size", "1m"),
        *("--cgroup-parent", "/p", "i"),
    )

    assert spec.resources == Resources(
        memory_bytes=64 << 20, memory_swap_bytes=-1, memory_reservation_bytes=32 << 20,
        memory_swappiness=7, oom_kill_disable=True, nano_cpus=1_500_000_000, cpu_shares=512,
        cpu_period=9000, cpu_quota=8000, cpuset_cpus="0", cpuset_mems="0", pids_limit=5,
        blkio_weight=10, blkio_weight_device=(DeviceValue("/dev/a", 10),),
        device_read_bps=(DeviceValue("/dev/a", 1024),),
        device_write_bps=(DeviceValue("/dev/a", 2),), device_read_iops=(DeviceValue("/dev/a", 3),),
        device_write_iops=(DeviceValue("/dev/a", 4),), oom_score_adj=-5, shm_size_bytes=1 << 20,
        ulimits={"nofile": Ulimit(1, 2), "core": Ulimit(0, 0)}, cgroup_parent="/p",
    )  # fmt: skip
    spec = asked(
        *("--cap-add", "NET_ADMIN", "--cap-drop", "ALL", "--privileged", "--read-only"),
        *("--device", "/dev/null:r", "--device-cgroup-rule", "c 1:* r", "--group-add", "tty"),
        *("--sysctl", "net.a=1", "--init", "--security-opt", "no-new-privileges"),
        *("--pid", "host", "--ipc", "none", "--uts", "host", "--userns", "host"),
        *("--cgroupns", "private", "i"),
    )
    assert spec.security == Security(
        cap_add=("NET_ADMIN",), cap_drop=("ALL",), privileged=True, read_only_root=True,
        devices=(Device("/dev/null", "/dev/null", "r"),), device_cgroup_rules=("c 1:* r",),
        group_add=("tty",), sysctls={"net.a": "1"}, init=True, no_new_privileges=True,
        options=("no-new-privileges",),
    )  # fmt: skip
    assert spec.namespaces == Namespaces("host", "none", "host", "host", "private")


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("-m", "lots", """invalid argument "lots" for "-m, --memory" flag: invalid size: 'lots'"""),
        ("--cpus", "x", 'invalid argument "x" for "--cpus" flag: failed to parse x as a rational'),
        ("--ulimit", "x=1", 'invalid argument "x=1" for "--ulimit" flag: invalid ulimit type: x'),
        ("--sysctl", "a=1", """invalid argument "a=1" for "--sysctl" flag: sysctl 'a=1' is not"""),
        ("--mount", "x", """invalid argument "x" for "--mount" flag: invalid field 'x' must"""),
    ],
)
def test_a_wrong_value_names_its_flag(flag: str, value: str, message: str) -> None:
    """In pflag's words."""
    with pytest.raises(UsageError) as caught:
        asked(flag, value, "i")
    assert str(caught.value).startswith(message)

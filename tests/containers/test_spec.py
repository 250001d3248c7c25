"""config.json and the seccomp profile, against Docker's own output."""

from __future__ import annotations

import json
import platform

import pytest

from stowage.containers.accounts import Account
from stowage.containers.model import ContainerSpec
from stowage.containers.namespaces import Namespaces
from stowage.containers.resources import Resources
from stowage.containers.runtime import find_runtime, start_failure
from stowage.containers.seccomp import default_profile
from stowage.containers.security import CAPABILITIES, Security
from stowage.containers.spec import (
    Bundle,
    build_config,
    process_config,
    process_env,
)
from stowage.containers.volumes import Bind
from stowage.errors import NotSupported

#: include/uapi/linux/capability.h
_NUMBERS = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7,
    "SETPCAP": 8, "NET_BIND_SERVICE": 10, "NET_RAW": 13, "SYS_CHROOT": 18, "MKNOD": 27,
    "AUDIT_WRITE": 29, "SETFCAP": 31,
}  # fmt: skip


def bundle(**asked: object) -> Bundle:
    known = {
        "spec": ContainerSpec(command=("true",)), "account": Account(0, 0), "env": (),
        "working_dir": "/", "hostname": "h", "rootfs": "/r", "cgroup": "/stowage/x/y",
        "network_namespace": "/proc/1/fd/2",
    }  # fmt: skip
    return Bundle(**{**known, **asked})  # type: ignore[arg-type]  # fields by name


def test_a_missing_working_directory_is_told_as_runc_does() -> None:
    failure = start_failure("chdir `/nosuch`: No such file or directory", "x", "")
    assert failure.brief.startswith(
        'unable to start container process: chdir to cwd ("/nosuch") set in config.json failed:'
        " no such file or directory"
    )


def test_the_capabilities_are_dockers() -> None:
    bits = sum(1 << _NUMBERS[name.removeprefix("CAP_")] for name in CAPABILITIES)

    assert f"{bits:016x}" == "00000000a80425fb"


def test_a_user_who_is_not_root_holds_none() -> None:
    held = process_config(
        ("a",), (), "/", Account(5, 5, (6,)), tty=False, resources=Resources(), security=Security()
    )

    assert held["capabilities"]["effective"] == held["capabilities"]["permitted"] == []
    assert held["capabilities"]["bounding"] == list(CAPABILITIES)
    assert held["user"] == {"uid": 5, "gid": 5, "additionalGids": [5, 6]}


def test_host_network_names_no_namespace() -> None:
    def kinds(config: dict[str, dict[str, list[dict[str, str]]]]) -> set[str]:
        return {namespace["type"] for namespace in config["linux"]["namespaces"]}

    on_v2 = ContainerSpec(command=("true",), namespaces=Namespaces(cgroupns="private"))
    private, host = (bundle(), bundle(network_namespace=None, spec=on_v2))
    assert kinds(build_config(private)) == {"mount", "uts", "pid", "ipc", "network"}
    assert kinds(build_config(host)) == {"mount", "uts", "pid", "ipc", "cgroup"}


def test_parents_are_mounted_before_what_lies_below_and_binds_win() -> None:
    config = build_config(
        bundle(
            binds=(Bind("/b", "/data/deep"), Bind("/a", "/data"), Bind("/h", "/etc/hosts", True)),
            name_files={"/etc/hosts": "/own", "/etc/hostname": "/own2"},
        )
    )
    places = [mount["destination"] for mount in config["mounts"]]
    hosts = [mount for mount in config["mounts"] if mount["destination"] == "/etc/hosts"]

    assert places.index("/data") < places.index("/data/deep")
    assert [(mount["source"], "ro" in mount["options"]) for mount in hosts] == [("/h", True)]
    assert json.loads(json.dumps(config)) == config


def test_the_environment_is_in_dockers_order() -> None:
    env = process_env(("A=1",), Account(0, 0, (), "/root"), hostname="h", tty=True)

    assert [text.split("=")[0] for text in env] == ["PATH", "HOSTNAME", "TERM", "A", "HOME"]


# --- seccomp ----------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "s390x", "riscv64"])
def test_the_profile_follows_machine_and_capabilities(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    plain, admin = default_profile(CAPABILITIES), default_profile(["CAP_SYS_ADMIN"])
    assert plain is not None
    assert admin is not None

    def rules(profile: dict[str, list[dict[str, object]]], name: str) -> list[dict[str, object]]:
        return [rule for rule in profile["syscalls"] if name in rule["names"]]  # type: ignore[operator]  # lists of names

    assert rules(plain, "mount") == []
    assert len(rules(admin, "mount")) == 1
    assert len(rules(plain, "chroot")) == 1
    assert rules(admin, "chroot") == []
    (clone3,) = rules(plain, "clone3")
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    (clone,) = rules(plain, "clone")
    assert clone["args"][0]["index"] == (1 if machine == "s390x" else 0)  # type: ignore[index]  # a list
    assert bool(rules(plain, "arch_prctl")) == (machine == "x86_64")
    assert plain["defaultErrnoRet"] == 1


def test_an_unknown_machine_has_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")

    assert default_profile(CAPABILITIES) is None


# --- the runtime's words ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (
            "executable file `x` not found in $PATH: No such file or directory", 127,
            'unable to start container process: exec: "x": executable file not found in $PATH',
        ),
        (
            "executable file `/x` not found in $PATH: No such file or directory", 127,
            'unable to start container process: exec: "/x": stat /x: no such file or directory',
        ),
        (
            "open executable: Permission denied", 126,
            'unable to start container process: exec: "cmd": permission denied',
        ),
        (
            'runc run failed: unable to start container process: exec: "x": permission denied', 126,
            'unable to start container process: exec: "x": permission denied',
        ),
        ("mount `proc` to `/proc`: No such file or directory", 125, "mount `proc` to"),
    ],
)  # fmt: skip
def test_messages_of_the_runtimes_become_dockers(message: str, code: int, words: str) -> None:
    failure = start_failure(message, "cmd", "OCI runtime create failed: ")

    assert failure.exit_code == code
    assert failure.brief.startswith(f"OCI runtime create failed: {words}")


def test_a_missing_runtime_names_its_package(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, **how: None)

    with pytest.raises(NotSupported, match="apt-get install crun"):
        find_runtime(None, tmp_path)  # type: ignore[arg-type]  # pytest's
    with pytest.raises(NotSupported, match=r"'nosuch' .default-runtime. is not installed"):
        find_runtime("nosuch", tmp_path)  # type: ignore[arg-type]  # pytest's

"""Configuration comes from three sources, and everything wrong is said at once."""

from __future__ import annotations

import json
from ipaddress import IPv4Interface, ip_address, ip_network
from pathlib import Path

import pytest
from msgspec import NODEFAULT
from msgspec.structs import fields

from stowage.config import Config, Origin
from stowage.config_keys import KEYS, Disposition
from stowage.config_types import AddressPool, Runtime, Ulimit
from stowage.errors import InvalidConfig, NotFound


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "daemon.json"


def load(file: Path, content: object, **rest: object) -> Config:
    file.write_text(json.dumps(content))
    flags = rest.get("flags", {})
    environ = rest.get("environ", {})
    assert isinstance(flags, dict)
    assert isinstance(environ, dict)
    return Config.load(flags, environ, file)


def problems(file: Path, content: object, **rest: object) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        load(file, content, **rest)
    return list(caught.value.problems)


def test_defaults_need_no_file(tmp_path: Path) -> None:
    """An absent default file is no error; a named one is."""
    config = Config.load({}, {}, tmp_path / "none.json")

    assert config.data_root == Path("/var/lib/stowage")
    assert config.origin("data-root") == Origin("default")
    with pytest.raises(NotFound, match="does not exist"):
        Config.load({"config": str(tmp_path / "none.json")}, {}, None)
    with pytest.raises(NotFound, match="does not exist"):
        Config.load({}, {"STOWAGE_CONFIG": str(tmp_path / "none.json")}, None)


def test_flag_wins_over_environment_over_file(file: Path) -> None:
    """Each source hides the next, and the origin tells which."""
    content = {"mtu": 1300, "debug": True, "log-level": "warn"}
    environ = {"STOWAGE_MTU": "1400", "STOWAGE_STORAGE_DRIVER": "vfs"}

    config = load(file, content, environ=environ, flags={"storage-driver": "overlay"})

    assert (config.mtu, config.debug, config.storage_driver) == (1400, True, "overlay")
    assert str(config.origin("mtu")) == "environment STOWAGE_MTU"
    assert str(config.origin("storage-driver")) == "flag --storage-driver"
    assert str(config.origin("log-level")).startswith(f"file {file}:1:")


def test_a_directive_in_flag_and_file_is_refused_in_dockers_words(file: Path) -> None:
    """All such directives stand in one sentence."""
    content = {"hosts": ["unix:///a"], "debug": True}

    (problem,) = problems(file, content, flags={"host": ["unix:///b", "fd://"], "debug": True})

    assert problem == (
        "the following directives are specified both as a flag and in the configuration file:"
        " hosts: (from flag: [unix:///b fd://], from file: [unix:///a]),"
        " debug: (from flag: true, from file: true)"
    )


def test_every_problem_is_in_one_report(file: Path) -> None:
    """File, environment, flags and the checks between them."""
    content = {
        "storage-drivr": "vfs",
        "mtu": "1500",
        "userns-remap": "default",
        "bip": "172.30.0.0",
        "icc": False,
        "iptables": False,
    }

    found = "\n".join(
        problems(file, content, environ={"STOWAGE_SYNC": "maybe"}, flags={"log-level": "warm"})
    )

    assert f"{file}:1:2: unknown directive 'storage-drivr'; did you mean 'storage-driver'?" in found
    assert 'mtu: expected a whole number from 68 to 65535 (bytes), not the text "1500"' in found
    assert "write it without quotes" in found
    assert "userns-remap is refused" in found
    assert "invalid CIDR address: 172.30.0.0" in found
    assert "STOWAGE_SYNC: sync: expected one of filesystem, none" in found
    assert "--log-level: log-level: expected one of" in found
    assert "You specified --iptables=false with --icc=false." in found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"bip": "172.30.0.1/24", "fixed-cidr": "172.31.0.0/25"}, "fixed-cidr 172.31.0.0/25 lies"),
        ({"bip": "172.30.0.1/24", "default-gateway": "10.0.0.1"}, "default-gateway 10.0.0.1 lies"),
        ({"bip": "172.30.0.0/24"}, "is the network address"),
        ({"bip": "172.30.0.255/24"}, "is the broadcast address"),
        ({"bip": "172.30.0.1/31"}, "leaves no address"),
        ({"bip": "172.30.0.1/24", "bridge": "br0"}, "You specified -b & --bip"),
        ({"mtu": 60}, "from 68 to 65535"),
        ({"mtu": True}, "not true"),
        ({"mtu": 1500.0}, "not the number 1500.0"),
        ({"mtu": 1000, "ipv6": True}, "at least 1280"),
        ({"debug": "true"}, "without quotes"),
        ({"debug": None}, "not null"),
        ({"dns": "1.1.1.1"}, "expected a list"),
        ({"dns": ["1.1.1.1", "one"]}, 'item 2: expected an IP address, not the text "one"'),
        ({"data-root": "var/lib"}, "expected an absolute path"),
        ({"data-root": "/x", "exec-root": "/x"}, "a directory each"),
        ({"data-root": "/x/y", "exec-root": "/x"}, "lies within exec-root"),
        ({"default-address-pools": [{"base": "10.0.0.0/16", "size": 8}]}, "from 16 to 31"),
        ({"default-address-pools": [{"base": "10.0.0.0/16"}]}, "expected an object such as"),
        (
            {
                "default-address-pools": [
                    {"base": "10.0.0.0/8", "size": 24},
                    {"base": "10.1.0.0/16", "size": 24},
                ]
            },
            "overlap",
        ),
        ({"default-ulimits": {"nofile": {"Soft": 9, "Hard": 5}}}, "above the hard limit"),
        ({"default-shm-size": "64Q"}, "expected a size"),
        ({"runtimes": {"runc": {"path": "/x"}}}, "reserved"),
        ({"runtimes": {"r": {"path": "/x", "runtimeArgs": ["-v"]}}}, "not passed on"),
        ({"log-level": "warning"}, "did you mean 'warn'?"),
        ({"selinux-enabled": True}, "selinux-enabled is refused"),
        ({"authorization-plugins": ["x"]}, "authorization-plugins is refused"),
        ({"tlscert": "/c"}, "need each other"),
    ],
)
def test_a_wrong_value_says_what_was_expected(
    file: Path, content: dict[str, object], words: str
) -> None:
    """One problem, with the directive and what would be right."""
    (problem,) = problems(file, content)

    assert words in problem


def test_values_are_typed(file: Path) -> None:
    """Text becomes addresses, sizes and records once."""
    config = load(
        file,
        {
            "bip": "172.30.0.1/24",
            "fixed-cidr": "172.30.0.128/25",
            "default-address-pools": [{"base": "10.0.0.0/16", "size": 24}],
            "runtimes": {"mine": {"path": "/bin/x", "runtimeArgs": []}},
            "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 10, "Hard": 20}},
            "default-shm-size": "1G",
            "publish-allow": ["10.0.0.0/8"],
        },
        environ={"STOWAGE_DNS": "1.1.1.1, 2001:db8::1"},
    )

    assert config.bip == IPv4Interface("172.30.0.1/24")
    assert config.default_address_pools == (AddressPool(ip_network("10.0.0.0/16"), 24),)
    assert config.runtimes == {"mine": Runtime("/bin/x")}
    assert config.default_ulimits == {"nofile": Ulimit(10, 20)}
    assert config.default_shm_size == 1 << 30
    assert config.publish_allow == (ip_network("10.0.0.0/8"),)
    assert config.dns == (ip_address("1.1.1.1"), ip_address("2001:db8::1"))


def test_root_puts_both_places_under_it_and_over_the_file(file: Path, tmp_path: Path) -> None:
    """--root is a place, not a directive: it goes over the file; a finer flag goes over it."""
    content = {"data-root": "/elsewhere", "storage-driver": "vfs"}

    config = load(file, content, flags={"root": str(tmp_path)})

    assert (config.data_root, config.exec_root) == (tmp_path / "data", tmp_path / "exec")
    assert config.storage_driver == "vfs"
    assert str(config.origin("data-root")) == "flag --root"
    finer = Config.load({"root": str(tmp_path), "exec-root": "/run/x"}, {}, None)
    assert finer.exec_root == Path("/run/x")
    assert Config.for_root(tmp_path).data_root == tmp_path / "data"


def test_a_key_that_means_nothing_here_gives_one_warning(file: Path) -> None:
    """The warning says why; a refused key that asks for nothing passes."""
    config = load(file, {"live-restore": True, "userns-remap": "", "selinux-enabled": False})

    (warning,) = config.warnings
    assert "live-restore" in warning
    assert "outlive" in warning


def test_the_old_name_of_data_root_is_understood(file: Path) -> None:
    """Docker 20.10 takes ``graph``, but not beside the new name."""
    assert load(file, {"graph": "/srv"}).data_root == Path("/srv")
    (problem,) = problems(file, {"graph": "/srv", "data-root": "/x"})
    assert 'cannot specify both "graph" and "data-root"' in problem


def test_a_misspelt_variable_is_named(file: Path) -> None:
    """Not an error, for others may use the prefix."""
    config = load(file, {}, environ={"STOWAGE_STORAGE_DRIVR": "vfs", "STOWAGE_OBSERVERS": "x"})

    (warning,) = config.warnings
    assert "STOWAGE_STORAGE_DRIVR is not known; did you mean 'STOWAGE_STORAGE_DRIVER'?" in warning


def test_every_honoured_key_has_a_field_with_the_declared_default() -> None:
    """The table and the record are one."""
    record = {one.name: one for one in fields(Config)}
    for key in KEYS.values():
        if key.alias_of:
            continue
        if key.disposition in (Disposition.HONOURED, Disposition.KEPT):
            one = record.pop(key.field)
            factory = one.default_factory
            default = one.default if factory is NODEFAULT else factory()
            assert default == key.default, key.name
            assert key.meaning, key.name
        else:
            assert key.reason, key.name
            assert key.field not in record
    assert set(record) == {"warnings", "origins"}


DOCKER_20_10 = """
allow-nondistributable-artifacts api-cors-header authorization-plugins bip bridge builder
cgroup-parent cluster-advertise cluster-store cluster-store-opts containerd containerd-namespace
containerd-plugin-namespace cpu-rt-period cpu-rt-runtime cri-containerd data-root debug
default-address-pools default-cgroupns-mode default-gateway default-gateway-v6 default-init
default-ipc-mode default-runtime default-shm-size default-ulimits deprecated-key-path dns dns-opts
dns-search exec-opts exec-root experimental features fixed-cidr fixed-cidr-v6 graph group
host-gateway-ip hosts icc init init-path insecure-registries ip ip-forward ip-masq ip6tables
iptables ipv6 labels live-restore log-driver log-level log-opts max-concurrent-downloads
max-concurrent-uploads max-download-attempts metrics-addr mtu network-control-plane-mtu
network-diagnostic-port no-new-privileges node-generic-resources oom-score-adjust pidfile raw-logs
registry-mirrors resolv-conf rootless runtimes seccomp-profile selinux-enabled shutdown-timeout
storage-driver storage-opts swarm-default-advertise-addr swarm-raft-election-tick
swarm-raft-heartbeat-tick tls tlscacert tlscert tlskey tlsverify userland-proxy
userland-proxy-path userns-remap
""".split()  # noqa: SIM905  # ninety quoted names would hide the list
"""The JSON names of daemon/config/config.go and config_unix.go at v20.10."""


def test_every_key_of_docker_is_known() -> None:
    """Ours are the rest."""
    assert set(DOCKER_20_10) == {key.name for key in KEYS.values() if not key.ours}

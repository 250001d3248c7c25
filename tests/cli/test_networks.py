"""Ports and networks on the command line, against what dockerd 20.10 prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Run

Only = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.requires("containers", "conmon", "busybox")


@pytest.fixture
def web(stowage: Run) -> Iterator[str]:
    """A container of two published ports and one that is exposed alone."""
    done = stowage(
        "run", "-d", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1:5353:53/udp",
        "--expose", "9000", "busybox", "sleep", "100",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    yield done.line
    assert stowage("rm", "-f", "web").code == 0


@pytest.fixture
def only(stowage: Run) -> Only:
    """The one document that a command prints in a list."""

    def read(*words: str) -> dict[str, Any]:
        done = stowage(*words)
        assert done.code == 0, done.err
        (document,) = json.loads(done.out)
        assert isinstance(document, dict)
        return document

    return read


def test_ps_and_port_show_what_is_published(web: str, stowage: Run) -> None:
    ports = "9000/tcp, 127.0.0.1:5353->53/udp, 0.0.0.0:8080->80/tcp"
    assert stowage("ps", "--format", "{{.Names}} {{.Networks}} {{.Ports}}").out == (
        f"web bridge {ports}\n"
    )
    assert stowage("ps", "-q", "--filter", "network=host").out == ""
    assert stowage("port", "web").out == "53/udp -> 127.0.0.1:5353\n80/tcp -> 0.0.0.0:8080\n"
    assert (
        stowage("port", "web", "80").line == stowage("port", web, "80/tcp").line == "0.0.0.0:8080"
    )
    missing = stowage("port", "web", "53")
    assert (missing.code, missing.err) == (1, "Error: No public port '53/tcp' published for web\n")
    assert "Invalid port: x" in stowage("port", "web", "x").err


def test_inspect_shows_the_network_as_dockers(web: str, only: Only) -> None:
    """Keys and their order as in docker-behaviour/inspect-web.json."""
    document = only("inspect", "web")
    settings = document["NetworkSettings"]
    network = only("network", "inspect", "bridge")

    assert list(settings) == [
        "Bridge", "SandboxID", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen",
        "Ports", "SandboxKey", "SecondaryIPAddresses", "SecondaryIPv6Addresses", "EndpointID",
        "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen",
        "IPv6Gateway", "MacAddress", "Networks",
    ]  # fmt: skip
    assert settings["Ports"] == {
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}],
        "9000/tcp": None,
    }
    inside = settings["Networks"]["bridge"]
    assert list(inside) == [
        "IPAMConfig", "Links", "Aliases", "NetworkID", "EndpointID", "Gateway", "IPAddress",
        "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "MacAddress",
        "DriverOpts",
    ]  # fmt: skip
    assert settings["IPAddress"] == inside["IPAddress"] == "172.17.0.2"
    assert (inside["Gateway"], inside["IPPrefixLen"]) == ("172.17.0.1", 16)
    assert document["Config"]["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}, "9000/tcp": {}}
    assert document["HostConfig"]["NetworkMode"] == "default"
    assert document["HostConfig"]["PortBindings"] == {
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
    }
    assert network["Containers"] == {
        document["Id"]: {
            "Name": "web",
            "EndpointID": inside["EndpointID"],
            "MacAddress": "02:42:ac:11:00:02",
            "IPv4Address": "172.17.0.2/16",
            "IPv6Address": "",
        }
    }


def test_a_stopped_container_has_no_address(web: str, stowage: Run) -> None:
    assert stowage("stop", "-t", "0", "web").code == 0
    form = "{{.NetworkSettings.IPAddress}}|{{json .NetworkSettings.Ports}}"
    assert stowage("inspect", "-f", form, "web").line == "|{}"
    assert stowage("port", "web").out == ""
    assert stowage("ps", "-a", "--format", "{{.Names}}{{.Ports}}").line == "web"


def test_the_three_networks_are_there_from_the_start(stowage: Run, only: Only) -> None:
    listed = stowage("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").out
    assert listed == "bridge bridge local\nhost host local\nnone null local\n"
    assert stowage("network", "ls").out.startswith("NETWORK ID     NAME      DRIVER    SCOPE\n")
    document = only("network", "inspect", "bridge")
    assert list(document) == [
        "Name", "Id", "Created", "Scope", "Driver", "EnableIPv6", "IPAM", "Internal",
        "Attachable", "Ingress", "ConfigFrom", "ConfigOnly", "Containers", "Options", "Labels",
    ]  # fmt: skip
    assert document["IPAM"] == {
        "Driver": "default",
        "Options": None,
        "Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}],
    }
    missing = stowage("network", "inspect", "nosuch")
    assert (missing.code, missing.out, missing.err) == (
        1, "[]\n", "Error: No such network: nosuch\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("-p", "99999:80"), "Invalid hostPort: 99999"),
        (("-p", "abc:80"), "Invalid hostPort: abc"),
        (("-p", "8080-8081:80-82"), "Invalid ranges specified for container and host Ports"),
        (("--expose", "x"), "invalid range format for --expose: x"),
        (("--dns", "x"), 'invalid argument "x" for "--dns" flag: x is not an ip address'),
        (("--dns-search", "!"), "! is not a valid domain"),
        (("--add-host", "x"), 'bad format for add-host: "x"'),
        (("--add-host", "x:y"), 'invalid IP address in add-host: "y"'),
        (("--mac-address", "x"), "x is not a valid mac address"),
        (("--mac-address", "03:00:00:00:00:01"), "that of a group"),
        (("--ip", "172.17.0.9"), "supported on user defined networks only"),
        (("--network", "nosuch"), "network nosuch not found"),
        (("--network", "container:nosuch"), "No such container: nosuch"),
        (("--network", "container:"), "invalid container format container:<name|id>"),
    ],
)
def test_bad_wishes_are_refused_in_dockers_words(
    flags: tuple[str, ...], said: str, stowage: Run
) -> None:
    done = stowage("run", "--name", "bad", *flags, "busybox", "true")

    assert done.code == 125
    assert said in done.err
    assert stowage("ps", "-aq").out == ""


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--hostname", "x"), "hostname and the network mode"),
        (("--dns", "1.1.1.1"), "dns and the network mode"),
        (("--add-host", "a:1.1.1.1"), "custom host-to-IP mapping and the network mode"),
        (("--mac-address", "02:00:00:00:00:01"), "mac-address and the network mode"),
        (("-p", "80"), "port publishing and the container type network mode"),
        (("-P",), "port publishing and the container type network mode"),
        (("--expose", "80"), "port exposing and the container type network mode"),
    ],
)
def test_what_a_shared_network_cannot_have_is_refused(
    flags: tuple[str, ...], said: str, web: str, stowage: Run
) -> None:
    done = stowage("create", "--network", "container:web", *flags, "busybox", "true")

    assert (done.code, done.err.splitlines()[0]) == (125, f"stowage: conflicting options: {said}.")


@pytest.mark.parametrize("mode", ["host", "none"])
def test_ports_without_a_network_are_discarded_with_a_warning(mode: str, stowage: Run) -> None:
    done = stowage("run", "--rm", "--network", mode, "-p", "81:81", "busybox", "true")

    assert done.code == 0
    assert done.err == (f"WARNING: Published ports are discarded when using {mode} network mode\n")

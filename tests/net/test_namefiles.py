"""hosts, hostname and resolv.conf, against what Docker writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from stowage.net import namefiles
from stowage.net.namefiles import NameFiles


@pytest.fixture
def resolv_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(namefiles, "_HOST_RESOLV_CONF", file)
    monkeypatch.setattr(namefiles, "_BEHIND_STUB", tmp_path / "behind")
    return file


def test_hosts_is_dockers() -> None:
    """docker-behaviour/web-etc-hosts.txt, with the container's own line last."""
    text = NameFiles("box", addresses=["172.30.0.2"]).hosts()

    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    assert text.endswith("ff02::2\tip6-allrouters\n172.30.0.2\tbox\n")
    assert NameFiles("b", "dom.ain", ["10.0.0.1"]).hosts().endswith("10.0.0.1\tb.dom.ain b\n")
    assert NameFiles("b.dom.ain", "", ["10.0.0.1"]).hosts().endswith("10.0.0.1\tb.dom.ain b\n")


def test_extra_hosts_stand_before_the_containers_own_line() -> None:
    """As dockerd's; on the host's network they take the place of the host's file."""
    files = NameFiles("box", addresses=["10.0.0.2"], extra_hosts=[("db", "10.0.0.9")])

    assert files.hosts().endswith("ip6-allrouters\n10.0.0.9\tdb\n10.0.0.2\tbox\n")
    on_host = NameFiles("box", extra_hosts=[("db", "10.0.0.9")], host_network=True)
    assert on_host.hosts().endswith("ip6-allrouters\n10.0.0.9\tdb\n")


def test_the_hosts_network_has_the_hosts_files(resolv_conf: Path) -> None:
    resolv_conf.write_text("# kept\nnameserver 127.0.0.53\n")
    files = NameFiles("box", host_network=True)

    assert files.hosts() == Path("/etc/hosts").read_text()
    assert files.resolv_conf() == "# kept\nnameserver 127.0.0.53\n"


@pytest.mark.parametrize(
    ("host", "files", "text"),
    [
        ("nameserver 10.0.0.1\nsearch a b\noptions ndots:2\n", NameFiles("x"),
         "nameserver 10.0.0.1\nsearch a b\noptions ndots:2\n"),
        ("nameserver 127.0.0.1\nnameserver 10.0.0.1\nnameserver ::1\n", NameFiles("x"),
         "nameserver 10.0.0.1\n"),
        ("search old\nsearch new\n", NameFiles("x"),
         "nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch new\n"),
        ("nameserver 10.0.0.1\nsearch a\n",
         NameFiles("x", nameservers=["9.9.9.9"], search=["s"]), "search s\nnameserver 9.9.9.9\n"),
        ("search a\n", NameFiles("x", search=["."], nameservers=["9.9.9.9"]),
         "nameserver 9.9.9.9\n"),
        ("nameserver 127.0.0.53\n", NameFiles("x"), "nameserver 10.9.9.9\n"),
        ("nameserver\nnameserver fe80::1%eth0\n", NameFiles("x"), "nameserver fe80::1%eth0\n"),
    ],
)  # fmt: skip
def test_only_servers_that_can_be_reached_are_left(
    resolv_conf: Path, host: str, files: NameFiles, text: str
) -> None:
    resolv_conf.write_text(host)
    resolv_conf.with_name("behind").write_text("nameserver 10.9.9.9\n")

    assert files.resolv_conf() == text


def test_the_files_are_written_and_named(tmp_path: Path) -> None:
    places = NameFiles("box").write(tmp_path)

    assert sorted(places) == ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
    assert Path(places["/etc/hostname"]).read_text() == "box\n"

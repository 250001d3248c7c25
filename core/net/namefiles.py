"""``/etc/hosts``, ``/etc/hostname`` and ``/etc/resolv.conf`` of a container, as Docker has them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from ..effects import effect

_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_HOST_RESOLV_CONF = Path("/etc/resolv.conf")
#: Where systemd-resolved keeps the real servers when resolv.conf names only its stub.
_BEHIND_STUB = Path("/run/systemd/resolve/resolv.conf")
#: Docker's: what is asked where the host names no server that a container reaches.
_LAST_RESORT = ("8.8.8.8", "8.8.4.4")
NAMES = ("hosts", "hostname", "resolv.conf")


class NameFiles(Struct, frozen=True):
    """What the three files say.

    *host_network* copies the host's own files as they are; else *addresses* are the
    container's, and the host's name servers that only the host reaches (loopback) are left out.
    *extra_hosts* are (name, address). *nameservers*, *search* and *options* override the host's,
    where given.
    """

    hostname: str
    domainname: str = ""
    addresses: Sequence[str] = ()
    nameservers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()
    extra_hosts: Sequence[tuple[str, str]] = ()
    host_network: bool = False

    def write(self, directory: Path) -> dict[str, str]:
        """Write the files into *directory*; returns container path → host path for the mounts."""
        contents = (self.hosts(), f"{self.hostname}\n", self.resolv_conf())
        with effect("container.write_name_files", path=directory):
            for name, text in zip(NAMES, contents, strict=True):
                directory.joinpath(name).write_text(text)
        return {f"/etc/{name}": str(directory / name) for name in NAMES}

    def hosts(self) -> str:
        """Return the text of ``/etc/hosts``."""
        if self.host_network and not self.extra_hosts:
            return _read(Path("/etc/hosts")) or _HOSTS
        whole = f"{self.hostname}.{self.domainname}" if self.domainname else self.hostname
        first, dot, _ = whole.partition(".")
        names = f"{whole} {first}" if dot else whole
        lines = [f"{address}\t{name}\n" for name, address in self.extra_hosts]
        lines += [f"{address}\t{names}\n" for address in self.addresses]
        return _HOSTS + "".join(lines)

    @property
    def _overrides(self) -> bool:
        return bool(self.nameservers or self.search or self.options)

    def resolv_conf(self) -> str:
        """Return the text of ``/etc/resolv.conf``."""
        host = _read(_HOST_RESOLV_CONF)
        if self.host_network and not self._overrides:
            return host
        if not _nameservers(host) and _loopback_nameservers(host):
            host = _read(_BEHIND_STUB) or host
        nameservers = self.nameservers or _nameservers(host) or _LAST_RESORT
        search = self.search or _values(host, "search")
        lines = [f"nameserver {address}" for address in nameservers]
        if search and tuple(search) != (".",):  # Docker: "." means none
            lines.insert(0 if self._overrides else len(lines), "search " + " ".join(search))
        if options := self.options or _values(host, "options"):
            lines.append("options " + " ".join(options))
        return "".join(f"{line}\n" for line in lines)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _values(text: str, keyword: str) -> list[str]:
    """The words after *keyword*; the last line that has it counts (resolv.conf(5))."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [keyword]:
            found = words[1:]
    return found


def _servers(text: str) -> list[str]:
    lines = (line.split() for line in text.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def _nameservers(text: str) -> list[str]:
    return [server for server in _servers(text) if not _loopback(server)]


def _loopback_nameservers(text: str) -> list[str]:
    return [server for server in _servers(text) if _loopback(server)]


def _loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False

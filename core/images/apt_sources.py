"""Where this machine gets its Debian packages: what apt is told in sources.list(5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from ..errors import NotSupported


class PackageSource(Struct, frozen=True):
    """A source of Debian packages; *options* are debootstrap's for its signatures."""

    uri: str
    options: tuple[str, ...] = ()


def package_source(suite: str, apt: Path = Path("/etc/apt")) -> PackageSource:
    """Return the first source of *suite* with the component main that apt has on this machine.

    Reads ``sources.list`` and ``sources.list.d/`` in both formats (sources.list(5)).

    Raises:
        NotSupported: if there is none.
    """
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        sources = _deb822(text) if file.suffix == ".sources" else _one_line(text)
        for uri, suites, components, options in sources:
            if suite in suites and "main" in components:
                return PackageSource(uri, _signature_options(options))
    raise NotSupported(
        f"cannot make a Debian image: apt has no source for {suite}",
        details=f"looked in {apt}/sources.list and {apt}/sources.list.d",
        resolution="add one, or name a suite that there is one for",
    )


_Source = tuple[str, list[str], list[str], dict[str, str]]


def _one_line(text: str) -> Iterator[_Source]:
    """``deb [signed-by=…] URI suite component…``"""
    for line in text.splitlines():
        words = line.partition("#")[0].replace("]", " ] ").replace("[", " [ ").split()
        if not words or words[0] != "deb":
            continue
        options: dict[str, str] = {}
        if "]" in words:
            end = words.index("]")
            options = {
                key.lower(): value
                for key, _, value in (word.partition("=") for word in words[2:end])
            }
            words = [words[0], *words[end + 1 :]]
        if len(words) >= 4:
            yield words[1], [words[2]], words[3:], options


def _deb822(text: str) -> Iterator[_Source]:
    """``Types: deb``, ``URIs: …``, ``Suites: …``, ``Components: …`` in paragraphs."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for paragraph in "\n".join(lines).split("\n\n"):
        fields: dict[str, str] = {}
        key = ""
        for line in paragraph.splitlines():
            if line[:1].isspace() and key:
                fields[key] += " " + line.strip()
            else:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        uris = fields.get("uris", "").split()
        disabled = fields.get("enabled", "yes").lower() in ("no", "false")
        if uris and not disabled and "deb" in fields.get("types", "").split():
            yield (
                uris[0],
                fields.get("suites", "").split(),
                fields.get("components", "").split(),
                fields,
            )


def _signature_options(options: dict[str, str]) -> tuple[str, ...]:
    if options.get("trusted", "no").lower() in ("yes", "true"):
        return ("--no-check-gpg",)
    keyring = options.get("signed-by", "")
    if keyring.startswith("/") and Path(keyring).is_file():
        return (f"--keyring={keyring}",)
    return ()

"""The busybox archive is reproducible and whole; apt's sources are understood in both formats."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from stowage.errors import NotSupported
from stowage.images.apt_sources import PackageSource, package_source
from stowage.images.bootstrap import applets, find_busybox, needs_interpreter, write_busybox


def archive() -> bytes:
    out = io.BytesIO()
    write_busybox(find_busybox(), out)
    return out.getvalue()


def test_the_busybox_archive_is_the_same_each_time() -> None:
    assert archive() == archive()


def test_the_busybox_archive_is_a_root_file_system() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive())) as opened:
        members = {member.name: member for member in opened}

    assert members["bin/busybox"].mode == 0o755
    assert members["bin/busybox"].size == find_busybox().stat().st_size
    assert members["tmp"].mode == 0o1777
    assert members["root"].mode == 0o700
    assert members["bin/sh"].linkname == "/bin/busybox"
    assert {"etc/passwd", "etc/group", "bin/ls", "usr/bin/id"} <= set(members)
    assert all(member.uid == member.gid == member.mtime == 0 for member in members.values())


def test_a_directory_stands_before_what_is_in_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive())) as opened:
        names = opened.getnames()

    assert names[0] == "."
    seen: set[str] = {"."}
    for name in names:
        assert name.rpartition("/")[0] in seen | {""}
        seen.add(name)


def test_every_applet_is_in_a_directory_of_the_image() -> None:
    found = applets(find_busybox())

    assert "bin/sh" in found
    assert all(name.startswith(("bin/", "sbin/", "usr/bin/", "usr/sbin/")) for name in found)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: None)

    with pytest.raises(NotSupported, match="busybox-static"):
        find_busybox()


def test_a_busybox_with_shared_libraries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: "/bin/ls")

    assert needs_interpreter(Path("/bin/ls"))
    with pytest.raises(NotSupported, match="not linked statically"):
        find_busybox()


# --- apt's sources -----------------------------------------------------------------------------


def apt(root: Path, **files: str) -> Path:
    (root / "sources.list.d").mkdir()
    for name, text in files.items():
        place = "sources.list" if name == "list" else f"sources.list.d/x.{name}"
        (root / place).write_text(text)
    return root


def test_a_one_line_source_is_understood(tmp_path: Path) -> None:
    text = (
        "# deb http://mirror.example/commented bookworm main\n"
        "deb-src http://mirror.example/source bookworm main\n"
        "deb [arch=amd64 trusted=yes] http://mirror.example/debian bookworm main contrib # why\n"
    )

    assert package_source("bookworm", apt(tmp_path, list=text)) == PackageSource(
        "http://mirror.example/debian", ("--no-check-gpg",)
    )


def test_a_deb822_source_is_understood(tmp_path: Path) -> None:
    keyring = tmp_path / "keyring.gpg"
    keyring.write_text("")
    text = (
        "Types: deb\nURIs: http://mirror.example/other\nSuites: sid\nComponents: main\n\n"
        "Types: deb\nEnabled: no\nURIs: http://mirror.example/off\nSuites: bookworm\n"
        "Components: main\n\n"
        "# a comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian\n"
        f"Suites: bookworm\n bookworm-updates\nComponents: main\nSigned-By: {keyring}\n"
    )

    assert package_source("bookworm", apt(tmp_path, sources=text)) == PackageSource(
        "http://mirror.example/debian", (f"--keyring={keyring}",)
    )


def test_a_suite_without_a_source_is_refused(tmp_path: Path) -> None:
    text = "deb http://mirror.example/debian bookworm contrib\n"

    with pytest.raises(NotSupported, match="apt has no source for bookworm"):
        package_source("bookworm", apt(tmp_path, list=text))

"""A Debian system is put together out of sight, tidied, packed, and leaves nothing behind.

debootstrap itself is replaced by a script that leaves what it is known to leave: mounts, device
nodes, downloaded packages and what it copied from the host.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.errors import NotSupported, Unavailable
from stowage.images import debootstrap
from stowage.images.apt_sources import PackageSource
from stowage.images.bootstrap import busybox, debian
from stowage.images.service import Images
from stowage.linux.mountinfo import read_mountinfo

pytestmark = pytest.mark.requires_root

SCRIPT = """#!/bin/sh
set -e
for last; do target=$mirror; mirror=$last; done
cd "$target"
mkdir -p dev proc run sys tmp var/cache/apt/archives var/lib/apt/lists var/tmp var/log/apt \\
    etc/apt/apt.conf.d usr/sbin bin
mknod dev/null c 1 3
mount -t tmpfs left "$PWD/proc"
touch proc/left var/cache/apt/archives/x.deb var/lib/apt/lists/x
echo log > var/log/apt/history.log
hostname > etc/hostname; echo id > etc/machine-id; ln -s /run/resolv.conf etc/resolv.conf
echo "deb $mirror" > etc/apt/sources.list
echo sh > bin/sh; chmod 755 bin/sh
echo "I: Base system installed successfully."
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the script in the place of debootstrap, and a mirror in that of apt's."""
    script = tmp_path / "bin/debootstrap"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    source = PackageSource("http://mirror.example/debian")
    monkeypatch.setattr(debootstrap, "package_source", lambda suite: source)
    return script


@pytest.fixture(params=["tmpfs", "directory"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With memory to spare for a tmpfs, and without."""
    available = 1 << 40 if request.param == "tmpfs" else 0
    monkeypatch.setattr(debootstrap, "_available_bytes", lambda: available)
    return str(request.param)


def test_the_system_is_tidied_and_packed(
    images: Images, engine: Engine, fake: Path, memory: str
) -> None:
    told: list[str] = []
    mounts = len(read_mountinfo())
    before = sorted(engine.layout.data_root.iterdir())
    image = debian(images, tell=told.append)
    out = io.BytesIO()
    engine.layers.export(str(image.top), out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        files = {member.name.removeprefix("./"): member for member in archive}
        hostname = archive.extractfile(files["etc/hostname"])
        assert hostname is not None
        assert hostname.read() == b""

    assert image.tags == ("debian:bookworm",)
    assert image.config.config.cmd == ("bash",)
    assert "I: Base system installed successfully." in told
    assert {"dev", "proc", "var/cache/apt", "etc/apt/sources.list", "bin/sh"} <= set(files)
    assert {"dev/null", "proc/left", "var/lib/apt/lists/x", "var/log/apt/history.log"}.isdisjoint(
        files
    )
    assert files["etc/resolv.conf"].isreg()
    assert files["usr/sbin/policy-rc.d"].mode == 0o755
    assert len(read_mountinfo()) == mounts
    assert sorted(engine.layout.data_root.iterdir()) == before


def test_a_failure_tells_the_end_of_the_log_and_leaves_nothing(
    images: Images, engine: Engine, fake: Path, memory: str
) -> None:
    fake.write_text(SCRIPT.replace('echo "I:', "echo 'E: no such package'; exit 3; echo \"I:"))
    before = sorted(engine.layout.data_root.iterdir())

    with pytest.raises(Unavailable, match="exit code 3") as caught:
        debian(images)
    assert "E: no such package" in str(caught.value)
    assert sorted(engine.layout.data_root.iterdir()) == before
    assert images.list() == []


def test_a_missing_debootstrap_is_named_with_its_package(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(NotSupported, match="apt-get install debootstrap"):
        debian(images)


def test_busybox_made_twice_is_the_same_image(images: Images, engine: Engine) -> None:
    first, second = busybox(images), busybox(images)
    assert first.top is not None
    engine.layers.view("look", first.top)

    assert first.id == second.id
    with engine.layers.mounted("look") as root:
        assert os.readlink(root / "bin/sh") == "/bin/busybox"
        assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    engine.layers.remove("look")

"""``cp``: into and out of containers that run and that do not, and what hostile ones try."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stowage.containers.model import ContainerRecord
from stowage.containers.mounts import mounts_of
from stowage.errors import FailedPrecondition, InvalidArgument, NotFound

from .boxes import Boxes

Make = Callable[..., ContainerRecord]


@pytest.fixture
def box(boxes: Boxes, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make the container "box" whose root has what a script makes there."""

    def make(script: str = "true", *, running: bool, **asked: Any) -> ContainerRecord:
        record = boxes.start("sh", "-c", f"{script}; touch /ready; sleep 100", name="box", **asked)
        while "ready" not in boxes.shell(record, "ls /"):
            pass
        if not running:
            boxes.containers.stop(record.id, 0)
        return record

    yield make
    boxes.clear()
    for volume in boxes.engine.volumes.list():
        boxes.engine.volumes.remove(volume.name)


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


both = pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])


@both
def test_a_tree_goes_in_and_comes_out_the_same(
    boxes: Boxes, box: Make, tmp_path: Path, running: bool
) -> None:
    tree = tmp_path / "tree"
    tree.joinpath("sub").mkdir(parents=True)
    tree.joinpath("sub/file").write_text("inside\n")
    tree.joinpath("sub/file").chmod(0o640)
    os.chown(tree / "sub/file", 1000, 1001)
    tree.joinpath("link").symlink_to("sub/file")
    tree.joinpath(".wh.odd").write_text("no mark")
    os.link(tree / "sub/file", tree / "again")
    record = box(running=running)
    containers = boxes.containers

    containers.copy_in("box", str(tree), "/new")
    containers.copy_in("box", str(tree), "/tmp")
    containers.copy_in("box", f"{tree}/.", "/home")
    for inside, name in (("/new", "new"), ("/tmp/tree", "tree2"), ("/home/.", "home")):
        containers.copy_out("box", inside, str(tmp_path / name), keep_owner=True)
        assert names(tmp_path / name) == names(tree)
    out = tmp_path / "new/sub/file"
    assert (out.read_text(), out.stat().st_mode & 0o777) == ("inside\n", 0o640)
    assert (out.stat().st_uid, out.stat().st_nlink) == (1000, 2)
    assert os.readlink(tmp_path / "new/link") == "sub/file"
    containers.copy_out("box", "/new/sub/file", str(tmp_path / "mine"))
    assert tmp_path.joinpath("mine").stat().st_uid == os.geteuid()
    if running:
        assert boxes.shell(record, "cat /new/link; stat -c %u:%g /new/again") == (
            "inside\n1000:1001\n"
        )


@both
def test_volumes_binds_and_tmpfs_are_seen(
    boxes: Boxes, box: Make, tmp_path: Path, running: bool
) -> None:
    """A tmpfs only while it is there."""
    tmp_path.joinpath("bound").mkdir()
    asked = mounts_of(["vol:/v", f"{tmp_path}/bound:/b", "ro:/ro:ro"], [], ["/t"])
    mounts = {"binds": asked.binds, "volumes": asked.volumes, "tmpfs": asked.tmpfs}
    box("echo v > /v/file; echo t > /t/file", running=running, **mounts)
    file = tmp_path / "file"
    file.write_text("copied\n")

    boxes.containers.copy_in("box", str(file), "/v/in")
    boxes.containers.copy_in("box", str(file), "/b")
    assert boxes.engine.volumes.path("vol").joinpath("in").read_text() == "copied\n"
    assert tmp_path.joinpath("bound/file").read_text() == "copied\n"
    boxes.containers.copy_out("box", "/v/file", str(tmp_path / "v"))
    assert tmp_path.joinpath("v").read_text() == "v\n"
    with pytest.raises(FailedPrecondition, match="mounted volume is marked read-only"):
        boxes.containers.copy_in("box", str(file), "/ro/file")
    if running:
        boxes.containers.copy_out("box", "/t/file", str(tmp_path / "t"))
        assert tmp_path.joinpath("t").read_text() == "t\n"


@both
def test_links_in_a_container_never_lead_to_the_host(
    boxes: Boxes, box: Make, tmp_path: Path, running: bool
) -> None:
    """Absolute, climbing, through /proc; as source, as destination, and in between."""
    secret = tmp_path / "secret"
    secret.mkdir()
    secret.joinpath("file").write_text("of the host")
    box(
        f"ln -s {secret} /abs; ln -s ../../../../../..{secret} /up; ln -s /proc/self/root /self;"
        f"ln -s {secret}/file /tofile; mkdir /d; ln -s {secret} /d/sub",
        running=running,
    )
    containers = boxes.containers
    file = tmp_path / "file"
    file.write_text("x")

    for inside in ("/abs/file", "/up/file", f"/self{secret}/file", "/d/sub/file", "/abs/"):
        with pytest.raises(NotFound, match="No such container:path"):
            containers.copy_out("box", inside, str(tmp_path / "out"))
    with pytest.raises(NotFound):
        containers.copy_out("box", "/tofile", str(tmp_path / "out"), follow=True)
    containers.copy_out("box", "/tofile", str(tmp_path / "out"))
    assert os.readlink(tmp_path / "out") == f"{secret}/file"
    for inside in ("/abs/new", "/up/new", "/abs", "/d/sub/new"):
        try:
            containers.copy_in("box", str(file), inside)
        except (NotFound, FailedPrecondition):
            pass
    hostile = tmp_path / "hostile"
    hostile.joinpath("sub").mkdir(parents=True)
    hostile.joinpath("sub/new").write_text("x")
    with pytest.raises(FailedPrecondition, match="cannot overwrite non-directory"):
        containers.copy_in("box", f"{hostile}/.", "/d")
    assert names(secret) == ["file"]
    assert secret.joinpath("file").read_text() == "of the host"


def test_an_archive_from_a_container_stays_where_it_goes(
    boxes: Boxes, box: Make, tmp_path: Path
) -> None:
    """A link that the container has put where a directory is to come."""
    outside = tmp_path / "outside"
    outside.mkdir()
    box(f"mkdir -p /src/sub; echo x > /src/sub/file; ln -s {outside} /src/alink", running=True)
    target = tmp_path / "target"
    target.mkdir()
    target.joinpath("src").mkdir()
    target.joinpath("src/sub").symlink_to(outside)

    with pytest.raises(FailedPrecondition, match="cannot overwrite non-directory"):
        boxes.containers.copy_out("box", "/src", str(target))
    assert names(outside) == []


def test_archives_go_through_streams(boxes: Boxes, box: Make, tmp_path: Path) -> None:
    record = box("mkdir /src; echo one > /src/file", running=True)
    out = io.BytesIO()
    boxes.containers.copy_out("box", "/src", out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert tar.getnames() == ["src", "src/file"]

    out.seek(0)
    boxes.containers.copy_in("box", out, "/tmp")
    assert boxes.shell(record, "cat /tmp/src/file") == "one\n"
    with pytest.raises(InvalidArgument, match='destination "box:/src/file" must be a directory'):
        boxes.containers.copy_in("box", io.BytesIO(), "/src/file")


def test_what_is_missing_is_named_in_dockers_words(boxes: Boxes, box: Make, tmp_path: Path) -> None:
    box(running=False)
    containers, file = boxes.containers, tmp_path / "file"
    file.write_text("x")

    def refusal(act: Callable[[], object]) -> str:
        with pytest.raises((NotFound, FailedPrecondition)) as caught:
            act()
        return caught.value.brief

    copy_in, copy_out = containers.copy_in, containers.copy_out
    missing = "No such container:path: box:/no"
    assert refusal(lambda: copy_out("box", "/no", str(tmp_path))) == missing
    assert refusal(lambda: copy_in("box", str(file), "/no/dir/")) == "no such directory"
    assert refusal(lambda: copy_in("box", str(file), "/no/x")) == missing
    assert refusal(lambda: copy_in("box", f"{file}x", "/")) == (
        f"lstat {file}x: no such file or directory"
    )
    assert refusal(lambda: copy_in("box", str(tmp_path), "/ready")) == "cannot copy directory"
    assert refusal(lambda: copy_out("box", "/etc", f"{tmp_path}/no/dir")) == (
        f'invalid output path: directory "{tmp_path}/no" does not exist'
    )
    assert refusal(lambda: copy_out("box", "/etc/passwd/", str(tmp_path))).endswith(
        "is not a directory"
    )
    tmp_path.joinpath("etc").write_text("a file")
    assert "cannot overwrite non-directory" in refusal(
        lambda: copy_out("box", "/etc", str(tmp_path))
    )


def test_a_read_only_root_is_not_written(boxes: Boxes, box: Make, tmp_path: Path) -> None:
    from stowage.containers.security import Security

    record = boxes.containers.create(boxes.spec("true", security=Security(read_only_root=True)))
    file = tmp_path / "file"
    file.write_text("x")

    with pytest.raises(FailedPrecondition, match="container rootfs is marked read-only"):
        boxes.containers.copy_in(record.id, str(file), "/file")


def test_a_large_file_streams(boxes: Boxes, box: Make, tmp_path: Path) -> None:
    """More than the readers keep in memory at once, to be unpacked by a process of its own."""
    large = tmp_path / "large"
    with open(large, "wb") as file:
        for number in range(24):
            file.write(bytes([number]) * (1 << 20))
    box(running=False)

    boxes.containers.copy_in("box", str(large), "/large")
    boxes.containers.copy_out("box", "/large", str(tmp_path / "back"))
    assert tmp_path.joinpath("back").read_bytes() == large.read_bytes()

"""diff and commit, also of a running container; a host's directory as the root."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from stowage.containers.volumes import parse_bind
from stowage.errors import Busy, InvalidArgument, NotFound, NotSupported
from stowage.linux.mount import attach, move, unmount
from stowage.model import Mount

from .boxes import Boxes, busybox_tree

DRIVERS = ["overlay", "vfs"]


def changes(boxes: Boxes, reference: str) -> list[str]:
    return [
        f"{change.kind.letter} {change.path.decode()}"
        for change in boxes.containers.diff(reference)
    ]


@pytest.mark.parametrize("driver", DRIVERS)
def test_diff_shows_what_it_did_and_no_mount_target(
    boxes: Boxes, driver: str, tmp_path: Path
) -> None:
    script = "echo x > /new; rm /etc/group; mkdir /tmp/d; echo y > /data/in-the-volume"
    binds = (parse_bind(f"{tmp_path}:/data"),)
    boxes.run(
        "sh", "-c", script, storage_driver=driver, binds=binds, name="done", auto_remove=False
    )

    assert changes(boxes, "done") == ["C /etc", "D /etc/group", "A /new", "C /tmp", "A /tmp/d"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_running_container_is_diffed_and_committed(boxes: Boxes, driver: str) -> None:
    record = boxes.start("sh", "-c", "echo one > /one; sleep 60", storage_driver=driver)
    while "A /one" not in changes(boxes, record.id):
        pass
    image = boxes.containers.commit(
        record.id,
        "committed",
        message="why",
        author="me",
        changes=["ENV A=1", 'CMD ["cat", "/one"]'],
    )

    assert not boxes.cgroup(record).frozen
    assert boxes.shell(record, "echo goes on") == "goes on\n"
    assert image.config.config.cmd == ("cat", "/one")
    assert "A=1" in image.config.config.env
    again = boxes.run(image="committed", storage_driver=driver)
    assert again.stdout == b"one\n"


def test_a_commit_is_of_one_instant(boxes: Boxes) -> None:
    """Two files that are written one after the other never differ by more than one step."""
    script = "n=0; while :; do n=$((n+1)); echo $n > /a; echo $n > /b; done"
    record = boxes.start("sh", "-c", script)
    while "A /b" not in changes(boxes, record.id):
        pass
    boxes.containers.commit(record.id, "instant")
    said = boxes.run("cat", "/a", "/b", image="instant").stdout.split()

    assert len(said) < 2 or 0 <= int(said[0]) - int(said[1]) <= 1


def test_commit_refuses_bad_words(boxes: Boxes) -> None:
    record = boxes.containers.create(boxes.spec("true"))
    with pytest.raises(InvalidArgument):
        boxes.containers.commit(record.id, "Bad Name")
    with pytest.raises(InvalidArgument):
        boxes.containers.commit(record.id, "x", changes=["RUN nothing"])
    with pytest.raises(NotFound):
        boxes.containers.commit("nosuch", "x")


# --- a host's directory -----------------------------------------------------------------------


@pytest.fixture
def host_directory(boxes: Boxes) -> Path:
    """A root file system that holds the data-root itself."""
    import tarfile

    directory = boxes.root.parent
    with tarfile.open(fileobj=busybox_tree()) as tar:
        tar.extractall(directory)
    return directory


def test_a_host_directory_is_used_copy_on_write(boxes: Boxes, host_directory: Path) -> None:
    before = sorted(os.listdir(host_directory))
    result = boxes.run(
        "sh", "-c", "echo x > /new; rm /etc/group; cat /new; ls /r/data /r/exec | wc -l",
        rootfs=host_directory, auto_remove=False, name="host",
    )  # fmt: skip

    assert result.stdout.split()[0] == b"x"
    assert sorted(os.listdir(host_directory)) == before
    assert host_directory.joinpath("etc/group").exists()
    assert changes(boxes, "host") == ["C /etc", "D /etc/group", "A /new"]


def test_data_root_and_exec_root_are_hidden_in_it(boxes: Boxes, host_directory: Path) -> None:
    """A layer that shows its own upper directory loops (ELOOP)."""
    said = boxes.sh(
        "ls -a /r/data /r/exec; echo no > /r/data/x 2>/dev/null; echo ended", rootfs=host_directory
    )

    assert said == "/r/data:\n.\n..\n\n/r/exec:\n.\n..\nended\n"


def test_another_disk_file_system_below_is_named_as_absent(
    boxes: Boxes, host_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    below = host_directory / "disk"
    below.mkdir(exist_ok=True)
    mounted = attach(Mount("tmpfs", "pretended", ()))
    move(mounted, below)
    os.close(mounted)
    try:
        from stowage.containers import hostroot

        usual = hostroot._disk_file_systems
        hostroot._disk_file_systems = lambda: {"tmpfs"}
        try:
            with caplog.at_level(logging.WARNING):
                said = boxes.sh("ls /disk", rootfs=host_directory)
        finally:
            hostroot._disk_file_systems = usual
    finally:
        unmount(below)
        below.rmdir()

    assert said == ""
    assert any(f"{below} (tmpfs on pretended)" in text for text in caplog.messages)


def test_a_driver_that_would_copy_it_all_refuses(boxes: Boxes, host_directory: Path) -> None:
    with pytest.raises(NotSupported, match="does not work with the storage driver 'vfs'"):
        boxes.run("true", rootfs=host_directory, storage_driver="vfs")
    with pytest.raises(InvalidArgument, match="is not a directory"):
        boxes.run("true", rootfs=Path("/nosuch"))
    with pytest.raises(InvalidArgument, match="No command specified"):
        boxes.run(rootfs=host_directory)


def test_the_hosts_own_root_stays_as_it_is(boxes: Boxes) -> None:
    marker = f"/stowage-test-{os.getpid()}"
    result = boxes.run(
        "/bin/sh", "-c", f"touch {marker}; rm -f /etc/passwd; ls {marker}",
        rootfs=Path("/"), auto_remove=False, name="self",
    )  # fmt: skip

    assert result.stdout.decode() == f"{marker}\n", result.stderr
    assert not os.path.exists(marker)
    assert os.path.exists("/etc/passwd")
    assert changes(boxes, "self") == ["C /etc", "D /etc/passwd", f"A {marker}"]


def test_a_running_container_is_mounted_for_others(boxes: Boxes) -> None:
    """Both ways at once, by ``with`` and until it is unmounted; the root is busy then."""
    record = boxes.start("sh", "-c", "echo inside > /file; sleep 100", name="box")
    while "file" not in boxes.shell(record, "ls /"):
        pass

    with boxes.engine.mounted("box") as path:
        assert path.joinpath("file").read_text() == "inside\n"
        path.joinpath("new").write_text("outside\n")
        assert boxes.shell(record, "cat /new") == "outside\n"
    assert not path.exists()
    with boxes.containers.live_mount(record.driver, record.snapshot) as clone:
        layers = boxes.engine.layers
        place = layers.mount(record.snapshot, driver=record.driver, clone=clone)
    assert place.joinpath("new").exists()
    boxes.containers.stop(record.id, 0)
    with pytest.raises(Busy, match="in use"):
        boxes.containers.start(record.id)
    layers.unmount(place)
    boxes.containers.start(record.id)

"""Volumes in containers: made, filled, shared, kept and removed as Docker does."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stowage.containers.mounts import mounts_of, parse_mount
from stowage.errors import CommandFailed, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from stowage.testing.faults import inject

from .boxes import Boxes, busybox_tree, until

IMAGE = "with-data"


def asked(*volumes: str, mounts: tuple[str, ...] = (), volumes_from: tuple[str, ...] = (),
          **more: Any) -> dict[str, Any]:  # fmt: skip
    found = mounts_of(volumes, map(parse_mount, mounts), [], volumes_from)
    return {"binds": found.binds, "volumes": found.volumes, **more}


def add_image(boxes: Boxes, name: str, *changes: str) -> None:
    """busybox with /data (owned, linked, with an xattr), and hostile links beside it."""
    out = io.BytesIO(busybox_tree().getvalue())
    with tarfile.open(fileobj=out, mode="a") as tar:

        def add(path: str, kind: bytes, mode: int, content: bytes = b"", link: str = "") -> None:
            info = tarfile.TarInfo(path)
            info.type, info.mode, info.size, info.linkname = kind, mode, len(content), link
            info.uid, info.gid, info.mtime = 1000, 1001, 1_000_000
            if kind == tarfile.REGTYPE:
                info.pax_headers = {"SCHILY.xattr.user.colour": "blue"}
            tar.addfile(info, io.BytesIO(content))

        add("data", tarfile.DIRTYPE, 0o2750)
        add("data/file", tarfile.REGTYPE, 0o640, b"of the image\n")
        add("data/again", tarfile.LNKTYPE, 0o640, link="data/file")
        add("data/sub", tarfile.DIRTYPE, 0o700)
        add("data/out", tarfile.SYMTYPE, 0o777, link="/etc/shadow")
        add("empty", tarfile.DIRTYPE, 0o1777)
        add("way", tarfile.SYMTYPE, 0o777, link="/data")
        add("host", tarfile.SYMTYPE, 0o777, link="/../../../../../../etc")
        add("plain", tarfile.REGTYPE, 0o644, b"x")
    out.seek(0)
    boxes.engine.images.import_tree(out, name, changes=('CMD ["sh"]', *changes))


@pytest.fixture
def volumes(boxes: Boxes) -> Iterator[Boxes]:
    """The boxes with an image that has data; every test leaves no volume."""
    if not any(IMAGE in str(image.tags) for image in boxes.engine.images.list()):
        add_image(boxes, IMAGE)
    yield boxes
    boxes.clear()
    for volume in boxes.engine.volumes.list():
        boxes.engine.volumes.remove(volume.name)
    assert left(boxes) == []


def names(boxes: Boxes) -> list[str]:
    return [volume.name for volume in boxes.engine.volumes.list()]


def left(boxes: Boxes) -> list[str]:
    """What there is of volumes: rows in any state, directories, locks."""
    layout = boxes.engine.layout
    rows = boxes.engine.metastore.read().execute("SELECT name FROM volumes").fetchall()
    return [
        *(row[0] for row in rows),
        *(path.name for path in layout.volumes.iterdir()),
        *(path.name for path in layout.locks.iterdir() if path.name.startswith("volume-")),
    ]


# --- what containers see ----------------------------------------------------------------------


def test_a_named_volume_outlives_its_containers(volumes: Boxes) -> None:
    volumes.sh("echo kept > /v/file", **asked("vol:/v"))

    assert volumes.sh("cat /v/file", **asked("vol:/v")) == "kept\n"
    assert volumes.containers.list() == []
    assert names(volumes) == ["vol"]


def test_a_read_only_volume_cannot_be_written(volumes: Boxes) -> None:
    wrote = volumes.sh("echo x > /v/file; echo x > /m/file", **asked(
        "vol:/v:ro", mounts=("src=other,dst=/m,readonly",)))  # fmt: skip

    assert wrote.count("Read-only file system") == 2


def test_an_empty_volume_is_filled_with_what_the_image_has(volumes: Boxes) -> None:
    """Owner, modes, xattrs and links kept; the directory's own attributes too."""
    record = volumes.containers.create(volumes.spec("true", image=IMAGE, **asked("vol:/data")))
    data = volumes.engine.volumes.path("vol")

    assert sorted(os.listdir(data)) == ["again", "file", "out", "sub"]
    facts = data.stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (1000, 1001, 0o2750)
    assert data.joinpath("file").stat().st_ino == data.joinpath("again").stat().st_ino
    assert os.getxattr(data / "file", "user.colour") == b"blue"
    assert os.readlink(data / "out") == "/etc/shadow"
    assert facts.st_mtime == 1_000_000
    volumes.containers.remove(record.id)
    assert names(volumes) == ["vol"]


def test_only_an_empty_volume_is_filled(volumes: Boxes) -> None:
    volumes.sh("echo mine > /v/mine", **asked("vol:/v"))
    listed = volumes.sh("ls /data", image=IMAGE, **asked("vol:/data"))
    unfilled = volumes.sh("ls /data", image=IMAGE, **asked("other:/data:nocopy"))

    assert (listed, unfilled) == ("mine\n", "")


def test_an_empty_directory_gives_its_attributes(volumes: Boxes) -> None:
    assert volumes.sh("stat -c %a:%u /empty", image=IMAGE, **asked("vol:/empty")) == "1777:1000\n"


@pytest.mark.parametrize(
    ("target", "expected"), [("/way", "again file out sub"), ("/host", "group passwd")]
)
def test_links_of_the_image_lead_nowhere_but_into_the_image(
    volumes: Boxes, target: str, expected: str
) -> None:
    """Neither where the volume is filled from, nor where it is mounted."""
    listed = volumes.sh(f"echo $(ls {target})", image=IMAGE, **asked(f"vol:{target}"))

    # what the runtime mounts in /etc has a place there
    assert [
        word for word in listed.split() if word not in ("hostname", "hosts", "resolv.conf")
    ] == (expected.split())


def test_a_volume_over_a_file_is_refused_and_leaves_nothing(volumes: Boxes) -> None:
    with pytest.raises(InvalidArgument, match="cannot mount volume over existing file"):
        volumes.sh("true", image=IMAGE, **asked("vol:/plain", "/more"))

    assert left(volumes) == []
    assert volumes.containers.list() == []


def test_a_working_directory_in_a_volume_is_resolved_there(volumes: Boxes) -> None:
    """A link in the volume to /proc is refused as one of the image is."""
    volumes.sh("ln -s /proc/self/fd /v/bad; mkdir /v/good", **asked("vol:/v"))

    assert volumes.sh("pwd", working_dir="/v/good", **asked("vol:/v")) == "/v/good\n"
    with pytest.raises(InvalidArgument, match="resolves to"):
        volumes.sh("pwd", working_dir="/v/bad", **asked("vol:/v"))


def test_an_exec_is_not_led_out_by_a_link_in_a_volume(volumes: Boxes) -> None:
    """The working directory is resolved in the volume, as the container sees it."""
    record = volumes.start("sh", "-c", "ln -s /proc/self/fd/9 /v/bad; sleep 100", **asked("vol:/v"))
    until(lambda: "bad" in volumes.shell(record, "ls /v"), "the link")

    with pytest.raises(CommandFailed, match="resolves to"):
        volumes.shell(record, "pwd", working_dir="/v/bad")


def test_a_commit_declares_the_same_volumes(volumes: Boxes) -> None:
    add_image(volumes, "declares", "VOLUME /data")
    record = volumes.containers.create(volumes.spec("true", image="declares", **asked("/own")))
    image = volumes.containers.commit(record.id)

    assert sorted(image.config.config.volumes) == ["/data", "/own"]
    volumes.containers.remove(record.id, volumes=True)
    volumes.engine.images.remove(image.id)


# --- anonymous volumes ------------------------------------------------------------------------


def test_anonymous_volumes_go_with_rm_v_alone(volumes: Boxes) -> None:
    add_image(volumes, "declares", "VOLUME /data /other")
    wishes = asked("/own", "named:/named", mounts=("dst=/by-mount",))
    kept = volumes.containers.create(volumes.spec("true", image="declares", **wishes))
    assert kept.spec.volumes.declared == ("/own", "/data", "/other")
    assert [mount.target for mount in kept.spec.volumes.mounts] == [
        "/named", "/by-mount", "/own", "/data", "/other",
    ]  # fmt: skip
    data = next(mount for mount in kept.spec.volumes.mounts if mount.target == "/data")
    assert volumes.engine.volumes.path(data.name).joinpath("file").exists()

    volumes.containers.remove(kept.id)
    assert len(names(volumes)) == 5
    gone = volumes.containers.create(volumes.spec("true", image="declares", **wishes))
    assert len(names(volumes)) == 9
    volumes.containers.remove(gone.id, volumes=True)
    assert len(names(volumes)) == 5
    assert "named" in names(volumes)


def test_anonymous_volumes_go_with_an_rm_container(volumes: Boxes) -> None:
    volumes.sh("echo x > /own/file", **asked("/own", "named:/named"))
    assert names(volumes) == ["named"]

    record = volumes.start("true", auto_remove=True, **asked("/own"))
    volumes.containers.wait(record.id)
    assert names(volumes) == ["named"]


def test_a_name_takes_the_place_of_the_images_volume(volumes: Boxes) -> None:
    add_image(volumes, "declares", "VOLUME /data /other")
    record = volumes.containers.create(
        volumes.spec("true", image="declares", **asked("mine:/data", "/host:/other"))
    )

    assert record.spec.volumes.names == ["mine"]


# --- from other containers --------------------------------------------------------------------


def test_volumes_from_another_container(volumes: Boxes, tmp_path: Path) -> None:
    """Its binds, its volumes and its anonymous ones, read-only if asked, and never filled."""
    first = volumes.containers.create(
        volumes.spec("true", name="first", **asked(f"{tmp_path}:/bind", "vol:/vol:ro", "/own"))
    )
    wrote = volumes.sh(
        "echo 1 > /bind/file; echo 2 > /own/file; echo 3 > /vol/file",
        **asked(volumes_from=("first",)),
    )
    assert wrote.count("Read-only") == 1
    assert tmp_path.joinpath("file").read_text() == "1\n"
    wrote = volumes.sh("cat /own/file; echo x > /own/file; echo x > /bind/file",
                       **asked(volumes_from=("first:ro",)))  # fmt: skip
    assert wrote.startswith("2\n")
    assert wrote.count("Read-only") == 2

    heir = volumes.containers.create(
        volumes.spec("true", **asked("new:/vol", volumes_from=("first",)))
    )
    assert {mount.target: mount.name for mount in heir.spec.volumes.mounts}["/vol"] == "new"
    volumes.containers.remove(first.id, volumes=True)
    own = next(mount.name for mount in heir.spec.volumes.mounts if mount.target == "/own")
    assert own in names(volumes)
    volumes.containers.remove(heir.id, volumes=True)
    assert own not in names(volumes)


def test_volumes_from_a_container_that_is_not_there(volumes: Boxes) -> None:
    with pytest.raises(NotFound, match="No such container: nosuch"):
        volumes.sh("true", **asked(volumes_from=("nosuch",)))


# --- in use, and in trouble -------------------------------------------------------------------


def test_a_volume_in_use_is_refused_in_dockers_words(volumes: Boxes) -> None:
    record = volumes.containers.create(volumes.spec("true", **asked("vol:/v")))

    with pytest.raises(FailedPrecondition) as refusal:
        volumes.engine.volumes.remove("vol")
    assert refusal.value.brief == f"remove vol: volume is in use - [{record.id}]"


def test_a_volume_whose_directory_is_gone_is_named(volumes: Boxes) -> None:
    record = volumes.containers.create(volumes.spec("true", **asked("vol:/v")))
    volumes.engine.volumes.path("vol").rmdir()

    with pytest.raises(DataLoss, match="directory of the volume vol is gone"):
        volumes.containers.start(record.id)
    volumes.engine.volumes.path("vol").mkdir()


def test_a_container_that_cannot_be_made_leaves_no_volume(volumes: Boxes) -> None:
    """Whatever effect fails, each in its turn."""
    spec = volumes.spec("true", image=IMAGE, **asked("vol:/data", "/own"))
    with inject() as counting:
        record = volumes.containers.create(spec)
    volumes.containers.remove(record.id, volumes=True)
    volumes.engine.volumes.remove("vol")
    for number in range(1, sum(counting.counts.values()) + 1):
        made = None
        with inject(f"effect=*:n={number}:errno=ENOSPC"):
            try:
                made = volumes.containers.create(spec)
            except Exception:  # noqa: BLE001  # any refusal
                pass
        volumes.open()
        if made is None:
            assert volumes.containers.list() == []
            volumes.engine.volumes.recover()
            assert left(volumes) == [], number
        else:
            volumes.containers.remove(made.id, volumes=True)
            volumes.engine.volumes.remove("vol")

"""``--mount`` and ``--tmpfs``: how they are read, and what a container then sees."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.containers.describe_mounts import host_mounts, mount_points
from stowage.containers.model import ContainerSpec
from stowage.containers.mount_table import mount_entries
from stowage.containers.mounts import (
    MountRequest,
    Tmpfs,
    bind_of,
    merge_options,
    parse_mount,
    parse_tmpfs,
    tmpfs_of,
)
from stowage.containers.volumes import Bind
from stowage.errors import InvalidArgument

from .boxes import Boxes


def test_a_mount_is_read_by_all_its_names() -> None:
    one = parse_mount("type=bind,source=/a,target=/b,readonly,bind-propagation=rslave")
    other = parse_mount("type=BIND,src=/a,dst=/b,ro=true,bind-propagation=RSLAVE")

    assert bind_of(one) == bind_of(other) == Bind("/a", "/b", True, "rslave", by_mount=True)
    assert parse_mount("src=v,destination=/x,volume-opt=a=1,volume-opt=b=2") == MountRequest(
        "volume", "v", "/x", False, {"volume-opt": ("a=1", "b=2")}
    )
    assert parse_mount('type=bind,"src=/a,b",dst=/c').source == "/a,b"
    assert bind_of(parse_mount("type=bind,src=.,dst=/c")).source == str(Path.cwd())
    assert not bind_of(parse_mount("type=bind,src=/a,dst=/c,bind-nonrecursive")).recursive


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=bind,src=/a", "target is required"),
        ("type=bind,nonsense,dst=/a", "invalid field 'nonsense' must be a key=value pair"),
        ("type=bind,nosuch=1,dst=/a", "unexpected key 'nosuch' in 'nosuch=1'"),
        ("type=bind,ro=maybe,dst=/a", "invalid value for ro: maybe"),
        ("type=tmpfs,dst=/a,tmpfs-size=big", "invalid value for tmpfs-size: big"),
        ("type=tmpfs,dst=/a,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
        (
            "type=bind,src=/a,dst=/b,tmpfs-size=1",
            "cannot mix 'tmpfs-*' options with mount type 'bind'",
        ),
        ('type=bind,"src=/a', "parse error in"),
    ],
)
def test_wrong_mounts_are_refused_in_the_clients_words(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse_mount(text)
    assert refusal.value.brief.startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=bind,dst=/b", "field Source must not be empty"),
        ("type=bind,src=a,dst=/b", "invalid mount path: 'a' mount path must be absolute"),
        ("type=bind,src=/a,dst=b", "invalid mount path: 'b' mount path must be absolute"),
        ("type=bind,src=/a,dst=//", "invalid specification: destination can't be '/'"),
        ("type=bind,src=/a,dst=/b,bind-propagation=x", "invalid propagation mode: x"),
        ("type=tmpfs,src=/a,dst=/b", "field Source must not be specified"),
    ],
)
def test_mounts_that_cannot_be_are_refused_in_the_daemons_words(text: str, message: str) -> None:
    request = parse_mount(text)
    with pytest.raises(InvalidArgument) as refusal:
        bind_of(request) if request.type == "bind" else tmpfs_of(request)
    assert refusal.value.brief == f'invalid mount config for type "{request.type}": {message}'


@given(st.text(max_size=40))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    for parse in (parse_mount, parse_tmpfs):
        try:
            parse(text)
        except InvalidArgument:
            pass


def test_a_later_option_of_a_tmpfs_wins() -> None:
    assert parse_tmpfs("/t").merged_options == ["noexec", "nosuid", "nodev", "rprivate"]
    assert set(parse_tmpfs("/t:exec,size=1m,size=2m,rshared").merged_options) == {
        "exec", "nosuid", "nodev", "rshared", "size=2m",
    }  # fmt: skip
    assert merge_options(["defaults", "ro", "rw"]) == ["rw"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t", "invalid mount path: 't' mount path must be absolute"),
        ("/", "invalid specification: destination can't be '/'"),
        ("/t:foo", 'Invalid tmpfs option ["foo"]'),
        ("/t:foo=1", 'Invalid tmpfs option ["foo=1"]'),
    ],
)
def test_a_wrong_tmpfs_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse_tmpfs(text)
    assert refusal.value.brief == message


def test_what_is_asked_for_takes_the_place_of_what_would_be_there() -> None:
    def places(*tmpfs: Tmpfs) -> list[str]:
        spec = ContainerSpec(tmpfs=tmpfs)
        return [one["destination"] for one in mount_entries(spec, (), {"/etc/hosts": "/h"})]

    assert places(Tmpfs("/dev/shm", "size=1m")).count("/dev/shm") == 1
    assert places(Tmpfs("/etc/hosts")).count("/etc/hosts") == 1
    assert [place for place in places(Tmpfs("/dev")) if place.startswith("/dev")] == ["/dev"]
    ordered = places(Tmpfs("/a/b/c"), Tmpfs("/a"), Tmpfs("/a/b"))
    assert [place for place in ordered if place.startswith("/a")] == ["/a", "/a/b", "/a/b/c"]


def test_inspect_shows_mounts_as_they_were_asked_for() -> None:
    tmpfs = tmpfs_of(parse_mount("type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=711,ro"))
    binds = (Bind("/a", "/b", True), bind_of(parse_mount("type=bind,src=/c,dst=/d,ro")))
    spec = ContainerSpec(binds=binds, tmpfs=(tmpfs, parse_tmpfs("/t:size=1m")))

    assert host_mounts(spec) == {
        "Binds": ["/a:/b:ro"],
        "Mounts": [
            {"Type": "bind", "Source": "/c", "Target": "/d", "ReadOnly": True},
            {
                "Type": "tmpfs", "Target": "/m", "ReadOnly": True,
                "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o711},
            },
        ],
        "Tmpfs": {"/t": "size=1m"},
    }  # fmt: skip
    assert [(point["Type"], point["Destination"]) for point in mount_points(spec, Path)] == [
        ("bind", "/b"), ("bind", "/d"), ("tmpfs", "/m"),
    ]  # fmt: skip


def test_a_container_sees_its_mounts(boxes: Boxes, tmp_path: Path) -> None:
    """tmpfs with their options, a bind by --mount, a working directory in a tmpfs."""
    tmp_path.joinpath("file").write_text("of the host\n")
    wrote = boxes.sh(
        "pwd; cat /b/file; touch /b/x; touch /t/wd/y && echo wrote;"
        "mount | grep -E ' /(t|u/v|m) '; ls -ld /u/v",
        tmpfs=(
            parse_tmpfs("/t"),
            parse_tmpfs("/u/v:exec,size=64k,mode=1711"),
            tmpfs_of(parse_mount("type=tmpfs,dst=/m,tmpfs-size=1m,ro")),
        ),
        binds=(bind_of(parse_mount(f"type=bind,src={tmp_path},dst=/b,ro")),),
        working_dir="/t/wd",
    )

    assert wrote.splitlines()[:4] == [
        "/t/wd", "of the host", "touch: /b/x: Read-only file system", "wrote",
    ]  # fmt: skip
    assert "/t type tmpfs (rw,nosuid,nodev,noexec,relatime" in wrote
    assert "/u/v type tmpfs (rw,nosuid,nodev,relatime,size=64k,mode=1711" in wrote
    assert "/m type tmpfs (ro,nosuid,nodev,noexec,relatime,size=1024k" in wrote
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_their_mount_points_are_no_change(boxes: Boxes) -> None:
    record = boxes.start("sleep", "9", tmpfs=(parse_tmpfs("/t/deep"),))

    assert boxes.containers.diff(record.id) == []


def test_a_mount_whose_source_is_gone_is_refused_at_every_start(
    boxes: Boxes, tmp_path: Path
) -> None:
    source = tmp_path / "s"
    bind = bind_of(parse_mount(f"type=bind,src={source},dst=/b"))
    words = f"bind source path does not exist: {source}"
    with pytest.raises(InvalidArgument, match=words):
        boxes.containers.create(boxes.spec("true", binds=(bind,)))
    assert boxes.leftovers() == []
    source.mkdir()
    record = boxes.containers.create(boxes.spec("true", binds=(bind,)))
    source.rmdir()

    with pytest.raises(InvalidArgument, match=words):
        boxes.containers.start(record.id)
    assert not source.exists()

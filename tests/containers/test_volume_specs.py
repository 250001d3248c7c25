"""What is asked of volumes, as text and as values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stowage.containers.describe_mounts import host_mounts, mount_points
from stowage.containers.model import ContainerSpec
from stowage.containers.mounts import mounts_of, parse_mount
from stowage.containers.volume_specs import (
    VolumeMount,
    VolumeWishes,
    is_host_path,
    parse_volume,
    parse_volumes_from,
)
from stowage.errors import InvalidArgument, NotSupported, StowageError

names = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,20}", fullmatch=True)
paths = st.from_regex(r"(/[a-z0-9]{1,6}){1,3}", fullmatch=True)
modes = st.lists(st.sampled_from(["ro", "nocopy", "z"]), unique=True).map(",".join)


@given(names, paths, modes)
def test_a_named_volume_is_parsed_and_shown_as_it_was_given(
    name: str, target: str, mode: str
) -> None:
    text = ":".join(part for part in (name, target, mode) if part)
    mount = parse_volume(text)

    assert isinstance(mount, VolumeMount)
    assert (mount.name, mount.target, str(mount)) == (name, target, text)
    assert mount.read_only is ("ro" in mode.split(","))
    assert mount.copy is ("nocopy" not in mode.split(","))


@given(st.text(alphabet="ab/:.,ro_ \0", max_size=12))
def test_any_text_is_a_volume_or_refused_in_our_own_words(text: str) -> None:
    try:
        asked = mounts_of([text], [], [])
    except StowageError:
        return
    targets = [bind.target for bind in asked.binds]
    targets += [mount.target for mount in asked.volumes.mounts]
    assert all(target.startswith("/") and target != "/" for target in targets)


@given(st.booleans(), st.booleans(), st.dictionaries(st.text(max_size=3), st.text(max_size=3)))
def test_wishes_survive_json(read_only: bool, copy: bool, labels: dict[str, str]) -> None:
    mount = VolumeMount("/x", "vol", read_only, copy, labels=labels)
    wishes = VolumeWishes((mount,), ("/a",), ("c:ro",))

    assert VolumeWishes.from_json(json.loads(json.dumps(wishes.to_json()))) == wishes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:/x", "volume name is too short"),
        ("bad name:/x", '"bad name" includes invalid characters for a local volume name'),
        ("v:x", "invalid mount path: 'x' mount path must be absolute"),
        ("vol:/", "destination can't be '/'"),
        ("vol:/x:ro,rw", "invalid mode: ro,rw"),
        ("vol:/x:rshared", "field BindOptions must not be specified"),
        ("vol:/x:what", "invalid mode: what"),
        ("vol:/x:a:b", "invalid volume specification: 'vol:/x:a:b'"),
        ("relative", "invalid mount path: 'relative' mount path must be absolute"),
        ("", "invalid volume specification: ''"),
    ],
)
def test_a_wrong_volume_is_refused_in_dockers_words(text: str, words: str) -> None:
    assert not is_host_path(text)
    with pytest.raises(InvalidArgument) as refusal:
        parse_volume(text)
    assert words in refusal.value.brief


def test_a_path_alone_is_declared_once() -> None:
    asked = mounts_of(["/data", "/data/", "/other"], [], [])

    assert asked.volumes.declared == ("/data", "/other")


def test_mount_asks_for_volumes() -> None:
    requests = [
        parse_mount("source=vol,target=/a,readonly,volume-nocopy,volume-label=k=v"),
        parse_mount("type=volume,dst=/b"),
    ]
    named, anonymous = mounts_of([], requests, []).volumes.mounts

    assert (named.name, named.read_only, named.copy) == ("vol", True, False)
    assert named.labels == {"k": "v"}
    assert (anonymous.name, anonymous.anonymous) == ("", True)


@pytest.mark.parametrize("more", ["volume-driver=nfs", "volume-opt=type=nfs"])
def test_other_volume_drivers_are_refused_by_name(more: str) -> None:
    with pytest.raises(NotSupported):
        mounts_of([], [parse_mount(f"src=vol,dst=/a,{more}")], [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("web", ("web", False)), ("web:ro", ("web", True)), ("web:rw", ("web", False))],
)
def test_volumes_from_names_a_container(text: str, expected: tuple[str, bool]) -> None:
    assert parse_volumes_from(text) == expected


@pytest.mark.parametrize("text", ["", ":ro", "web:", "web:x"])
def test_a_wrong_volumes_from_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_volumes_from(text)


def test_inspect_shows_volumes_where_docker_does() -> None:
    """Names by -v among Binds, by --mount among Mounts, paths only in Config.Volumes."""
    mounts = (
        VolumeMount("/a", "vol", mode="ro", read_only=True),
        VolumeMount("/b", "other", by_mount=True, copy=False),
        VolumeMount("/c", "0" * 64, anonymous=True, declared=True),
        VolumeMount("/d", "lent", inherited=True),
    )
    spec = ContainerSpec(volumes=VolumeWishes(mounts, ("/c",), ("web:ro",)))

    assert host_mounts(spec) == {
        "Binds": ["vol:/a:ro"],
        "VolumesFrom": ["web:ro"],
        "Mounts": [
            {"Type": "volume", "Source": "other", "Target": "/b", "VolumeOptions": {"NoCopy": True}}
        ],
    }
    points = mount_points(spec, lambda name: Path("/volumes") / name)
    assert points[0] == {
        "Type": "volume", "Name": "vol", "Source": "/volumes/vol", "Destination": "/a",
        "Driver": "local", "Mode": "ro", "RW": False, "Propagation": "",
    }  # fmt: skip
    assert [point["Mode"] for point in points] == ["ro", "z", "", ""]
    assert replace(spec, volumes=VolumeWishes()).volumes.names == []

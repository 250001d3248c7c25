"""Values of containers: JSON, image defaults, names, binds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stowage.containers.creating import parse_signal
from stowage.containers.model import (
    ContainerSpec,
    RuntimeFacts,
    join_env,
    with_image_defaults,
)
from stowage.containers.mounts import Tmpfs
from stowage.containers.names import check_name, is_id, new_id, random_name
from stowage.containers.namespaces import Namespaces
from stowage.containers.resources import Resources
from stowage.containers.security import Security
from stowage.containers.volumes import Bind, check_targets, parse_bind
from stowage.errors import InvalidArgument, StowageError
from stowage.images.config import RunConfig
from stowage.linux.process import ProcessIdentity

texts = st.text(max_size=8)
words = st.tuples(texts, texts)
binds = st.builds(Bind, texts, texts, st.booleans(), st.sampled_from(["rprivate", "rslave"]))
specs = st.builds(
    ContainerSpec,
    image=texts,
    command=words,
    name=st.none() | texts,
    entrypoint=st.none() | st.just(()) | words,
    env=words,
    working_dir=texts,
    user=texts,
    tty=st.booleans(),
    binds=st.tuples(binds),
    tmpfs=st.tuples(st.builds(Tmpfs, texts, texts, st.booleans())),
    network=st.none() | texts,
    labels=st.dictionaries(texts, texts, max_size=2),
    storage_options=words,
    rootfs=st.none() | st.just(Path("/x")),
    stop_timeout_seconds=st.none() | st.integers(0, 99),
    namespaces=st.builds(Namespaces, pid=texts, ipc=texts),
    security=st.builds(Security, cap_add=words),
    resources=st.builds(Resources, memory_bytes=st.integers(), cpuset_cpus=texts),
)


@given(specs)
def test_a_spec_survives_json(spec: ContainerSpec) -> None:
    assert ContainerSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_facts_survive_json_and_rows_of_other_versions_are_read() -> None:
    facts = RuntimeFacts(
        prepared=True, monitor="conmon", monitor_process=ProcessIdentity(1, 2, "b"), exit_code=3
    )
    plain = json.loads(json.dumps(facts.to_json()))

    assert RuntimeFacts.from_json({**plain, "of-tomorrow": 1}) == facts
    assert RuntimeFacts.from_json({}) == RuntimeFacts()
    assert ContainerSpec.from_json({"image": "x", "of-tomorrow": 1}) == ContainerSpec("x")


@pytest.mark.parametrize(
    ("asked", "image", "arguments"),
    [
        (ContainerSpec(), RunConfig(cmd=("a",)), ("a",)),
        (ContainerSpec(), RunConfig(entrypoint=("e",), cmd=("a",)), ("e", "a")),
        (ContainerSpec(command=("b",)), RunConfig(entrypoint=("e",), cmd=("a",)), ("e", "b")),
        (ContainerSpec(entrypoint=("f",)), RunConfig(entrypoint=("e",), cmd=("a",)), ("f",)),
        (ContainerSpec(entrypoint=(), command=("b",)), RunConfig(entrypoint=("e",)), ("b",)),
    ],
)
def test_entrypoint_and_command_join_as_dockers(
    asked: ContainerSpec, image: RunConfig, arguments: tuple[str, ...]
) -> None:
    assert with_image_defaults(asked, image).arguments == arguments


def test_no_command_at_all_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="No command specified"):
        with_image_defaults(ContainerSpec(), RunConfig())


def test_what_the_image_says_is_the_default() -> None:
    image = RunConfig(
        cmd=("a",), env=("A=1", "B=2"), user="u", working_dir="/w", labels={"l": "1", "m": "1"},
        stop_signal="INT",
    )  # fmt: skip
    asked = ContainerSpec(env=("B=3", "C=4"), labels={"m": "2"}, user="v")
    merged = with_image_defaults(asked, image)

    assert merged.env == ("A=1", "B=3", "C=4")
    assert dict(merged.labels) == {"l": "1", "m": "2"}
    assert (merged.user, merged.working_dir, merged.stop_signal) == ("v", "/w", "INT")


def test_a_bare_variable_is_taken_away() -> None:
    assert join_env(("A=1", "B=2"), ("A",), ("C=x=y",)) == ("B=2", "C=x=y")


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ab", "a.b", "A_-0", "/web"])
def test_names_that_docker_takes(name: str) -> None:
    assert check_name(name) == name.removeprefix("/")


@pytest.mark.parametrize("name", ["", "a", "-a", ".a", "a b", "a/b", "ä1", "ab\n"])
def test_names_that_docker_refuses(name: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        check_name(name)
    assert refusal.value.brief == (
        f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )


def test_ids_and_random_names_are_well_formed() -> None:
    assert is_id(new_id())
    assert new_id() != new_id()
    for attempt in range(8):
        assert check_name(random_name(attempt))


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGKILL", 9), ("15", 15), ("rtmin+3", 37), ("SIGRTMIN", 34)],
)
def test_signals_by_name_and_number(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "NOPE", "0", "65", "TERM+x", "-1"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(f"Invalid signal: {text}")):
        parse_signal(text)


# --- binds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("/a:/b", Bind("/a", "/b")),
        ("/a/:/b/../c:ro", Bind("/a", "/c", True)),
        ("/a:/b:rw,rslave", Bind("/a", "/b", False, "rslave")),
        ("/a:/b:ro,z,shared", Bind("/a", "/b", True, "shared")),
    ],
)
def test_volumes_are_parsed(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("/a:b", InvalidArgument, "mount path must be absolute"),
        ("/a:/", InvalidArgument, "destination can't be '/'"),
        ("/a:/b:xx", InvalidArgument, "invalid mode: xx"),
        ("/a:/b:ro,rw", InvalidArgument, "invalid mode: ro,rw"),
        ("/a:/b:c:d", InvalidArgument, "invalid volume specification: '/a:/b:c:d'"),
        (":/b", InvalidArgument, "invalid volume specification"),
        ("/a:/b:nocopy", InvalidArgument, "field VolumeOptions must not be specified"),
    ],
)
def test_volumes_that_cannot_be_are_refused(
    text: str, kind: type[StowageError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        parse_bind(text)


def test_two_mounts_at_one_place_are_refused() -> None:
    bind = Bind("/a", "/b")
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /b"):
        check_targets([bind, replace(bind, source="/c")])

"""What ``run`` is asked becomes a specification, or an error in Docker's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from stowage.cli.environment import read_environment, read_labels
from stowage.cli.flags import UsageError, parse
from stowage.cli.run_options import CREATE_FLAGS, requested
from stowage.containers.model import ContainerSpec
from stowage.errors import InvalidArgument, StowageError


def asked(*words: str, attached: bool = True) -> ContainerSpec:
    return requested(parse(CREATE_FLAGS, words, interspersed=False), attached=attached)


def test_everything_that_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each flag lands in its field."""
    monkeypatch.setenv("FROM_HERE", "yes")
    monkeypatch.delenv("NOT_HERE", raising=False)
    env_file = tmp_path / "env"
    env_file.write_text("# a comment\n\nA=file\nB=from file\nFROM_HERE\n")

    spec = asked(
        *("--name", "web", "-it", "--rm", "-e", "A=flag", "-e", "NOT_HERE", "--env-file"),
        *(str(env_file), "-w", "/work", "-u", "1:2", "-v", "/srv:/data:ro", "--network", "none"),
        *("-h", "box", "--entrypoint", "/bin/sh", "--storage-driver", "vfs", "--storage-opt"),
        *("size=1G", "-l", "a=1", "-l", "b", "--stop-signal", "INT", "--stop-timeout", "3"),
        *("busybox", "ls", "-l"),
    )

    assert spec.image == "busybox"
    assert spec.arguments == ("/bin/sh", "ls", "-l")
    assert spec.env == ("A=file", "B=from file", "FROM_HERE=yes", "A=flag")
    assert (spec.name, spec.hostname, spec.network, spec.user) == ("web", "box", "none", "1:2")
    assert (spec.tty, spec.open_stdin, spec.stdin_once, spec.auto_remove) == (True,) * 4
    assert [str(bind) for bind in spec.binds] == ["/srv:/data:ro"]
    assert spec.labels == {"a": "1", "b": ""}
    assert (spec.storage_driver, spec.storage_options) == ("vfs", ("size=1G",))
    assert (spec.stop_signal, spec.stop_timeout_seconds) == ("INT", 3)
    assert ContainerSpec.from_json(spec.to_json()) == spec


def test_rootfs_takes_the_place_of_the_image() -> None:
    """All arguments are the command then."""
    spec = asked("--rootfs", "/", "sh", "-c", "true")

    assert (spec.rootfs, spec.image) == (Path("/"), "")
    assert spec.command == ("sh", "-c", "true")


def test_an_empty_entrypoint_takes_the_images_away() -> None:
    """As ``--entrypoint ""`` does in Docker; without the flag the image's stays."""
    assert asked("--entrypoint", "", "busybox").entrypoint == ()
    assert asked("busybox").entrypoint is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-w", "relative", "i"), "the working directory 'relative' is invalid"),
        (("-h", "-bad-", "i"), "invalid hostname format: -bad-"),
        (("-v", "rel/ative:/x", "i"), "includes invalid characters for a local volume name"),
        (("-v", "/a:/x", "-v", "/b:/x", "i"), "Duplicate mount point: /x"),
        (("-v", "/a:/x", "--tmpfs", "/x", "i"), "Duplicate mount point: /x"),
        (("--mount", "type=x,dst=/x", "i"), 'config for type "x": mount type unknown'),
        (("--mount", "src=v1,dst=/x", "-v", "v2:/x", "i"), "Duplicate mount point: /x"),
        (("--volumes-from", "c:xx", "i"), "invalid mode: xx"),
        (("-e", "=x", "i"), "invalid environment variable: =x"),
        (("-l", "=x", "i"), "invalid label '=x': empty name"),
        (("--env-file", "/nonexistent", "i"), "open /nonexistent: no such file"),
    ],
)
def test_wrong_values_are_refused_in_dockers_words(words: tuple[str, ...], message: str) -> None:
    """Before anything is made."""
    with pytest.raises(StowageError) as caught:
        asked(*words)

    assert message in caught.value.brief


def test_a_time_out_is_a_number_of_seconds() -> None:
    """-1 waits without end."""
    assert asked("--stop-timeout", "-1", "i").stop_timeout_seconds == -1
    with pytest.raises(UsageError, match='invalid argument "-2" for "--stop-timeout" flag'):
        asked("--stop-timeout", "-2", "i")


def test_a_bad_env_file_names_the_line(tmp_path: Path) -> None:
    """A name with a blank is a mistake, not a variable."""
    path = tmp_path / "env"
    for text, message in (
        ("A B=1", "variable 'A B' contains whitespaces"),
        ("=1", "no variable name on line '=1'"),
    ):
        path.write_text(text)
        with pytest.raises(InvalidArgument, match="poorly formatted environment") as caught:
            read_environment([str(path)], [], {})
        assert message in caught.value.brief
    assert read_labels(["x"]) == {"x": ""}

"""Image, layer, driver and system commands on a real root."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from .conftest import Run


def test_images_are_listed_as_docker_lists_them(stowage: Run) -> None:
    """Columns, -q, --no-trunc, a template; a name that does not fit lists nothing."""
    heading, row = stowage("images").out.splitlines()

    assert heading.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert row.startswith("busybox      latest    ")
    assert row.endswith("MB")
    short = stowage("images", "-q").line
    assert len(short) == 12
    assert stowage("image", "ls", "--no-trunc", "-q").line.startswith(f"sha256:{short}")
    assert stowage("images", "--format", "{{.Repository}}:{{.Tag}}").line == "busybox:latest"
    assert len(stowage("images", "nosuch").out.splitlines()) == 1
    assert json.loads(stowage("images", "--format", "json").line)["ID"] == short


def test_an_image_is_tagged_inspected_and_removed(stowage: Run) -> None:
    """Untagging the second name leaves the first."""
    assert stowage("tag", "busybox", "copy:v1").code == 0
    assert stowage("inspect", "-f", "{{json .RepoTags}}", "copy:v1").line == (
        '["busybox:latest","copy:v1"]'
    )
    assert stowage("rmi", "copy:v1").line == "Untagged: copy:v1"
    done = stowage("rmi", "nosuch")
    assert (done.code, done.out) == (1, "")
    assert "Error: No such image: nosuch" in done.err


def test_inspect_prints_what_it_found_and_names_the_rest(stowage: Run) -> None:
    """An empty list for nothing, as Docker; code 1."""
    done = stowage("inspect", "nosuch")

    assert (done.code, done.out) == (1, "[]\n")
    assert done.err == "Error: No such object: nosuch\n"
    both = stowage("inspect", "busybox", "nosuch")
    assert (both.code, len(json.loads(both.out))) == (1, 1)


def test_history_says_how_an_image_came_to_be(stowage: Run) -> None:
    """One line per step, sizes for people or in bytes."""
    heading, row = stowage("history", "busybox").out.splitlines()

    assert heading.startswith("IMAGE          CREATED")
    assert "MB" in row
    assert "MB" not in stowage("history", "--human=false", "busybox").out.splitlines()[1]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_an_image_is_saved_and_loaded(stowage: Run, tmp_path: Path, form: str) -> None:
    """The same image comes back; the file is whole or not there."""
    identity = stowage("images", "-q", "--no-trunc").line
    archive = tmp_path / "image.tar"

    assert stowage("save", "--format", form, "-o", str(archive), "busybox").code == 0
    assert stowage("load", "-i", str(archive)).out.endswith("Loaded image: busybox:latest\n")

    assert stowage("images", "-q", "--no-trunc").line == identity
    assert stowage("save", "-o", str(tmp_path / "none.tar"), "nosuch").code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["image.tar"]


def test_junk_is_no_archive(stowage: Run, tmp_path: Path) -> None:
    """A typed error for load and import, and no image."""
    junk = tmp_path / "junk"
    junk.write_bytes(b"x" * 2000)

    for words in (("load", "-i", str(junk)), ("import", str(junk), "junk")):
        done = stowage(*words)
        assert done.code == 1
        assert done.err.startswith("Error: ")
        assert "Traceback" not in done.err
    assert stowage("load", "-i", str(tmp_path / "none")).err == (
        f"Error: open {tmp_path}/none: no such file or directory\n"
    )
    assert stowage("images", "-q", "junk").out == ""


def test_a_tree_is_imported_with_changes(stowage: Run, tmp_path: Path) -> None:
    """``--change`` and ``--message`` show in the image."""
    (tmp_path / "file").write_text("x")
    with tarfile.open(tmp_path / "tree.tar", "w") as archive:
        archive.add(tmp_path / "file", "file")

    done = stowage(
        *("import", "-c", "ENV A=1", "-c", 'CMD ["/x"]', "-m", "by hand"),
        *(str(tmp_path / "tree.tar"), "tree:1"),
    )

    assert done.line.startswith("sha256:")
    shown = stowage("inspect", "-f", "{{.Config.Env}} {{.Config.Cmd}} {{.Comment}}", "tree:1")
    assert shown.line == "[A=1] [/x] by hand"
    assert stowage("rmi", "tree:1").code == 0


def test_layers_are_listed_and_the_root_is_clean(stowage: Run) -> None:
    """``layers``, ``check``, ``gc`` and ``df`` agree that there is one image."""
    kinds = stowage("layers", "--format", "{{.Kind}} {{.Driver}}").out.splitlines()
    assert "committed overlay" in kinds

    check = stowage("check")
    assert (check.code, check.out) == (0, "")
    assert check.err.endswith("clean\n")
    assert stowage("gc").out.endswith("reclaimed space: 0B\n")
    heading, images, *_ = stowage("df").out.splitlines()
    assert heading.split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert images.split()[:2] == ["Images", "1"]
    assert "Images space usage:" in stowage("df", "-v").out


def test_drivers_say_what_they_can_do_here(stowage: Run, tmp_path: Path) -> None:
    """ls, explain and options; a misspelt one is answered with the nearest."""
    names = stowage("driver", "ls", "-q").out.split()
    assert {"overlay", "vfs", "none", "host"} <= set(names)
    rows = [
        json.loads(line)
        for line in stowage("driver", "ls", "--format", "json").out.split("\n")
        if line
    ]
    assert {row["Name"]: row["Default"] for row in rows}["overlay"] == "*"
    assert "overlay2" in stowage("driver", "ls").out.splitlines()[1]
    unknown = stowage("-s", "nosuch", "driver", "ls")
    assert (unknown.code, "nosuch" in unknown.err, "overlay" in unknown.out) == (1, True, True)
    marked = ("driver", "ls", "--format", "{{.Default}}{{.Name}}")
    fresh = ("--root", str(tmp_path / "fresh"))
    for _ in range(2):  # what would be chosen is marked, and not settled by looking
        assert "*overlay" in stowage(*fresh, *marked).out.splitlines()
    assert "*vfs" in stowage(*fresh, "-s", "vfs", *marked).out.splitlines()
    assert "by priority" in stowage(*fresh, "driver", "explain").out
    assert "The storage driver of this root is overlay: recorded" in (
        stowage("driver", "explain").out
    )
    assert "metacopy" in stowage("driver", "options", "overlay").out
    done = stowage("driver", "explain", "overly")
    assert done.code == 1
    assert "did you mean 'overlay'?" in done.err


def test_info_and_version_answer(stowage: Run) -> None:
    """As text, by template, as JSON."""
    assert "Storage Driver: overlay" in stowage("info").out
    assert stowage("info", "--format", "{{.Driver}}").line == "overlay"
    assert (
        stowage("version", "-f", "{{.Server.Version}}").line
        == (json.loads(stowage("version", "--format", "json").line)["Client"]["Version"])
    )


def test_a_template_error_is_said_in_gos_words(stowage: Run) -> None:
    """64 for one that cannot be parsed, as Docker."""
    done = stowage("images", "--format", "{{nosuch}}")

    assert done.code == 64
    assert 'template parsing error: template: :1: function "nosuch" not defined' in done.err
    assert stowage("images", "--format", "{{.Nosuch}}").code == 1


def test_a_bad_name_is_refused_before_any_work(stowage: Run) -> None:
    """Nothing is packed for a reference that cannot be one."""
    done = stowage("bootstrap", "busybox", "BadName")

    assert done.code == 1
    assert "Packing" not in done.err
    assert "repository name must be lowercase" in done.err


@pytest.mark.parametrize("limit", [("--max-size", "1k"), ("--max-entries", "1")])
@pytest.mark.parametrize("command", ["import", "load"])
def test_archives_over_a_limit_are_refused_and_leave_nothing(
    stowage: Run, tmp_path: Path, command: str, limit: tuple[str, str]
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "big").write_bytes(b"x" * 5000)
    archive = tmp_path / "archive.tar"
    subprocess.run(["tar", "-C", tmp_path / "tree", "-cf", archive, "."], check=True)
    words = [command, str(archive), "bomb"]
    if command == "load":
        assert stowage("import", str(archive), "bomb").code == 0
        assert stowage("save", "-o", str(archive), "bomb").code == 0
        assert stowage("rmi", "bomb").code == 0
        words = [command, "-i", str(archive)]
    images = stowage("images", "-aq").out

    refused = stowage(*words, *limit) if command == "load" else stowage(command, *limit, *words[1:])

    assert refused.code == 1
    assert "holds more than 1" in refused.err
    assert stowage("images", "-aq").out == images
    assert stowage(words[0], "--max-size", "1m", "--max-entries", "99", *words[1:]).code == 0
    assert stowage("rmi", "bomb").code == 0

"""What is aufs's own: its marks, Docker's layout, names that cannot be, layers kept verbatim."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stowage import Engine, WhiteoutForm

pytestmark = pytest.mark.requires("fuse")


@pytest.fixture
def rig(shm_dir: Path, tools: Any) -> Any:
    return tools.rig("aufs", shm_dir)


def at(root: int, name: str) -> str:
    return f"/proc/self/fd/{root}/{name}"


def branch(rig: Any, chain: tuple[Path, ...], *names: str) -> tuple[Path, ...]:
    """A committed branch that holds these empty files (directories where they end in ``/``)."""
    layer = rig.prepare(chain)
    content = layer.directory / "diff"
    for name in names:
        if name.endswith("/"):
            (content / name).mkdir(parents=True, exist_ok=True)
        else:
            (content / name).parent.mkdir(parents=True, exist_ok=True)
            (content / name).write_text(name)
    chain_above: tuple[Path, ...] = rig.commit(layer)
    return chain_above


def shown(rig: Any, chain: tuple[Path, ...]) -> list[str]:
    with rig.open(rig.view(chain)) as root:
        top = at(root, ".")
        found = []
        for above, names, files in os.walk(top):
            found += [f"{above}/{name}".removeprefix(top + "/") for name in (*names, *files)]
        return sorted(found)


# --- marks --------------------------------------------------------------------------------------


def test_a_whiteout_hides_below_and_never_beside(rig: Any) -> None:
    base = branch(rig, (), "f", "d/x", "e/x")
    above = branch(rig, base, ".wh.f", "f", ".wh.d", "d/y", ".wh.e", ".wh.nothing")

    assert shown(rig, above) == ["d", "d/y", "f"]


def test_an_opaque_directory_shows_its_own_names_alone(rig: Any) -> None:
    base = branch(rig, (), "d/x", "d/sub/x")
    above = branch(rig, base, "d/.wh..wh..opq", "d/y")

    assert shown(rig, above) == ["d", "d/y"]


def test_aufs_own_names_mean_nothing_and_never_show(rig: Any) -> None:
    base = branch(rig, (), "f", ".wh..wh.plnk/1.2", ".wh..wh.orph/", ".wh..wh.aufs")
    above = branch(rig, base, "d/.wh..wh.plnk", "g")

    assert shown(rig, above) == ["d", "f", "g"]
    with rig.open(rig.view(above)) as root, pytest.raises(FileNotFoundError):
        os.stat(at(root, ".wh..wh.aufs"))


def test_what_is_removed_leaves_marks_as_archives_have_them(rig: Any, tools: Any) -> None:
    child = rig.prepare(branch(rig, (), "f", "g", "d/x", "e/x", "h"))
    own = child.directory / "diff"
    with rig.open(child) as root:
        os.unlink(at(root, "f"))
        os.unlink(at(root, "d/x"))
        os.rmdir(at(root, "d"))
        os.mkdir(at(root, "d"))
        os.unlink(at(root, "e/x"))
        os.rename(at(root, "e"), at(root, "n"))
        os.rename(at(root, "h"), at(root, "g"))
        tools.write(root, "again", "x")
        os.unlink(at(root, "again"))

    found = sorted(str(path.relative_to(own)) for path in own.rglob("*"))
    opaque = ["d/.wh..wh..opq", "n/.wh..wh..opq"]  # aufs marks what was renamed as well
    assert found == sorted([".wh.e", ".wh.f", ".wh.h", "d", "g", "n", *opaque])
    with rig.open(child) as root:
        assert sorted(os.listdir(root)) == ["d", "g", "n"]
        assert tools.read(root, "g") == "h"
        for name in ("d", "n"):
            assert os.listdir(at(root, name)) == []


def test_the_first_branch_wins_then_parents_nearest_first(rig: Any, tools: Any) -> None:
    first = rig.layer((), f="1", g="1", h="1")
    second = rig.layer(first, f="2", g="2")
    child = rig.prepare(second)
    with rig.open(child) as root:
        tools.write(root, "f", "3")
        assert [tools.read(root, name) for name in "fgh"] == ["3", "2", "1"]


# --- names that cannot be -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [".wh.x", ".wh.", ".wh..wh..opq", ".wh..wh.plnk"])
def test_no_file_can_have_the_name_of_a_mark(rig: Any, name: str, tools: Any) -> None:
    with rig.open(rig.prepare(rig.layer((), f="x"))) as root:
        acts: list[Callable[[], object]] = [
            lambda: tools.write(root, name, "x"),
            lambda: os.mkdir(at(root, name)),
            lambda: os.symlink("f", at(root, name)),
            lambda: os.link(at(root, "f"), at(root, name)),
            lambda: os.rename(at(root, "f"), at(root, name)),
            lambda: os.mkfifo(at(root, name)),
        ]
        for act in acts:
            with pytest.raises(PermissionError, match="Operation not permitted"):
                act()
        with pytest.raises(FileNotFoundError):
            os.stat(at(root, name))
        assert os.listdir(root) == ["f"]


def test_a_name_too_long_for_its_whiteout_is_refused(rig: Any, tools: Any) -> None:
    with rig.open(rig.prepare()) as root:
        tools.write(root, "x" * 251, "as long as can be")
        with pytest.raises(OSError, match="too long"):
            tools.write(root, "y" * 252, "")
        os.unlink("x" * 251, dir_fd=root)


# --- layout and facts ---------------------------------------------------------------------------


def test_the_layout_is_dockers_one_directory_per_snapshot(rig: Any, tools: Any) -> None:
    first = rig.layer((), f="1")
    second = rig.layer(first, g="1")
    third = rig.prepare(second)

    assert (first[0] / "layers").read_text() == ""
    assert (second[0] / "layers").read_text() == f"{first[0].name}\n"
    assert (third.directory / "layers").read_text() == f"{second[0].name}\n{first[0].name}\n"
    assert os.listdir(third.directory / "mnt") == []
    assert rig.driver.form is WhiteoutForm.OCI


def test_the_status_has_dockers_keys_and_the_probe_speaks_of_the_kernel(rig: Any) -> None:
    rig.prepare()
    status = rig.driver.storage_status()

    assert status["Dirs"] == "1"
    assert status["Dirperm1 Supported"] == "true"
    assert status["Root Dir"] == str(rig.root)
    assert any("aufs" in note for note in rig.driver.storage_probe().notes)


def test_a_kernel_that_has_aufs_is_named(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stowage_drivers.storage.aufs.filesystems", lambda: ["nodev", "aufs"])

    assert "has an aufs of its own" in rig.driver.storage_probe().notes[-1]
    assert rig.driver.storage_status()["Kernel aufs"] == "true"


def test_an_oci_layer_is_stored_verbatim(shm_dir: Path) -> None:
    """Its marks become the files that they are named after, byte for byte what was in it."""
    base, above = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=base, mode="w") as archive:
        for name in ("d/", "d/x", "f"):
            add(archive, name)
    with tarfile.open(fileobj=above, mode="w") as archive:
        for name in ("d/", "d/.wh..wh..opq", "d/y", ".wh.f"):
            add(archive, name)
    raw = above.getvalue()
    with Engine(shm_dir) as engine:
        engine.layers.add_layer(io.BytesIO(base.getvalue()), driver="aufs")
        (first,) = engine.layers.walk()
        info = engine.layers.add_layer(io.BytesIO(raw), first.chain_id, driver="aufs")
        content = shm_dir / "data/storage/aufs" / str(info.id) / "diff"
        found = sorted(str(path.relative_to(content)) for path in content.rglob("*"))
        out = io.BytesIO()
        engine.layers.export(info.name, out, driver="aufs")

        assert found == [".wh.f", "d", "d/.wh..wh..opq", "d/y"]
        assert out.getvalue() == raw
        with engine.layers.attached(info.name, driver="aufs") as root:
            assert os.listdir(root) == ["d"]
            assert os.listdir(at(root, "d")) == ["y"]


def add(archive: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    if name.endswith("/"):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(member)

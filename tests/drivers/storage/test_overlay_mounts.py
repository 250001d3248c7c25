"""Overlay's three ways to name layers to the kernel: each forced, each to its limits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from stowage import DirectoryOption, Kind, Mount, NotSupported
from stowage_drivers.storage._overlay_mounts import (
    FORMS,
    MAX_LOWERS,
    Upper,
    depth_of,
    overlay_mount,
    too_much,
)

pytestmark = pytest.mark.requires_root

HOSTILE_ROOTS = ("a:b", "a,b", "a\\b", "a\nb", "a b", "a\\:b\\,c\\\\", "ä\udcff", "x" * 250)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_layers_show_in_order_the_nearest_on_top(disk_dir: Path, form: str, tools: Any) -> None:
    rig = tools.rig("overlay", disk_dir, f"mount_form={form}")
    chain = rig.layer((), low="1", all="1")
    chain = rig.layer(chain, middle="2", all="2")
    top = rig.prepare(chain)

    with rig.open(top) as root:
        tools.write(root, "top", "3")
        assert sorted(os.listdir(root)) == ["all", "low", "middle", "top"]
        assert tools.read(root, "all") == "2"


@pytest.mark.parametrize("name", HOSTILE_ROOTS)
def test_no_character_or_length_of_the_roots_path_matters(
    shm_dir: Path, form: str, name: str, tools: Any
) -> None:
    rig = tools.rig("overlay", shm_dir / name / "storage", f"mount_form={form}")
    chain = rig.layer(rig.layer((), low="1"), middle="2")
    top = rig.prepare(chain)

    with rig.open(top) as root:
        tools.write(root, "top", "3")
        assert sorted(os.listdir(root)) == ["low", "middle", "top"]
    assert (top.directory / "fs" / "top").read_text() == "3"


@pytest.mark.parametrize("name", HOSTILE_ROOTS[:-1])
def test_a_directory_of_the_host_is_a_parent_whatever_its_name(
    shm_dir: Path, form: str, name: str, tools: Any
) -> None:
    host = shm_dir / "host" / name
    host.mkdir(parents=True)
    (host / "theirs").write_text("host")
    rig = tools.rig("overlay", shm_dir / "storage", f"mount_form={form}")
    active, view = rig.prepare([host]), rig.view([host])

    with rig.open(active) as root, rig.open(view) as looked_at:
        tools.write(root, "theirs", "changed")
        assert tools.read(looked_at, "theirs") == "host"

    assert (host / "theirs").read_text() == "host"


def test_a_host_path_too_long_for_a_string_is_refused_by_name(shm_dir: Path, tools: Any) -> None:
    host = shm_dir / ("x" * 200) / ("y" * 200)
    host.mkdir(parents=True)
    rig = tools.rig("overlay", shm_dir / "storage", "mount_form=string")

    with pytest.raises(NotSupported, match="longer than 255 bytes"):
        rig.prepare([host])


def chain_of(rig: Any, count: int) -> list[Path]:
    """Layers as the core would have made them, cheaply: only their ``fs``."""
    first = rig._next_id
    layers = [rig.root / str(number) for number in range(first, first + count)]
    for layer in layers:
        (layer / "fs").mkdir(parents=True)
        (layer / "fs" / layer.name).touch()
    rig._next_id += count
    return layers[::-1]


@pytest.mark.parametrize("kind", [Kind.ACTIVE, Kind.VIEW])
def test_500_layers_mount_and_501_are_refused(
    shm_dir: Path, form: str, kind: Kind, tools: Any
) -> None:
    """500 is the kernel's own limit; short ids let even one page of options reach it."""
    rig = tools.rig("overlay", shm_dir, f"mount_form={form}")
    chain = chain_of(rig, MAX_LOWERS)
    deep = rig.prepare(chain, kind)
    (below,) = chain_of(rig, 1)

    with rig.open(deep) as root:
        assert len(os.listdir(root)) == MAX_LOWERS
    with pytest.raises(NotSupported, match=r"cannot stack 501 layers(.|\n)*500 lower"):
        rig.prepare([*chain, below], kind)


def test_the_kernel_itself_refuses_501(shm_dir: Path, tools: Any) -> None:
    """So the limit that is named is the true one."""
    rig = tools.rig("overlay", shm_dir)
    chain = chain_of(rig, MAX_LOWERS + 1)
    snapshot = rig.prepare(chain[:1])
    too_deep = type(snapshot)(snapshot.directory, tuple(chain), Kind.ACTIVE)

    with pytest.raises(OSError, match="too many lower directories"), rig.open(too_deep):
        pass


def test_a_page_of_options_holds_as_many_layers_as_the_probe_says(
    shm_dir: Path, tools: Any
) -> None:
    rig = tools.rig("overlay", shm_dir, "mount_form=monolithic", first_id=100_000)
    depth = rig.driver.storage_probe().capabilities.max_depth
    assert 100 < depth < MAX_LOWERS
    chain = chain_of(rig, depth + 1)

    deep = rig.prepare(chain[:depth])
    with rig.open(deep) as root:
        assert len(os.listdir(root)) == depth
    with pytest.raises(NotSupported, match=rf"stack {depth + 1} layers(.|\n)*4095"):
        rig.prepare(chain)


def test_depth_is_the_kernels_limit_but_for_one_page(form: str) -> None:
    depth = depth_of(form, ["index=on"])

    assert (depth == MAX_LOWERS) == (form != "monolithic")


def test_layers_by_descriptor_carry_paths_and_no_strings() -> None:
    root = Path("/r")
    mount = overlay_mount(
        "descriptor", root, [root / "1/fs"], Upper(root / "2/fs", root / "2/work"), ["index=on"]
    )

    assert mount.options == (
        "index=on",
        DirectoryOption("lowerdir+", root / "1/fs"),
        DirectoryOption("upperdir", root / "2/fs"),
        DirectoryOption("workdir", root / "2/work"),
    )
    assert mount.directory is None


def test_strings_are_relative_to_the_root_and_escaped_where_overlay_splits() -> None:
    root = Path("/r")
    mount = overlay_mount("monolithic", root, [root / "1/fs", Path("/a:b,c\\d")], None, [])

    assert mount.options == ("ro", "lowerdir=1/fs:/a\\:b\\,c\\\\d")
    assert mount.directory == root
    assert mount.read_only


def test_a_page_is_full_at_4096_bytes_with_its_nul() -> None:
    def of(size: int) -> Mount:
        return Mount("overlay", "overlay", ("x" * size,), monolithic=True)

    assert too_much(of(4095)) is None
    assert "4096 bytes, of 4095" in str(too_much(of(4096)))

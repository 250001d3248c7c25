"""What a cgroup has used is read from v1, hybrid and v2 alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from stowage.containers.stats import link_bytes
from stowage.linux.cgroup_usage import CgroupUsage, cgroup_usage

V1 = {
    "cpuacct/cpuacct.usage": "1500000000\n",
    "memory/memory.usage_in_bytes": "1000000\n",
    "memory/memory.stat": "cache 5\ninactive_file 1\ntotal_inactive_file 400000\n",
    "memory/memory.limit_in_bytes": "67108864\n",
    "pids/pids.current": "3\n",
    "blkio/blkio.bfq.io_service_bytes_recursive": "Total 0\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": (
        "8:0 Read 4096\n8:0 Write 100\n8:0 Sync 4196\n7:0 Read 4\n8:0 Total 4196\nTotal 4200\n"
    ),
}
V2 = {
    "unified/cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
    "unified/memory.current": "1000000\n",
    "unified/memory.stat": "anon 5\ninactive_file 400000\n",
    "unified/memory.max": "67108864\n",
    "unified/pids.current": "3\n",
    "unified/io.stat": "8:0 rbytes=4096 wbytes=100 rios=1\n7:0 rbytes=4 wbytes=0 rios=1 wios=0\n",
}


def lay_out(place: Path, files: Mapping[str, str]) -> list[str]:
    """Make the files; returns their directories."""
    for name, text in files.items():
        place.joinpath(name).parent.mkdir(exist_ok=True)
        place.joinpath(name).write_text(text)
    return [str(entry) for entry in place.iterdir()]


@pytest.mark.parametrize("files", [V1, V2, {**V1, "unified/cgroup.procs": ""}])
def test_each_layout_gives_the_same(tmp_path: Path, files: Mapping[str, str]) -> None:
    """With a limit and without one."""
    used = cgroup_usage(lay_out(tmp_path, files))

    assert used == CgroupUsage(
        cpu_ns=1_500_000_000,
        memory_bytes=600_000,
        memory_limit_bytes=67108864,
        read_bytes=4100,
        written_bytes=100,
        tasks=3,
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [("memory/memory.limit_in_bytes", "9223372036854771712\n"), ("unified/memory.max", "max\n")],
)
def test_no_limit_is_none(tmp_path: Path, name: str, text: str) -> None:
    """However the kernel writes it."""
    assert cgroup_usage(lay_out(tmp_path, {name: text})).memory_limit_bytes is None


def test_what_is_gone_used_nothing(tmp_path: Path) -> None:
    """No file, no directory, no error."""
    assert cgroup_usage([]) == CgroupUsage()
    assert cgroup_usage([str(tmp_path / "gone")]) == CgroupUsage()


def test_links_are_summed_without_lo() -> None:
    """Received and sent, of /proc/net/dev."""
    text = (
        "Inter-|   Receive\n face |bytes\n"
        "    lo:     500       2    0    0    0     0          0         0      500       2\n"
        "  eth0:    1040      12    0    0    0     0          0         0       70       1\n"
        "  eth1:       1       1    0    0    0     0          0         0        2       1\n"
    )

    assert link_bytes(text) == (1041, 72)

"""Leases: free when their holder is, and a refusal that says who holds them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stowage.errors import Busy
from stowage.store.locks import Locks

HOLDER = (
    "import sys\n"
    "from pathlib import Path\n"
    "from stowage.store.locks import Locks\n"
    "Locks(Path(sys.argv[1])).acquire('x', exclusive=True, subject='x', purpose='busy testing')\n"
    "lease = Locks(Path(sys.argv[1])).try_acquire('x', exclusive=True)\n"
    "keep = Locks(Path(sys.argv[1])).try_acquire('y', exclusive=True, purpose='busy testing')\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def holder(tmp_path: Path):  # type: ignore[no-untyped-def]  # a generator of Popen
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_exclusive_excludes_and_shared_shares(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with locks.acquire("a", exclusive=False, subject="a"):
        second = locks.try_acquire("a", exclusive=False)
        assert second is not None
        assert locks.try_acquire("a", exclusive=True) is None
        second.close()
    with locks.acquire("a", exclusive=True, subject="a"):
        assert locks.try_acquire("a", exclusive=False) is None


def test_a_refusal_names_pid_command_and_purpose(
    tmp_path: Path, holder: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(Busy, match="layer y is in use") as caught:
        Locks(tmp_path).acquire("y", exclusive=True, subject="layer y", wait_seconds=0.02)

    (text,) = caught.value.holders
    assert text.startswith(f"{holder.pid} (")
    assert text.endswith("busy testing")
    assert "python" in text


def test_a_killed_holder_frees_the_lock(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    assert Locks(tmp_path).try_acquire("y", exclusive=True) is None
    holder.kill()
    holder.wait()

    lease = Locks(tmp_path).try_acquire("y", exclusive=True)
    assert lease is not None
    lease.close()


def test_a_deleted_file_is_not_held_for_its_successor(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    first = locks.acquire("a", exclusive=True, subject="a")
    first.discard()
    assert os.listdir(tmp_path) == []

    second = locks.acquire("a", exclusive=True, subject="a")
    assert locks.try_acquire("a", exclusive=False) is None
    second.close()


def test_a_lease_is_not_inherited_by_programs(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    lease = locks.acquire("a", exclusive=True, subject="a")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        lease.close()
        again = locks.try_acquire("a", exclusive=True)
        assert again is not None
        again.close()
        child.communicate()

"""The metastore: atomic, shared by threads and processes, refused when it is not ours."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stowage.effects import observe
from stowage.errors import DataLoss, FailedPrecondition, InvalidArgument
from stowage.store.metastore import Metastore, record_event
from stowage.store.schema import VERSION


def test_root_id_is_made_once(tmp_path: Path) -> None:
    first = Metastore(tmp_path / "metadata.db")
    second = Metastore(tmp_path / "metadata.db")

    assert first.root_id == second.root_id
    assert len(first.root_id) == 8
    first.close()
    second.close()


def test_settle_keeps_what_was_recorded_first(tmp_path: Path) -> None:
    store = Metastore(tmp_path / "metadata.db")

    assert store.settle("driver", "one") == "one"
    assert store.settle("driver", "two") == "one"
    store.change("driver", "three")
    assert store.setting("driver") == "three"
    store.close()


def test_a_file_of_a_newer_stowage_is_refused(tmp_path: Path) -> None:
    Metastore(tmp_path / "metadata.db").close()
    other = sqlite3.connect(tmp_path / "metadata.db")
    other.execute(f"PRAGMA user_version = {VERSION + 1}")
    other.close()

    with pytest.raises(FailedPrecondition, match="newer Stowage"):
        Metastore(tmp_path / "metadata.db")


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "metadata.db")
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()

    with pytest.raises(DataLoss, match="something else"):
        Metastore(tmp_path / "metadata.db")


def test_junk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.db").write_bytes(b"junk" * 1000)

    with pytest.raises(DataLoss, match="damaged"):
        Metastore(tmp_path / "metadata.db")


def test_an_exception_rolls_back(tmp_path: Path) -> None:
    store = Metastore(tmp_path / "metadata.db")

    with suppress(ValueError), store.transaction() as tx:
        tx.execute("INSERT INTO settings VALUES ('a', 'b')")
        raise ValueError

    assert store.setting("a") is None
    store.close()


def test_what_sqlite_cannot_take_is_a_typed_error(tmp_path: Path) -> None:
    """A name that is not UTF-8, a number of more than 64 bits: nothing has such a name."""
    store = Metastore(tmp_path / "metadata.db")
    for value, message in (("\udcff", r"not UTF-8: b'\xff'"), (1 << 63, "larger than 64 bits")):
        with pytest.raises(InvalidArgument, match=re.escape(message)):
            store.read().execute("SELECT 1 FROM settings WHERE name = ?", (value,))
    store.close()


def test_a_failing_commit_rolls_back(tmp_path: Path) -> None:
    store = Metastore(tmp_path / "metadata.db")

    class Refusing:
        def __enter__(self) -> None:
            raise OSError(5, "no")

        def __exit__(self, *exc: object) -> None: ...

    remove = observe(lambda name, facts: Refusing())
    try:
        with pytest.raises(OSError, match="no"):
            store.settle("a", "b")
    finally:
        remove()

    assert store.setting("a") is None
    store.close()


@pytest.mark.parametrize("record", ["settle", "change"])
def test_a_setting_is_recorded_without_the_ballast_on_a_full_disk(
    tmp_path: Path, record: str
) -> None:
    store = Metastore(tmp_path / "metadata.db")
    store.ballast.ensure()
    full = iter([True, True])  # as usual, and when it is tried again with the reserve

    @contextmanager
    def around(name: str, facts: dict[str, object]) -> Iterator[None]:
        if name == "metastore.commit" and next(full, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        yield

    remove = observe(around)
    try:
        getattr(store, record)("a", "b")
    finally:
        remove()

    assert store.setting("a") == "b"
    assert not store.ballast.path.exists()
    store.close()


def test_threads_and_a_second_store_write_without_loss(tmp_path: Path) -> None:
    stores = [Metastore(tmp_path / "metadata.db") for _ in range(2)]

    def write(store: Metastore, who: int) -> None:
        for number in range(20):
            with store.transaction() as tx:
                record_event(tx, "test", "write", f"{who}.{number}", {})

    threads = [
        threading.Thread(target=write, args=(stores[who % 2], who), daemon=True) for who in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    rows = stores[0].read().execute("SELECT seq, actor FROM journal ORDER BY seq").fetchall()
    assert len({row["actor"] for row in rows}) == 80
    assert [row["seq"] for row in rows] == list(range(1, 81))
    for store in stores:
        store.close()


def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from stowage.store.metastore import Metastore\n"
        "from stowage.errors import FailedPrecondition\n"
        "store = Metastore(Path(sys.argv[1]))\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        store.read()\n"
        "    except FailedPrecondition:\n"
        "        os._exit(7)\n"
        "    os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )

    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "metadata.db")])

    assert done.returncode == 7


def test_use_after_close_is_a_typed_error(tmp_path: Path) -> None:
    store = Metastore(tmp_path / "metadata.db")
    store.close()
    store.close()

    with pytest.raises(FailedPrecondition, match="closed"):
        store.setting("root-id")


def test_the_journal_does_not_grow_without_end(tmp_path: Path) -> None:
    store = Metastore(tmp_path / "metadata.db")
    with store.transaction() as tx:
        for number in range(16_384 + 600):
            record_event(tx, "test", "write", str(number), {})

    count, oldest = store.read().execute("SELECT count(*), min(seq) FROM journal").fetchone()
    assert 16_384 <= count <= 16_384 + 256
    assert oldest > 1
    store.close()


def test_a_killed_transaction_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from stowage.store.metastore import Metastore\n"
        "store = Metastore(Path(sys.argv[1]))\n"
        "with store.transaction() as tx:\n"
        "    tx.execute(\"INSERT INTO settings VALUES ('a', 'b')\")\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "metadata.db")])

    store = Metastore(tmp_path / "metadata.db")
    assert store.setting("a") is None
    assert store.settle("a", "c") == "c"
    assert os.listdir(tmp_path)
    store.close()

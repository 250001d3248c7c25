"""Fields of tar headers: the quick way to read PAX records is only quicker."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import example, given
from hypothesis import strategies as st

from stowage.errors import InvalidArchive
from stowage.layers import tarheader
from stowage.layers.tarheader import Extension, parse_pax, pax_record

_KEYS = st.sampled_from([b"path", b"mtime", b"GNU.sparse.offset", b"SCHILY.xattr.user.a", b""])
_VALUES = st.binary(max_size=6) | st.sampled_from([b"", b"\n", b"a=b", b"x\n12 path=y\n"])
_RECORDS = st.builds(pax_record, _KEYS, _VALUES)
_PIECES = _RECORDS | st.sampled_from(
    [b"\0", b"\n", b"011 path=xyz\n", b"+9 a=bcd\n", b"9 a bcde\n"]
)


def _outcome(parse: object, raw: bytes) -> Extension | str:
    assert callable(parse)
    try:
        found: Extension = parse(raw)
    except InvalidArchive as error:
        return f"{error}"
    return found


@given(st.lists(_PIECES | st.binary(max_size=8), max_size=5).map(b"".join))
@example(b"")
@example(b"12 path=x\ny\n")
def test_pax_records_mean_the_same_with_and_without_newlines_in_them(raw: bytes) -> None:
    """Whether or not the lines of a header are its records, the result is that of the one rule."""
    assert _outcome(parse_pax, raw) == _outcome(tarheader._parse_pax_bytes, raw)


def test_a_process_that_reads_archives_starts_without_msgspec() -> None:
    """Half of its start would go into that import."""
    program = "import sys, stowage.layers.apart_reader; sys.exit('msgspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0

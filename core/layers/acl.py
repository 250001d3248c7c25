"""POSIX ACLs: from the text that star and GNU tar write to the xattr that the kernel takes.

Text: star(5), ``SCHILY.acl.access`` and ``SCHILY.acl.default``; a fourth field holds the numeric
id. Binary: version 2 of ``include/uapi/linux/posix_acl_xattr.h``.
"""

from __future__ import annotations

from struct import Struct

from ..errors import InvalidArchive

ACCESS_ACL = b"system.posix_acl_access"

_VERSION = (2).to_bytes(4, "little")
_ENTRY = Struct("<HHI")  # tag, permissions, id
_NO_ID = 0xFFFFFFFF
_OWNER, _USER, _OWNING_GROUP, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_TAGS = {
    b"user": (_OWNER, _USER),
    b"u": (_OWNER, _USER),
    b"group": (_OWNING_GROUP, _GROUP),
    b"g": (_OWNING_GROUP, _GROUP),
    b"mask": (_MASK, _MASK),
    b"m": (_MASK, _MASK),
    b"other": (_OTHER, _OTHER),
    b"o": (_OTHER, _OTHER),
}
_PERMISSIONS = {b"r": 4, b"w": 2, b"x": 1, b"X": 1, b"-": 0}


def acl_from_text(text: bytes) -> bytes:
    """Return the value of ``system.posix_acl_access`` or ``_default`` for an ACL as text.

    Raises:
        InvalidArchive: if it is no ACL, or names somebody without a number: the layer's
            users are not those of this machine.
    """
    entries = []
    for line in text.replace(b",", b"\n").split(b"\n"):
        entry = line.partition(b"#")[0].strip()
        if entry:
            entries.append(_parse(entry))
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in sorted(entries))


def named_entries(value: bytes) -> bytes:
    """Return what chmod(2) leaves alone of an access ACL in its binary form: the entries of named
    users and groups."""
    rest = value[len(_VERSION) :]
    entries = _ENTRY.iter_unpack(rest[: len(rest) - len(rest) % _ENTRY.size])
    return b"".join(_ENTRY.pack(*entry) for entry in entries if entry[0] in (_USER, _GROUP))


def _parse(entry: bytes) -> tuple[int, int, int]:
    fields = entry.split(b":")
    tags = _TAGS.get(fields[0])
    if tags is None:
        raise _invalid(entry)
    if fields[0] in (b"other", b"o", b"mask", b"m") and len(fields) == 2:
        fields.insert(1, b"")  # Solaris leaves the empty field out
    if len(fields) not in (3, 4):
        raise _invalid(entry)
    try:
        permissions = sum({_PERMISSIONS[bytes([letter])] for letter in fields[2].strip()})
    except KeyError:
        raise _invalid(entry) from None
    if not fields[1]:
        return tags[0], permissions, _NO_ID
    number = fields[3] if len(fields) == 4 else fields[1]
    if not number.isdigit() or int(number) >= _NO_ID or tags[0] == tags[1]:
        raise _invalid(entry)
    return tags[1], permissions, int(number)


def _invalid(entry: bytes) -> InvalidArchive:
    return InvalidArchive(
        f"The archive has an ACL entry that means nothing here: {entry[:80]!r}",
        resolution="make the archive with numeric owners (tar --numeric-owner)",
    )

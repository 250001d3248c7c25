"""Images made of what Debian packages, where no registry can be asked.

``busybox`` is one static binary and its names, the same archive from the same package;
``debian`` is a minimal system put together by debootstrap (see :mod:`.debootstrap`).
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..effects import effect
from ..errors import NotSupported
from .reference import parse_tag_target
from .rows import Image
from .spool import new_spool
from .tarwriter import TarWriter

if TYPE_CHECKING:
    from .service import Images

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_DIRECTORIES = {
    "": 0o755, "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o555,
    "root": 0o700, "sbin": 0o755, "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755,
    "usr/sbin": 0o755, "var": 0o755, "var/spool": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:::::::\nnobody:*:::::::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_PRIVATE = {"etc/shadow": 0o640}
_BINARY = "bin/busybox"
_PT_INTERP = 3


def _ignore(message: str) -> None:
    """Tell nobody."""


def busybox(
    images: Images,
    reference: str = "busybox",
    *,
    driver: str | None = None,
    tell: Callable[[str], None] = _ignore,
) -> Image:
    """Make the image ``busybox`` of the machine's static busybox; a second time it is the same.

    Raises:
        InvalidArgument: for a bad reference.
        NotSupported: if there is no static busybox, naming its package.
    """
    parse_tag_target(reference)
    binary = find_busybox()
    tell(f"Packing {binary} and its applets")
    with new_spool(images.layout.data_root) as archive:
        write_busybox(binary, archive)
        archive.seek(0)
        image = images.import_tree(
            archive,
            reference,
            changes=['CMD ["sh"]', f"ENV PATH={PATH}"],
            comment="Made of the package busybox-static",
            # the binary's own time, so that the same package gives the same image
            created_ns=binary.stat().st_mtime_ns,
            driver=driver,
        )
    tell(f"Made {reference} ({image.short_id})")
    return image


def find_busybox() -> Path:
    """Return the machine's busybox.

    Raises:
        NotSupported: if there is none, or it needs shared libraries.
    """
    found = shutil.which("busybox", path=f"/bin:/usr/bin:{os.environ.get('PATH', '')}")
    if found is None:
        raise NotSupported(
            "cannot make the image busybox: there is no busybox on this machine",
            resolution="install it: apt-get install busybox-static",
        )
    path = Path(found).resolve()
    if needs_interpreter(path):
        raise NotSupported(
            f"cannot make the image busybox: {path} is not linked statically",
            resolution="install the static one: apt-get install busybox-static",
        )
    return path


def needs_interpreter(binary: Path) -> bool:
    """Tell whether an ELF file names a dynamic linker (a program header PT_INTERP, elf(5))."""
    with binary.open("rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF":
            return True
        order = "<" if head[5] == 1 else ">"
        wide = head[4] == 2  # 64 bits
        (start,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
        size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
        file.seek(start)
        headers = file.read(size * count)
    kinds = (struct.unpack_from(order + "I", headers, size * n)[0] for n in range(count))
    return _PT_INTERP in kinds


def write_busybox(binary: Path, out: BinaryIO) -> None:
    """Write the archive of a root file system with busybox to *out*.

    It depends on the binary alone. Applets are symbolic links where the binary says that they
    belong, so ``rm`` of one does not touch the others.
    """
    contents = binary.read_bytes()
    entries: dict[str, Callable[[TarWriter], None]] = {}
    for name, mode in _DIRECTORIES.items():
        entries[f"{name}/" if name else "./"] = _directory(name or ".", mode)
    for name, text in _FILES.items():
        entries[name] = _file(name, text.encode(), _PRIVATE.get(name, 0o644))
    for name in applets(binary):
        entries[name] = _link(name, f"/{_BINARY}")
    entries[_BINARY] = _file(_BINARY, contents, 0o755)
    archive = TarWriter(out)
    for name in sorted(entries):
        entries[name](archive)
    archive.close()


def _directory(name: str, mode: int) -> Callable[[TarWriter], None]:
    return lambda archive: archive.directory(name, mode)


def _file(name: str, contents: bytes, mode: int) -> Callable[[TarWriter], None]:
    return lambda archive: archive.file(name, contents, mode)


def _link(name: str, target: str) -> Callable[[TarWriter], None]:
    return lambda archive: archive.link(name, target)


def applets(binary: Path) -> list[str]:
    """Return the paths of busybox's applets, relative to the root (``bin/sh``)."""
    with effect("bootstrap.applets", path=binary):
        listed = subprocess.run(
            [binary, "--list-full"], capture_output=True, text=True, check=True, timeout=60
        )
    names = {line.strip() for line in listed.stdout.splitlines() if line.strip()}
    # /linuxrc is of no use in a container
    return sorted(name for name in names if "/" in name and name.rpartition("/")[0] in _DIRECTORIES)


def debian(
    images: Images,
    reference: str | None = None,
    *,
    suite: str = "bookworm",
    driver: str | None = None,
    tell: Callable[[str], None] = _ignore,
) -> Image:
    """Make the image ``debian:SUITE`` by debootstrap, from the machine's own package source.

    Takes about a minute, and 0.5 GiB of memory or of space below data-root while it does.

    Raises:
        InvalidArgument: for a bad reference.
        NotSupported: if debootstrap is missing, naming its package, or apt has no source.
        Unavailable: if debootstrap fails, with the end of its log.
    """
    from .debootstrap import debian_root

    target = reference or f"debian:{suite}"
    parse_tag_target(target)
    with new_spool(images.layout.data_root) as archive:
        debian_root(suite, images.layout.data_root, archive, tell)
        archive.seek(0)
        tell("Importing the layer")
        image = images.import_tree(
            archive,
            target,
            changes=['CMD ["bash"]', f"ENV PATH={PATH}"],
            comment=f"debootstrap --variant=minbase {suite}",
            driver=driver,
        )
    tell(f"Made {target} ({image.short_id})")
    return image

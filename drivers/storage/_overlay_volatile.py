"""Mounting a volatile upper directory again.

The kernel leaves a mark in the work directory of a volatile mount, also after an unmount, and
refuses to mount over it: after a power failure the contents may be anything. Within one boot
they are whole, so the mark is cleared if the boot that made it still runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from stowage import DataLoss, effect
from stowage.linux.files import remove_tree
from stowage.linux.process import boot_id

_BOOT = "trusted.stowage.boot"


def allow_remount(directory: Path) -> None:
    """Clear the mark of an earlier volatile mount of the snapshot, and note this boot.

    Raises:
        DataLoss: if another boot, or nobody knows which, left the mark.
    """
    work = directory / "work"
    mark = work / "work" / "incompat"
    if mark.exists():
        if _recorded_boot(work) != boot_id():
            raise DataLoss(
                f"the volatile snapshot {directory.name} was writable when the machine went down",
                details="nothing of it was ever synced, so its contents cannot be trusted",
                resolution="remove it and make it anew",
            )
        remove_tree(mark)
    with effect("overlay.record_boot", path=work):
        os.setxattr(work, _BOOT, boot_id().encode())


def _recorded_boot(work: Path) -> str:
    try:
        return os.getxattr(work, _BOOT).decode()
    except OSError:  # never recorded
        return ""

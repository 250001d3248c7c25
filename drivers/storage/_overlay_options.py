"""The options of the overlay driver, and the mount options that follow from them.

All mount options are always said, for a kernel's own defaults may be others.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Protocol

from stowage import BooleanType, ChoiceType, Option, Options, effect

from ._overlay_mounts import FORMS

OPTIONS: tuple[Option[object], ...] = (
    Option(
        "mount_form",
        ChoiceType(("auto", *FORMS)),
        "auto",
        "How layers are named to the kernel; auto takes the first that works.",
    ),
    Option(
        "index",
        ChoiceType(("auto", "on", "off")),
        "auto",
        "Keep hard links on copy-up and refuse to mount a snapshot twice; auto is on where the "
        "file system has file handles.",
        scope="both",
    ),
    Option(
        "metacopy",
        BooleanType(),
        False,
        "Copy up only the inode on chmod and chown; implies redirect_dir. Stays on for a root "
        "that used it. Diffs compare mounts.",
    ),
    Option(
        "redirect_dir",
        BooleanType(),
        False,
        "Let directories of a parent be renamed. Diffs compare mounts, also in a root that used "
        "it once.",
    ),
    Option(
        "volatile",
        BooleanType(),
        False,
        "Never sync; a snapshot that was writable when the machine went down is refused.",
        scope="both",
    ),
)

_USED = "trusted.stowage.overlay"


class IndexTraits(Protocol):
    """What flags need to know of a probe's answer."""

    @property
    def index(self) -> bool: ...

    @property
    def userxattr(self) -> bool: ...


class Settings:
    """What is asked of one root, now and earlier.

    Layers made with ``metacopy`` or ``redirect_dir`` cannot be read without them, so their first
    use is noted as an xattr of the root's directory and goes with it wherever it is copied.
    """

    def __init__(self, root: Path, options: Options) -> None:
        self._root = root
        self._options = options

    @cached_property
    def _used(self) -> frozenset[str]:
        try:
            return frozenset(os.getxattr(self._root, _USED).decode().split(","))
        except OSError:  # never recorded, no such directory yet, or no xattrs at all
            return frozenset()

    def record_use(self) -> None:
        """Note what layers of this root may contain from now on; before the first one does."""
        now = {name for name in ("metacopy", "redirect_dir") if self._options.boolean(name)}
        if not now <= self._used:
            with effect("overlay.record_use", path=self._root):
                os.setxattr(self._root, _USED, ",".join(sorted(now | self._used)).encode())
            del self._used

    @property
    def forms(self) -> tuple[str, ...]:
        """The mount forms to try, best first."""
        form = self._options.text("mount_form")
        return FORMS if form == "auto" else (form,)

    @property
    def index(self) -> str:
        return self._options.text("index")

    @property
    def metacopy(self) -> bool:
        return self._options.boolean("metacopy") or "metacopy" in self._used

    @property
    def redirects(self) -> bool:
        """Whether directories of parents can be renamed."""
        return self._options.boolean("redirect_dir") or self.metacopy

    @property
    def indirect(self) -> bool:
        """Whether an upper directory may say less than what changed."""
        return self.redirects or "redirect_dir" in self._used

    def volatile(self, options: Options | None = None) -> bool:
        """Whether a snapshot with *options* (else: any) is mounted without syncing."""
        own = options is not None and "volatile" in options.given
        return (options if own and options else self._options).boolean("volatile")

    def writable_flags(self, traits: IndexTraits, options: Options | None = None) -> list[str]:
        """Return the flags of a writable mount; *options* are the snapshot's."""
        index = traits.index
        if options is not None and "index" in options.given:
            index = index and options.text("index") != "off"
        flags = [*self._common_flags(traits), f"index={'on' if index else 'off'}"]
        if self.volatile(options):
            flags.append("volatile")
        redirect = "on" if self.redirects else "follow" if self.indirect else "nofollow"
        return [*flags, f"redirect_dir={redirect}"]

    def read_only_flags(self, traits: IndexTraits) -> list[str]:
        """Return the flags of a mount without an upper directory."""
        redirect = "follow" if self.indirect else "nofollow"
        return [*self._common_flags(traits), f"redirect_dir={redirect}"]

    def _common_flags(self, traits: IndexTraits) -> list[str]:
        metacopy = f"metacopy={'on' if self.metacopy else 'off'}"
        return [metacopy, "userxattr"] if traits.userxattr else [metacopy]

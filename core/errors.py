"""What can go wrong, as one small tree; a class exists because a caller acts differently.

::

    StowageError
    ├── InvalidArgument          the request itself is wrong
    │   ├── InvalidConfig        configuration or options; lists every problem
    │   └── InvalidArchive       junk, truncated, hostile or wrongly compressed
    ├── NotFound
    ├── AlreadyExists
    ├── FailedPrecondition       right request, wrong state
    │   └── Busy                 somebody uses it; says who
    ├── NotSupported             not here; says why and what would help
    ├── NoSpace                  disk or quota used up (ENOSPC, EDQUOT)
    ├── PermissionDenied
    ├── DataLoss                 what is stored is not what was stored
    ├── Unavailable              try again later
    ├── DriverFailed             a driver raised something that is not ours
    └── CommandFailed            the process of a container could not be started

The classes are containerd's error classes (errdefs) with Docker's words in their texts.
Exit codes and HTTP codes are mapped in one table each, in ``cli`` and ``api``.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Sequence


class StowageError(Exception):
    """The root of all errors that Stowage raises on purpose.

    Carries *brief* (what failed, on which object), *details* (the cause) and *resolution*
    (what to do next). ``str()`` joins those that are set with newlines. *errno* is the kernel's
    number where an ``OSError`` was the cause.
    """

    def __init__(
        self, brief: str, *, details: str | None = None, resolution: str | None = None
    ) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution
        self.errno: int | None = None

    def __str__(self) -> str:
        return "\n".join(part for part in (self.brief, self.details, self.resolution) if part)


class InvalidArgument(StowageError):
    """The request is wrong in itself, whatever the state."""


class InvalidConfig(InvalidArgument):
    """Configuration or options are wrong; *problems* holds every one of them."""

    def __init__(
        self, brief: str, problems: Sequence[str], *, resolution: str | None = None
    ) -> None:
        super().__init__(brief, details="\n".join(problems), resolution=resolution)
        self.problems = tuple(problems)


class InvalidArchive(InvalidArgument):
    """An archive is junk, truncated, hostile or wrongly compressed; nothing of it was kept."""


class NotFound(StowageError):
    """An object of *kind* called *name* does not exist."""

    def __init__(
        self, kind: str, name: str, *, brief: str | None = None, resolution: str | None = None
    ) -> None:
        super().__init__(brief or f"No such {kind}: {name}", resolution=resolution)
        self.kind = kind
        self.name = name


class AlreadyExists(StowageError):
    """An object of *kind* called *name* exists already."""

    def __init__(
        self, kind: str, name: str, *, brief: str | None = None, resolution: str | None = None
    ) -> None:
        super().__init__(brief or f"{kind} {name!r} already exists", resolution=resolution)
        self.kind = kind
        self.name = name


class FailedPrecondition(StowageError):
    """The request is right, but the object's state does not allow it."""


class Busy(FailedPrecondition):
    """The object is in use; *holders* says by whom ("1234 (sh): mounted at /x")."""

    def __init__(
        self, brief: str, holders: Sequence[str] = (), *, resolution: str | None = None
    ) -> None:
        super().__init__(
            brief,
            details="\n".join(f"held by {holder}" for holder in holders) or None,
            resolution=resolution,
        )
        self.holders = tuple(holders)


class NotSupported(StowageError):
    """It cannot be done on this machine or with this driver; always says why."""


class NoSpace(StowageError):
    """The file system or a quota is used up."""


class PermissionDenied(StowageError):
    """The process lacks a privilege; *details* names it."""


class DataLoss(StowageError):
    """Stored data differs from what was recorded of it."""


class Unavailable(StowageError):
    """Something needed does not answer now; trying again later may work."""


class DriverFailed(StowageError):
    """A driver raised an exception of its own; it is the ``__cause__``."""


class CommandFailed(StowageError):
    """A container's process could not be started.

    *exit_code* follows Docker: 125 the engine failed, 126 the command cannot be executed,
    127 the command was not found.
    """

    def __init__(
        self,
        brief: str,
        exit_code: int = 125,
        *,
        details: str | None = None,
        resolution: str | None = None,
    ) -> None:
        super().__init__(brief, details=details, resolution=resolution)
        self.exit_code = exit_code


_CLASS_BY_ERRNO: dict[int, type[StowageError]] = {
    _errno.ENOSPC: NoSpace,
    _errno.EDQUOT: NoSpace,
    _errno.EPERM: PermissionDenied,
    _errno.EACCES: PermissionDenied,
    _errno.EBUSY: FailedPrecondition,
    _errno.EROFS: FailedPrecondition,
    _errno.ESTALE: FailedPrecondition,
    _errno.ENOENT: FailedPrecondition,
    _errno.ENOTDIR: FailedPrecondition,
    _errno.EISDIR: FailedPrecondition,
    _errno.EEXIST: FailedPrecondition,
    _errno.ENOTEMPTY: FailedPrecondition,
    _errno.EINVAL: InvalidArgument,
    _errno.ENAMETOOLONG: InvalidArgument,
    _errno.EIO: DataLoss,
    _errno.ENOSYS: NotSupported,
    _errno.EOPNOTSUPP: NotSupported,
    _errno.EMFILE: Unavailable,
    _errno.ENFILE: Unavailable,
    _errno.ENOMEM: Unavailable,
}


def from_os_error(error: OSError, brief: str, *, resolution: str | None = None) -> StowageError:
    """Return the StowageError that an OSError means; raise it ``from`` the original.

    The class is chosen by errno (ENOSPC and EDQUOT become NoSpace, EPERM and EACCES
    PermissionDenied, EIO DataLoss, …); an errno that means nothing special becomes Unavailable.
    """
    number = error.errno or 0
    details = f"{os.strerror(number)} (errno {number})" if number else str(error)
    if error.filename is not None:
        details += f": {shown_file(error.filename)}"
    kind = _CLASS_BY_ERRNO.get(number, Unavailable)
    translated = kind(brief, details=details, resolution=resolution)
    translated.errno = error.errno
    return translated


def shown_file(name: str | bytes | int) -> str:
    """Return what an OSError's ``filename`` is called in messages: a path or a descriptor."""
    return f"descriptor {name}" if isinstance(name, int) else os.fsdecode(name)

"""One place where errors become messages and exit codes.

============================== ==================================================================
``run``, ``create``            ``stowage: <brief>.``; 125, or what CommandFailed says (126, 127)
any other command              ``Error: <brief>``; 1, or what CommandFailed says
wrong flags                    pflag's words and ``See 'stowage … --help'.``; 125
a template that is no template 64
SIGINT, broken pipe            130, 141
============================== ==================================================================

Details follow indented, the resolution after ``Hint:``. Never a traceback unless debugging.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback

from ..errors import CommandFailed, InvalidArgument, StowageError, shown_file

FAILED = 1
#: The engine failed before a container's own process could: Docker's code for run and exec.
ENGINE_FAILED = 125
INTERRUPTED = 130
#: Docker's code for a template that cannot be parsed.
TEMPLATE_EXIT_CODE = 64

_FREE = "free space where the root lives: 'stowage rmi', 'stowage rm', 'stowage gc'"
_HINTS = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EACCES: "run as root, or keep a root of your own with --root DIR",
    errno.EROFS: "keep the root on a file system that can be written to: --root DIR",
}


def describe(error: BaseException, prefix: str = "Error: ") -> str:
    """Return what the user reads of *error*: what, why, remedy."""
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(describe(one, prefix) for one in error.exceptions)
    if isinstance(error, StowageError):
        lines = [prefix + error.brief]
        lines += [f"  {line}" for line in (error.details or "").splitlines()]
        lines += [f"Hint: {line}" for line in (error.resolution or "").splitlines()]
        return "\n".join(lines)
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else str(error)
        where = f"{shown_file(error.filename)}: " if error.filename is not None else ""
        hint = _HINTS.get(error.errno or 0)
        return f"{prefix}{where}{reason}" + (f"\nHint: {hint}" if hint else "")
    return (
        f"{prefix}internal error: {type(error).__name__}: {error}\n"
        "Hint: this is a bug in stowage; run the command again as 'stowage --debug …' for more"
    )


def exit_code(error: BaseException, default: int) -> int:
    """Return the code for *error*; *default* is the command's own for failures."""
    if isinstance(error, CommandFailed):
        return error.exit_code
    if isinstance(error, StowageError) and error.brief.startswith("template parsing error"):
        return TEMPLATE_EXIT_CODE
    return default


def report(error: BaseException, prefix: str = "Error: ", *, debug: bool = False) -> None:
    """Print *error* to stderr, with its traceback when debugging."""
    if debug and not isinstance(error, InvalidArgument):  # what a user wrote is no riddle
        traceback.print_exception(error)
    print(describe(error, prefix), file=sys.stderr)

"""From the kernel's errors to ours."""

from __future__ import annotations

import errno

import pytest

from stowage.cli.errors import describe
from stowage.errors import DataLoss, NoSpace, PermissionDenied, Unavailable, from_os_error


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EACCES, PermissionDenied),
        (errno.EIO, DataLoss),
        (errno.EAGAIN, Unavailable),
    ],
)
def test_the_class_follows_errno(number: int, kind: type[Exception]) -> None:
    assert type(from_os_error(OSError(number, "x"), "it failed")) is kind


@pytest.mark.parametrize(
    ("name", "shown"), [("/a", "/a"), (b"/\xff", "/\udcff"), (8, "descriptor 8")]
)
def test_the_file_of_an_error_is_shown_whatever_it_is(name: str | bytes | int, shown: str) -> None:
    """``os`` names a file by its path or, in the calls that take one, by its descriptor."""
    error = OSError(errno.EBADF, "x")
    error.filename = name

    assert shown in str(from_os_error(error, "it failed"))
    assert shown in describe(error)

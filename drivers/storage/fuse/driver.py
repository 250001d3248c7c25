"""The driver; see the package's docstring."""

from __future__ import annotations

from typing import ClassVar

from stowage import WhiteoutForm

from .._union.driver import UnionDriver


class FuseDriver(UnionDriver):
    """The union with the marks of overlay."""

    name: ClassVar[str] = "fuse"
    priority: ClassVar[int] = 10
    form: ClassVar[WhiteoutForm] = WhiteoutForm.OVERLAY
    prefix: ClassVar[str] = "trusted.overlay."

"""``--init``: a small first process that forwards signals and reaps what nobody waits for.

The program is one of Debian's, bound into the container; it must be static, for the container
may have no libc, or another one.
"""

from __future__ import annotations

import shutil

from ..errors import NotSupported
from .runtime import search_path

#: Where it is seen in the container, as in Docker.
PLACE = "/sbin/docker-init"
_PROGRAMS = ("docker-init", "tini-static", "catatonit")


def find_init() -> str:
    """Return the path of an init on the host.

    Raises:
        NotSupported: if none is installed; names the package.
    """
    for name in _PROGRAMS:
        path = shutil.which(name, path=search_path())
        if path is not None:
            return path
    raise NotSupported(
        "--init needs a small init program, and none is installed",
        details="looked for " + ", ".join(_PROGRAMS),
        resolution="apt-get install tini",
    )

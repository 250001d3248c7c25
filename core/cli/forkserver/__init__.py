"""The fork server: a process that has everything imported and forks for each command line.

Starting Python and importing what a command needs takes longer than most commands do. Who starts
``stowage system fork-server`` (or enables its systemd unit) spares that: the command ``stowage``
then only hands its words, environment, working directory and descriptors to the server
(:mod:`.client`), which forks a child that runs the command as if it had been started in the
client's place (:mod:`.child`). Nothing is kept between commands: each child opens the root anew,
like any other process on it.

Without a server, or where one would not do just the same (other namespaces, limits, credentials or
code: :mod:`.likeness`), the command runs in its own process as ever. So the server is an
acceleration, never a daemon that anything depends on, and may be killed at any time.

The conversation, on a unix socket (client ``>``, server's child ``<``)::

    > length in 4 bytes, request (NUL-separated); descriptors by SCM_RIGHTS
    < "n": not for me                  or   < "s" and the child's pid in 4 bytes
                                            > "g": go. Without it nothing is run
                                            < "x" and the exit code in one byte
                                              (the server: "k" and the signal that killed it)
"""

from __future__ import annotations

import os

#: Where the socket is, unless ``STOWAGE_FORK_SERVER`` says another place (or ``off``).
DEFAULT_SOCKET = "/run/stowage/fork-server"
VARIABLE = "STOWAGE_FORK_SERVER"

NOT_FOR_ME, STARTED, GO, EXITED, KILLED = b"n", b"s", b"g", b"x", b"k"


def socket_path() -> str | None:
    """Return where the server listens if there is one; None if it is not to be used."""
    told = os.environ.get(VARIABLE) or DEFAULT_SOCKET
    return None if told == "off" else told

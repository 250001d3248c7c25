"""A process that has the command line imported already, and forks for each ``docker`` of bash.

Starting Python and importing is most of what a short command costs; lines with pipes have many.
As a program (``python -I -S zygote.py SOCKET WORDS…``) this is the client: it hands over its words,
its directory and its three streams, and exits with the command's code.
"""

from __future__ import annotations

import json
import os
import socket
import sys

TYPE_CHECKING = False  # typing takes longer to import than all of the client
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAILED = 70


def start(path: Path, main: Callable[[list[str]], int]) -> int:
    """Fork the process that listens at *path* and runs *main* for each client; return its pid."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)
    child = os.fork()
    if child:
        listener.close()
        return child
    while True:  # until it is killed
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            serve(client, main)
        client.close()
        while _reaped():
            pass


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def serve(client: socket.socket, main: Callable[[list[str]], int]) -> None:
    """Be the command that *client* asks for; does not return."""
    code = FAILED
    try:
        message, descriptors, _, _ = socket.recv_fds(client, 1 << 16, 3)
        request = json.loads(message)
        code = become(request["words"], request["directory"], descriptors, main)
    finally:
        client.sendall(str(code).encode())
        os._exit(code)


def become(
    words: list[str], directory: str, descriptors: list[int], main: Callable[[list[str]], int]
) -> int:
    """Run *main* on *words* in *directory*, with *descriptors* as the three streams."""
    os.chdir(directory)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def ask(path: str, words: list[str]) -> int:
    """Let the process at *path* run the command *words*; return its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        request = json.dumps({"words": words, "directory": os.getcwd()})
        socket.send_fds(server, [request.encode()], [0, 1, 2])
        return int(server.recv(16) or FAILED)


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:]))

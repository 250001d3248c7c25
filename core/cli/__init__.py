"""The command line: one module per noun, loaded only when its command is used.

``--version`` and ``--help`` import next to nothing; everything else goes through
:mod:`stowage.cli.dispatch`.
"""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run the command line *argv* (default: this process's) and return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments in (["--version"], ["-v"]):
        from ..version import VERSION

        text = f"Stowage version {VERSION}"
    elif not arguments or arguments in (["--help"], ["-h"], ["help"]):
        from .commands import overview

        text = overview()
    elif arguments[4:6] == ["container", "finish"] and _is_finished(arguments):
        return 0
    else:
        try:
            from .forkserver.client import through_server

            code = through_server(arguments)
            if code is not None:
                return code
            from .dispatch import run
        except KeyboardInterrupt:  # Ctrl-C while the modules are still read
            return 130

        return run(arguments)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        from .streams import silence

        return silence()
    return 0


def _is_finished(arguments: list[str]) -> bool:
    from .finished import is_finished

    return is_finished(arguments)

"""``python -m stowage_bench``: the speed of this checkout on this machine, beside its rivals.

Everything runs in a lab (network and mount namespaces of its own, a tmpfs), on file systems that
are made for the run; nothing is left. The table is for reading: no figure fails anything.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from stowage.testing.lab import enter_lab

from . import trees
from .command_line import CommandLineBench
from .containers import RunBench, start_up
from .fuse import FuseBench
from .measure import Figure, table
from .network import NetworkBench
from .places import KINDS, loop_mounted
from .storage import StorageBench

GROUPS = ("start", "storage", "run", "network", "cli", "fuse")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for and print the table; returns the exit code."""
    asked = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("the benchmarks mount file systems: run them as root", file=sys.stderr)
        return 1
    figures: list[Figure] = []
    try:
        for figure in _figures(asked):
            figures.append(figure)
            print(f"measured: {figure.title}", file=sys.stderr, flush=True)
    finally:
        print(f"\nLinux {platform.release()}, Python {platform.python_version()}, "
              f"{os.cpu_count()} cores; medians, interleaved\n")  # fmt: skip
        print(table(figures))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stowage_bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["speed"], default="speed")
    parser.add_argument("--rounds", type=int, default=7, help="of the slow figures (default: 7)")
    parser.add_argument("--fs", default=",".join(KINDS), help="file systems (default: ext4,xfs)")
    parser.add_argument(
        "--only",
        choices=GROUPS,
        action="append",
        help="groups of figures (default: all)",
    )
    parser.add_argument(
        "--tree",
        metavar="DIR",
        type=Path,
        help="a Debian root to measure with; made there by debootstrap if it does not exist. "
        "Without it a tree of the same shape is made up",
    )
    return parser


def _figures(asked: argparse.Namespace) -> Iterator[Figure]:
    groups = asked.only or GROUPS
    with ExitStack() as stack:
        given = asked.tree and (asked.tree if asked.tree.exists() else trees.debian(asked.tree))
        lab = enter_lab(size_bytes=8 << 30)
        stack.callback(lab.leave)
        if "start" in groups:
            yield start_up(asked.rounds)
        if not {"storage", "fuse"}.isdisjoint(groups):
            tree = given or trees.synthetic(lab.directory / "tree")
            archive = trees.pack(tree, lab.directory / "layer.tar")
        first = asked.fs.split(",")[0]
        for kind in asked.fs.split(","):
            with loop_mounted(kind, lab.directory) as place:
                if "storage" in groups:
                    yield from StorageBench(kind, place, tree, archive, asked.rounds).figures()
                if "run" in groups:
                    yield from RunBench(kind, place, asked.rounds).figures()
                if "network" in groups and kind == first:
                    yield from NetworkBench(place, asked.rounds).figures()
                if "fuse" in groups and kind == first:
                    yield from FuseBench(kind, place, tree, asked.rounds).figures()
                if "cli" in groups and kind == first:
                    yield from CommandLineBench(kind, place, asked.rounds).figures()


if __name__ == "__main__":
    sys.exit(main())

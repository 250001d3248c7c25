"""``python -m tests.parity``: Docker's everyday command lines beside ours.

``record`` runs them with Debian's dockerd 20.10 in a lab of its own and keeps what it did in
docker-20.10.json; ``compare`` (the default) runs them with this checkout and shows for each line
whether it is the same; ``drop`` compares, and takes differences that are none any more out of
docs/docker-differences.md.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from stowage.testing.lab import Lab, enter_lab

from .listed import UNFINISHED, drop, listed
from .scenes import Result, Scene, Side, differing, play, record, recorded, scenes
from .sides import archive_of, dockerd, stowage


def main() -> int:
    """Do what the arguments say; return 1 if a difference is not listed, or a listed is none."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["compare", "record", "drop"], default="compare")
    parser.add_argument("--topic", action="append", help="only these topics")
    parser.add_argument("--all", action="store_true", help="show listed differences as well")
    parser.add_argument("--docker", type=Path, default=Path("/usr"), metavar="DIR",
                        help="where sbin/dockerd and bin/docker are (default: /usr)")  # fmt: skip
    asked = parser.parse_args()
    chosen = [scene for scene in scenes() if not asked.topic or scene.topic in asked.topic]
    lab = enter_lab()
    try:
        if asked.what == "record":
            with dockerd(lab, archive_of(lab), directory=asked.docker) as docker:
                record(_kept(asked.topic, _played(chosen, docker, lab)))
            return 0
        with stowage(lab) as side:
            return _compare(chosen, side, lab, every=asked.all, dropping=asked.what == "drop")
    finally:
        lab.leave()


def _played(chosen: list[Scene], side: Side, lab: Lab) -> list[Result]:
    results: list[Result] = []
    for number, scene in enumerate(chosen):
        directory = lab.directory / f"scene{number}" / "work"
        directory.mkdir(parents=True)
        results += play(scene, side, directory)
        print(f"played: {scene.topic}", file=sys.stderr, flush=True)
    return results


def _kept(topics: list[str] | None, fresh: list[Result]) -> list[Result]:
    """Put *fresh* among what is recorded of other topics."""
    if not topics:
        return fresh
    old = [one for one in recorded() if one.topic not in topics]
    order = [scene.topic for scene in scenes()]
    return sorted([*old, *fresh], key=lambda one: order.index(one.topic))


def _compare(chosen: list[Scene], side: Side, lab: Lab, *, every: bool, dropping: bool) -> int:
    known = listed()
    topics = {scene.topic for scene in chosen}
    theirs = [one for one in recorded() if one.topic in topics]
    ours = _played(chosen, side, lab)

    def tell(one: Result, other: Result) -> None:
        if every or one.line not in known:
            _show(one, other)

    found = differing(theirs, ours, tell)
    gone = set(known) - {one.line for one in recorded()}
    stale = gone | {line for line in known if line in {one.line for one in ours}} - found
    unfinished = {line for line in stale if known[line] == UNFINISHED}
    print(
        f"{len(ours)} lines: {len(ours) - len(found)} the same, {len(found)} differ,"
        f" {len(found - set(known))} of them not listed; {len(stale)} listed without need"
    )
    for line in sorted(stale - unfinished):
        print(f"listed without need: {line}")
    if dropping:
        drop(stale)
    return 1 if found - set(known) or (stale - unfinished and not dropping) else 0


def _show(one: Result, other: Result) -> None:
    print(f"\n[{one.topic}] {one.line}")
    if one.code != other.code:
        print(f"  exit code {one.code} (docker), {other.code} (stowage)")
    for name in ("stdout", "stderr"):
        left, right = getattr(one, name), getattr(other, name)
        if left != right:
            lines = difflib.unified_diff(
                left.split("\n"), right.split("\n"), f"docker {name}", f"stowage {name}",
                lineterm="", n=0,
            )  # fmt: skip
            print("\n".join(f"  {line}" for line in lines if not line.startswith("@@")))


if __name__ == "__main__":
    sys.exit(main())

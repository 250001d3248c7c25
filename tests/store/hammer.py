"""One of several processes that do anything to one root: ``hammer.py ROOT SEED SECONDS DRIVER``.

Whatever is refused must be refused by one of the store's own errors.
"""

from __future__ import annotations

import io
import os
import random
import sys
import tarfile
import time

from stowage.engine import Engine
from stowage.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StowageError,
)
from stowage.layers.store import LayerStore

NAMES = ("a", "b", "c", "d")
ALLOWED = (AlreadyExists, FailedPrecondition, InvalidArgument, NotFound)


def archive(name: str) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    out.seek(0)
    return out


def act(layers: LayerStore, chance: random.Random) -> None:
    key, other = chance.choice(NAMES), chance.choice(NAMES)
    match chance.randrange(9):
        case 0 | 1:
            layers.prepare(key, chance.choice((None, other)))
        case 2:
            layers.view(key, other)
        case 3:
            layers.commit(key, other)
        case 4:
            layers.remove(key)
        case 5:
            with layers.attached(key) as root:
                os.mkdir(f"d{chance.randrange(1000)}", dir_fd=root)
        case 6:
            with layers.mounted(key) as path:
                os.listdir(path)
        case 7:
            layers.add_layer(archive(key))
        case 8:
            for info in list(layers.walk()):
                if info.name.startswith("sha256:") and chance.random() < 0.5:
                    layers.remove(info.name)


def main(root: str, seed: str, seconds: str, driver: str) -> int:
    chance = random.Random(int(seed))
    end = time.monotonic() + float(seconds)
    done = refused = 0
    with Engine(root, storage_driver=driver) as engine:
        while time.monotonic() < end:
            try:
                act(engine.layers, chance)
                done += 1
            except ALLOWED:
                refused += 1
            except StowageError as error:
                print(f"{type(error).__name__}: {error}")
                return 1
            except OSError as error:
                if "Read-only" not in str(error) and not isinstance(error, FileExistsError):
                    raise
            if findings := engine.layers.check() if chance.random() < 0.02 else []:
                print("false alarm:", *findings, sep="\n")
                return 1
    print(done, refused)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

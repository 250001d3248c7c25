"""What a user of the command line waits for, beside Docker and Podman in the same lab."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

from .measure import Figure, Limit, Side, compare
from .rivals import Rival, docker, podman, stowage

MANY = 50
_IMAGE = "busybox"
_PORT = "127.0.0.1:18080:80"
_HALF = Limit(0.5)


class CommandLineBench:
    """Whole command lines on the default bridge; all three run crun or runc on overlayfs."""

    def __init__(self, kind: str, place: Path, rounds: int) -> None:
        self.kind = kind
        self.place = place
        self.rounds = rounds

    def figures(self) -> Iterator[Figure]:
        """Yield each figure against each rival that is installed; name those that are not."""
        command = (str(Path(sys.executable).with_name("stowage")),)
        socket = self.place / "fork-server"
        alone = stowage(self.place / "cli", command)
        forked = stowage(self.place / "cli", command, str(socket))
        alone.run("bootstrap", _IMAGE)
        archive = self.place / "busybox.tar"
        alone.run("save", "-o", str(archive), _IMAGE)
        forked.run("system", "fork-server")
        try:
            for start in (docker, podman):
                yield from self._with(start, (alone, forked), archive)
        finally:
            alone.remove_all()
            forked.run("system", "fork-server", "--stop")

    def _with(
        self,
        start: Callable[[Path], AbstractContextManager[Rival]],
        ours: Sequence[Rival],
        archive: Path,
    ) -> Iterator[Figure]:
        with ExitStack() as stack:
            try:
                rival = stack.enter_context(start(self.place / start.__name__))
            except (FileNotFoundError, RuntimeError) as error:
                print(f"left out: {error}", file=sys.stderr)
                return
            rival.run("load", "-i", str(archive))
            for one in ours:
                yield self._line(one, rival, "run --rm busybox true", "run", "--rm", _IMAGE, "true")
                words = ("run", "--rm", "-p", _PORT, _IMAGE, "true")
                yield self._line(one, rival, "the same with one port", *words)
                yield self._exec(one, rival)
            yield from self._many(ours, rival)
            yield self._memory(ours[0], rival)

    def _title(self, text: str, ours: Rival, rival: Rival) -> str:
        return f"{self.kind}: {text} ({ours.name} / {rival.name})"

    def _line(self, ours: Rival, rival: Rival, text: str, *words: str) -> Figure:
        return compare(
            self._title(text, ours, rival),
            Side(ours.name, lambda: ours.run(*words)),
            Side(f"{rival.name} {' '.join(words)}", lambda: rival.run(*words)),
            rounds=self.rounds * 2,
            limit=_HALF,
        )

    def _exec(self, ours: Rival, rival: Rival) -> Figure:
        for side in (ours, rival):
            side.run("run", "-d", "--name", "bench", _IMAGE, "sleep", "3600")
        try:
            return self._line(ours, rival, "exec CONTAINER true", "exec", "bench", "true")
        finally:
            for side in (ours, rival):
                side.run("rm", "-f", "bench")

    def _many(self, ours: Sequence[Rival], rival: Rival) -> Iterator[Figure]:
        """Fifty ``run -d`` started at once, and then one ``rm -f`` of the fifty."""
        names = [f"many{number}" for number in range(MANY)]
        sides = [*ours, rival]
        made: list[list[float]] = [[] for _ in sides]
        gone: list[list[float]] = [[] for _ in sides]
        for _ in range(max(2, self.rounds // 3)):
            for number, side in enumerate(sides):
                made[number].append(Side("", partial(_all, side, names)).seconds())
                gone[number].append(Side("", partial(side.run, "rm", "-f", *names)).seconds())
        for text, times in ((f"{MANY} run -d at once", made), (f"rm -f of the {MANY}", gone)):
            for one, measured in zip(ours, times, strict=False):
                title = self._title(text, one, rival)
                yield Figure(title, rival.name, _HALF, measured, times[-1])

    def _memory(self, ours: Rival, rival: Rival) -> Figure:
        """What is kept in memory for a container that idles, all its helpers' PSS."""
        names = [f"idle{number}" for number in range(5)]
        sizes = {}
        for key, side in (("ours", ours), ("rival", rival)):
            before = _memory_of(side)
            _all(side, names)
            sizes[key] = [(_memory_of(side) - before) / len(names)]
            side.run("rm", "-f", *names)
        return Figure(
            self._title("memory per idle container", ours, rival),
            f"{' and '.join(rival.monitors)}, proportional set size",
            Limit(extra=3 << 20),
            sizes["ours"],
            sizes["rival"],
            unit="bytes",
        )


def _all(side: Rival, names: list[str]) -> None:
    """Start a container of each name, all at the same time.

    Raises:
        RuntimeError: if one of them cannot be started.
    """
    started = [side.start("run", "-d", "--name", name, _IMAGE, "sleep", "3600") for name in names]
    said = [process.communicate()[1].decode(errors="replace").strip() for process in started]
    failed = [words for process, words in zip(started, said, strict=True) if process.returncode]
    if failed:
        raise RuntimeError(
            f"{side.name}: {len(failed)} of {len(names)} containers did not start: {failed[0]}"
        )


def _memory_of(side: Rival) -> int:
    """Return the proportional set size of all monitors of a side, in bytes."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "comm").read_text().strip().startswith(side.monitors):
                total += _pss(entry)
        except OSError:  # it has ended meanwhile
            continue
    return total


def _pss(process: Path) -> int:
    for line in (process / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0

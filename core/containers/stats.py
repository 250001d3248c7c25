"""What running containers use at this instant, and since the last look (``stats``)."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

from msgspec import Struct

from ..linux.cgroup_usage import cgroup_usage
from .context import Context
from .model import ContainerRecord, ContainerState
from .processes import first_process


class Stats(Struct, frozen=True):
    """One look at a container; all 0 if it does not run.

    *cpu_percent* is of one CPU, so two busy ones make 200. *memory_limit_bytes* is the machine's
    memory where the container has no limit.
    """

    id: str
    name: str
    cpu_percent: float = 0.0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    tasks: int = 0

    @property
    def memory_percent(self) -> float:
        limit = self.memory_limit_bytes
        return 100 * self.memory_bytes / limit if limit else 0.0


class Sampler:
    """Looks at containers again and again; CPU use is that between two looks at the same one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._before: dict[str, tuple[int, int]] = {}

    def sample(self, record: ContainerRecord) -> Stats:
        """Look at a container now. The first look at it knows no CPU use."""
        if record.state not in (ContainerState.RUNNING, ContainerState.PAUSED):
            self._before.pop(record.id, None)
            return Stats(record.id, record.name)
        used = cgroup_usage(self._context.cgroup(record).directories())
        received, sent = self._network(record)
        machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Stats(
            record.id,
            record.name,
            cpu_percent=self._cpu_percent(record.id, used.cpu_ns),
            memory_bytes=used.memory_bytes,
            memory_limit_bytes=min(used.memory_limit_bytes or machine_bytes, machine_bytes),
            received_bytes=received,
            sent_bytes=sent,
            read_bytes=used.read_bytes,
            written_bytes=used.written_bytes,
            tasks=used.tasks,
        )

    def forget_others(self, ids: Collection[str]) -> None:
        """Drop what is remembered of containers that are not among *ids*."""
        self._before = {key: seen for key, seen in self._before.items() if key in ids}

    def _cpu_percent(self, container_id: str, cpu_ns: int) -> float:
        now_ns = time.monotonic_ns()
        then_ns, before_ns = self._before.get(container_id, (now_ns, cpu_ns))
        self._before[container_id] = now_ns, cpu_ns
        passed_ns, used_ns = now_ns - then_ns, cpu_ns - before_ns  # a restart begins at 0 again
        return 100 * used_ns / passed_ns if passed_ns > 0 and used_ns > 0 else 0.0

    def _network(self, record: ContainerRecord) -> tuple[int, int]:
        """Bytes received and sent by all links but ``lo``; the host's own are not a container's."""
        networks = self._context.root.networks
        network = networks.by_id(record.runtime.network_id)
        process = first_process(self._context, record)
        if network is None or networks.sandbox_mode(network) == "host" or process is None:
            return 0, 0
        try:
            return link_bytes(Path(f"/proc/{process.pid}/net/dev").read_text())
        except OSError:  # ended meanwhile
            return 0, 0


def link_bytes(text: str) -> tuple[int, int]:
    """Sum what the links in ``/proc/net/dev`` have received and sent, ``lo`` left out."""
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, counters = line.partition(":")
        if name.strip() != "lo":
            fields = counters.split()
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent

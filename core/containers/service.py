"""The containers of one root: what the command line, the API and Python users call.

A method takes a container's whole id, its name, or the beginning of its id. All of it is safe
from threads and beside other processes on the same root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import FailedPrecondition, InvalidArgument, StowageError
from ..model import Change
from .context import Context, Root
from .model import ContainerRecord, ContainerSpec, ContainerState, RuntimeFacts
from .streams import Collected, Streams

if TYPE_CHECKING:
    from ..images.rows import Image
    from .attach import AttachedClient
    from .exec import ExecSpec
    from .log_entries import LogEntry
    from .running import RunResult
    from .stats import Sampler
    from .top import ProcessList


_STOPPED = "You cannot attach to a stopped container, start it first"
#: Docker's words for a state that cannot be attached to; none for one that can.
_NOT_ATTACHABLE = {
    ContainerState.RUNNING: "",
    ContainerState.PAUSED: "You cannot attach to a paused container, unpause it first",
    ContainerState.RESTARTING: (
        "You cannot attach to a restarting container, wait until it is running"
    ),
}


class Containers:
    """All containers of *root*; opening it recovers what killed processes left.

    *exit_command* replaces what conmon runs once a container has ended; the id and the
    name of the run are appended.
    """

    def __init__(self, root: Root, *, exit_command: Sequence[str] | None = None) -> None:
        self._context = Context(root, exit_command)
        self.recover()

    # --- looking -----------------------------------------------------------------------------

    def get(self, reference: str) -> ContainerRecord:
        """Return a container as recorded.

        Raises:
            NotFound: "No such container: x".
            InvalidArgument: if several ids begin like that.
        """
        return self._context.rows.get(reference)

    def list(self) -> Sequence[ContainerRecord]:
        """Return every container, newest first."""
        return self._context.rows.all()

    def pid(self, reference: str) -> int:
        """Return the host's pid of a running container's first process, or 0."""
        from .processes import first_process

        record = self.get(reference)
        process = first_process(self._context, record) if record.state.lives else None
        return process.pid if process is not None and process.alive else 0

    def top(self, reference: str, ps_arguments: Sequence[str] = ()) -> ProcessList:
        """Return a container's processes as the host's ps shows them; see :func:`.top.top`."""
        from .top import top

        return top(self._context, self.get(reference), ps_arguments)

    def sampler(self) -> Sampler:
        """Return what looks at the use of resources again and again."""
        from .stats import Sampler

        return Sampler(self._context)

    def files(self, reference: str) -> dict[str, str]:
        """Return the paths that ``inspect`` shows: ``hosts``, ``hostname``, ``resolv.conf``,
        ``log``."""
        files = self._context.files(self.get(reference).id)
        names = ("hosts", "hostname", "resolv.conf")
        return {**{name: str(files.kept / name) for name in names}, "log": str(files.log)}

    # --- life --------------------------------------------------------------------------------

    def create(self, spec: ContainerSpec) -> ContainerRecord:
        """Make a container that does not run yet; see :func:`.creating.create`."""
        from .creating import create

        return create(self._context, spec, RuntimeFacts())

    def start(self, reference: str) -> ContainerRecord:
        """Start a container, which then outlives this process; a running one is left alone.

        Raises:
            CommandFailed: if its process could not be started.
        """
        from .starting import start

        record, _ = start(self._context, self.get(reference).id)
        return record

    def start_attached(
        self, reference: str, *, size: tuple[int, int] | None = None
    ) -> tuple[ContainerRecord, AttachedClient]:
        """Start a container with a client of its stdio, connected before its first byte.

        Its terminal, if it has one, has *size* (rows, columns) from the beginning.
        """
        from .starting import start

        record, client = start(self._context, self.get(reference).id, attach=True, size=size)
        if client is None:
            return record, self.attach(reference)
        return record, client

    def attach(self, reference: str) -> AttachedClient:
        """Return a client of a running container's stdio.

        Raises:
            FailedPrecondition: if it does not run, or its caller has its stdio.
        """
        from .attach import AttachedClient

        record = self.get(reference)
        refusal = _NOT_ATTACHABLE.get(record.state, _STOPPED)
        if refusal:
            raise FailedPrecondition(refusal)
        if record.runtime.monitor != "conmon":
            raise FailedPrecondition(
                f"container {record.short_id} cannot be attached to",
                details="the process that runs it holds its stdio",
            )
        files = self._context.files(record.id)
        facts = record.runtime
        client = AttachedClient(files, facts.monitor_process, facts.process, tty=record.spec.tty)
        self._context.rows.record_event(record, "attach")
        return client

    def run(
        self,
        spec: ContainerSpec,
        streams: Streams | None = None,
        *,
        timeout_seconds: float | None = None,
        created: Callable[[ContainerRecord], None] = lambda record: None,
    ) -> RunResult:
        """Create a container, run it in this process and wait for its end, with no monitor.

        Dies with this process (at the latest when the root is next opened); its output goes
        to *streams* and to no log. See :func:`.running.run`.
        """
        from .running import run

        if spec.restart.name != "no":
            raise InvalidArgument(
                "a container that is run in this process cannot be restarted by a policy",
                resolution="create and start it",
            )
        return run(
            self._context,
            spec,
            streams or Streams(),
            timeout_seconds=timeout_seconds,
            created=created,
        )

    def exec(
        self,
        reference: str,
        spec: ExecSpec,
        streams: Streams | None = None,
        *,
        timeout_seconds: float | None = None,
        keys: bytes | None = None,
    ) -> Collected:
        """Run a further process in a running container; see :func:`.exec.execute`."""
        from .exec import execute

        return execute(
            self._context,
            self.get(reference),
            spec,
            streams or Streams(),
            timeout_seconds=timeout_seconds,
            keys=keys,
        )

    def wait(self, reference: str, timeout_seconds: float | None = None) -> int:
        """Wait until a container has ended; returns its exit code.

        The id of one that is removed meanwhile (``--rm``) still gives it.
        """
        from .names import is_id
        from .waiting import wait

        container_id = reference if is_id(reference) else self.get(reference).id
        return wait(self._context, container_id, timeout_seconds)

    def stop(
        self, reference: str, timeout_seconds: float | None = None, *, signal: str = ""
    ) -> None:
        """Ask a container to end, and kill it after the time-out (default: its own, or 10 s)."""
        from .stopping import stop

        stop(self._context, self.get(reference), timeout_seconds, signal)

    def restart(
        self, reference: str, timeout_seconds: float | None = None, *, signal: str = ""
    ) -> ContainerRecord:
        """Stop a container if it runs, and start it; one with ``--rm`` stays."""
        from .restarting import restart

        return restart(self._context, self.get(reference), timeout_seconds, signal)

    def pause(self, reference: str) -> ContainerRecord:
        """Let all processes of a container stand still until it is unpaused.

        Raises:
            FailedPrecondition: in Docker's words, if its state does not allow it.
        """
        from .freezing import pause

        return pause(self._context, self.get(reference).id)

    def unpause(self, reference: str) -> ContainerRecord:
        """Let a paused container run on.

        Raises:
            FailedPrecondition: "Container … is not paused".
        """
        from .freezing import unpause

        return unpause(self._context, self.get(reference).id)

    def kill(self, reference: str, signal: str = "KILL") -> None:
        """Send a signal to a container's first process."""
        from .stopping import kill

        kill(self._context, self.get(reference), signal)

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, with *force* a running one as well, with *volumes* also the
        anonymous volumes that nobody else uses."""
        from .finishing import remove

        remove(self._context, self.get(reference).id, force=force, volumes=volumes)

    def rename(self, reference: str, name: str) -> None:
        """Give a container another name."""
        self._context.rows.rename(self.get(reference), name)

    # --- contents ----------------------------------------------------------------------------

    def update(self, reference: str, limits: Mapping[str, Any], **wishes: Any) -> ContainerRecord:
        """Change limits of a container, by field of ``Resources``, and return it.

        They hold at once if it runs, and from its next start on. *wishes* are other fields of
        its specification. Raises as :func:`stowage.containers.updating.update`.
        """
        from .updating import update

        return update(self._context, self.get(reference).id, limits, **wishes)

    def logs(
        self,
        reference: str,
        *,
        tail: int | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        follow: bool = False,
    ) -> Iterator[LogEntry]:
        """Yield what a container wrote, oldest first; with *follow* until it has ended.

        Raises:
            FailedPrecondition: in Docker's words, if its log driver keeps nothing.
        """
        from .logs import read_log

        record = self.get(reference)
        if not record.spec.log.kept:
            raise FailedPrecondition("configured logging driver does not support reading")
        return read_log(
            self._context.files(record.id).log,
            tail=tail,
            since_ns=since_ns,
            until_ns=until_ns,
            follow=(lambda: self._goes_on(record.id)) if follow else None,
        )

    def _goes_on(self, container_id: str) -> bool:
        lives = self._lives(container_id)
        self._context.root.metastore.rest()
        return lives

    def log_details(self, reference: str) -> str:
        """Return what ``logs --details`` shows of a container: ``label=value,…``."""
        from .log_config import log_details

        spec = self.get(reference).spec
        env = dict(text.partition("=")[::2] for text in spec.env)
        return log_details(spec.log, spec.labels, env)

    def _lives(self, container_id: str) -> bool:
        record = self._context.rows.find(container_id)
        return record is not None and record.state.lives

    def diff(self, reference: str) -> Sequence[Change]:
        """Return what a container changed in its root, sorted by path; it may run meanwhile."""
        from .contents import changes

        return changes(self._context, self.get(reference))

    def export(self, reference: str, out: BinaryIO) -> None:
        """Write the archive of a container's whole root; it may run meanwhile."""
        from .contents import export

        record = self.get(reference)
        export(self._context, record, out)
        self._context.rows.record_event(record, "export")

    def copy_in(
        self, reference: str, source: str | BinaryIO, path: str, *, follow: bool = False
    ) -> None:
        """Copy a path of the host, or an archive, into a container; see :mod:`.copying`."""
        from .copying import copy_in

        copy_in(self._context, self.get(reference), source, path, follow=follow)

    def copy_out(
        self,
        reference: str,
        path: str,
        target: str | BinaryIO,
        *,
        follow: bool = False,
        keep_owner: bool = False,
    ) -> None:
        """Copy a path of a container to the host; see :func:`.copying.copy_out`."""
        from .copying import copy_out

        record = self.get(reference)
        copy_out(self._context, record, path, target, follow=follow, keep_owner=keep_owner)

    def commit(
        self,
        reference: str,
        image: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
    ) -> Image:
        """Make an image of a container; see :func:`.contents.commit`."""
        from .contents import commit

        record = self.get(reference)
        made = commit(
            self._context,
            record,
            image,
            author=author,
            message=message,
            changes=changes,
            pause=pause,
        )
        self._context.rows.record_event(
            record, "commit", comment=message, imageID=made.id, imageRef=image or ""
        )
        return made

    def live_mount(self, driver: str, snapshot: str) -> AbstractContextManager[int | None]:
        """Give a detached clone of the root of the container that runs on a snapshot; None if
        none does. What is mounted on the root is not in it."""
        from .contents import live_mount

        record = self._context.rows.using_snapshot(driver, snapshot)
        return nullcontext() if record is None else live_mount(self._context, record)

    def frozen(self, reference: str) -> AbstractContextManager[None]:
        """Let a running container stand still for the time of the ``with``."""
        from .freezing import frozen

        return frozen(self._context, self.get(reference))

    # --- for the engine ----------------------------------------------------------------------

    def finish(self, container_id: str, run: str) -> None:
        """Record the end of one run of a container and clean up: conmon's exit command.

        Idempotent; see :func:`.finishing.finish`.
        """
        from .finishing import finish

        finish(self._context, container_id, run)

    def resume(self) -> Sequence[tuple[ContainerRecord, StowageError | None]]:
        """Start what is to run after the machine has started, as restart policies say.

        Returns each container with the error for which it could not be started. Idempotent.
        """
        from .restarting import resume

        return resume(self._context)

    def recover(self) -> None:
        """Finish or take back what killed processes left. Idempotent."""
        from .recovery import recover

        recover(self._context)


__all__ = ["ContainerRecord", "ContainerSpec", "ContainerState", "Containers", "Streams"]

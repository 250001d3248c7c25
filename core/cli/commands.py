"""The table of commands: which module holds which, and what the overview says.

Each command stands under its management word (``container ls``) and, where Docker has one, under
a short word (``ps``). Nothing is imported here, so that ``--help`` is quick.
"""

from __future__ import annotations

#: management word -> what it manages
GROUPS = {
    "container": "Manage containers",
    "image": "Manage images",
    "network": "Manage networks",
    "driver": "Show storage and network drivers",
    "conform": "Hold drivers against what a driver must do",
    "layer": "Look into the layer store",
    "volume": "Manage volumes",
    "system": "Look after the whole root",
}

#: module of this package, group, word in it, aliases there, short words, summary
_ROWS = (
    ("run", "container", "run", "", "run", "Run a command in a new container"),
    ("run", "container", "create", "", "create", "Create a new container"),
    ("lifecycle", "container", "start", "", "start", "Start one or more stopped containers"),
    (
        "lifecycle",
        "container",
        "attach",
        "",
        "attach",
        "Attach local standard input, output, and error streams to a running container",
    ),
    ("lifecycle", "container", "rename", "", "rename", "Rename a container"),
    (
        "update",
        "container",
        "update",
        "",
        "update",
        "Update configuration of one or more containers",
    ),
    ("lifecycle", "container", "stop", "", "stop", "Stop one or more running containers"),
    ("lifecycle", "container", "restart", "", "restart", "Restart one or more containers"),
    ("lifecycle", "container", "kill", "", "kill", "Kill one or more running containers"),
    (
        "lifecycle",
        "container",
        "pause",
        "",
        "pause",
        "Pause all processes within one or more containers",
    ),
    (
        "lifecycle",
        "container",
        "unpause",
        "",
        "unpause",
        "Unpause all processes within one or more containers",
    ),
    ("usage_now", "container", "top", "", "top", "Display the running processes of a container"),
    (
        "usage_now",
        "container",
        "stats",
        "",
        "stats",
        "Display a live stream of container(s) resource usage statistics",
    ),
    ("lifecycle", "container", "rm", "remove", "rm", "Remove one or more containers"),
    (
        "lifecycle",
        "container",
        "wait",
        "",
        "wait",
        "Block until one or more containers stop, then print their exit codes",
    ),
    ("lifecycle", "container", "finish", "", "", ""),
    ("container", "container", "ls", "list ps", "ps", "List containers"),
    ("logs", "container", "logs", "", "logs", "Fetch the logs of a container"),
    ("exec", "container", "exec", "", "exec", "Run a command in a running container"),
    (
        "container",
        "container",
        "diff",
        "",
        "diff",
        "Inspect changes to files or directories on a container's filesystem",
    ),
    (
        "container",
        "container",
        "commit",
        "",
        "commit",
        "Create a new image from a container's changes",
    ),
    (
        "copy",
        "container",
        "cp",
        "",
        "cp",
        "Copy files/folders between a container and the local filesystem",
    ),
    (
        "container",
        "container",
        "export",
        "",
        "export",
        "Export a container's filesystem as a tar archive",
    ),
    (
        "inspect",
        "container",
        "inspect",
        "",
        "",
        "Display detailed information on one or more containers",
    ),
    ("inspect", "", "inspect", "", "inspect", "Return low-level information on objects"),
    (
        "ports",
        "container",
        "port",
        "",
        "port",
        "List port mappings or a specific mapping for the container",
    ),
    ("image", "image", "ls", "list", "images", "List images"),
    ("image", "image", "rm", "remove", "rmi", "Remove one or more images"),
    (
        "image",
        "image",
        "tag",
        "",
        "tag",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    ),
    ("image", "image", "history", "", "history", "Show the history of an image"),
    ("prune", "container", "prune", "", "", "Remove all stopped containers"),
    ("prune", "image", "prune", "", "", "Remove unused images"),
    ("inspect", "image", "inspect", "", "", "Display detailed information on one or more images"),
    (
        "archive",
        "image",
        "import",
        "",
        "import",
        "Import the contents from a tarball to create a filesystem image",
    ),
    ("archive", "image", "load", "", "load", "Load an image from a tar archive or STDIN"),
    ("archive", "image", "save", "", "save", "Save one or more images to a tar archive"),
    (
        "archive",
        "image",
        "bootstrap",
        "",
        "bootstrap",
        "Build a small image from Debian's packages, without a registry",
    ),
    ("network", "network", "ls", "list", "", "List networks"),
    (
        "network",
        "network",
        "inspect",
        "",
        "",
        "Display detailed information on one or more networks",
    ),
    ("volume", "volume", "create", "", "", "Create a volume"),
    ("volume", "volume", "ls", "list", "", "List volumes"),
    ("volume", "volume", "rm", "remove", "", "Remove one or more volumes"),
    ("inspect", "volume", "inspect", "", "", "Display detailed information on one or more volumes"),
    ("prune", "volume", "prune", "", "", "Remove all unused local volumes"),
    ("driver", "driver", "ls", "list", "", "List drivers and what each can do here"),
    ("driver", "driver", "explain", "", "", "Say which driver is used, and why not the others"),
    ("driver", "driver", "new", "", "", "Write a package with a driver of your own, to begin from"),
    ("driver", "driver", "options", "", "", "List the options of a driver"),
    ("driver", "driver", "default", "", "", "Make a storage driver the default of this root"),
    ("conform", "conform", "storage", "", "", "Hold a storage driver against its definition"),
    ("conform", "conform", "properties", "", "", "List what a storage driver is held against"),
    ("layer", "layer", "ls", "list", "layers", "List layers and snapshots"),
    (
        "migrate",
        "layer",
        "migrate",
        "",
        "migrate",
        "Move images and layers to another storage driver",
    ),
    ("layer", "layer", "mount", "", "mount", "Mount a snapshot and print where"),
    ("layer", "layer", "unmount", "", "unmount", "Unmount what 'mount' mounted"),
    ("system", "system", "check", "", "check", "Verify the root against its records"),
    ("system", "system", "gc", "", "gc", "Remove what nothing refers to"),
    ("events", "system", "events", "", "events", "Get real time events from the server"),
    ("usage", "system", "df", "", "df", "Show disk usage"),
    ("prune", "system", "prune", "", "", "Remove unused data"),
    ("about", "system", "info", "", "info", "Display system-wide information"),
    (
        "resume",
        "system",
        "resume",
        "",
        "",
        "Recover after a crash or reboot, now, and start containers as their policies say",
    ),
    ("resume", "system", "unit", "", "", "Print a systemd unit that runs 'resume' at each boot"),
    (
        "fork_server",
        "system",
        "fork-server",
        "",
        "",
        "Start a process that has everything imported, so that commands start quickly",
    ),
    ("system", "system", "config", "", "", "Show every directive and where it comes from"),
    ("completion", "", "completion", "", "completion", "Write completion for bash, zsh or fish"),
    ("about", "", "version", "", "version", "Show the version information"),
)


class Entry:
    """One command as found: its *module*, its full *words*, all *names* and its *summary*."""

    __slots__ = ("module", "names", "summary", "words")

    def __init__(self, row: tuple[str, str, str, str, str, str]) -> None:
        self.module, group, word, aliases, short, self.summary = row
        self.words = f"{group} {word}".strip()
        names = [self.words, *(f"{group} {alias}" for alias in aliases.split()), short]
        self.names = list(dict.fromkeys(name for name in names if name))


def find(first: str, second: str | None) -> tuple[Entry | None, int]:
    """Return the command that the words start with and how many words it took; None if none."""
    for row in _ROWS:
        _module, group, word, aliases, short, _summary = row
        if group == first and second is not None and second in (word, *aliases.split()):
            return Entry(row), 2
        if first == short:
            return Entry(row), 1
    return None, 0


def names(group: str | None = None) -> list[str]:
    """Return the words that may follow *group*, or that may stand first."""
    if group is not None:
        return [row[2] for row in _ROWS if row[1] == group and row[5]]
    return [*GROUPS, *(row[4] for row in _ROWS if row[4])]


def every() -> list[Entry]:
    """Return all commands that help shows."""
    return [Entry(row) for row in _ROWS if row[5]]


def overview() -> str:
    """Return the text of ``stowage --help``."""
    short = [(row[4], row[5]) for row in _ROWS if row[4]]
    return "\n".join(
        (
            "Usage:  stowage [OPTIONS] COMMAND",
            "",
            "Containers on pluggable storage and network drivers",
            "",
            "Options:",
            "      --config file             Configuration file (default"
            ' "/etc/stowage/daemon.json")',
            '      --data-root directory     Where layers live (default "/var/lib/stowage")',
            '      --exec-root directory     Where sockets live (default "/run/stowage")',
            "  -D, --debug                   Enable debug mode",
            '  -l, --log-level string        Set the logging level (default "info")',
            "      --root directory          Put both under directory/data and directory/exec",
            "  -s, --storage-driver string   Storage driver to use",
            "      --storage-opt list        Options of the storage driver",
            "      --trace                   Show each call of a driver and its time",
            "  -v, --version                 Print version information and quit",
            "      --KEY value               Any other directive of daemon.json",
            "",
            "Management Commands:",
            *_columns(list(GROUPS.items())),
            "",
            "Commands:",
            *_columns(sorted(short)),
            "",
            "Run 'stowage COMMAND --help' for more information on a command.",
        )
    )


def group_help(group: str) -> str:
    """Return the text of ``stowage GROUP --help``."""
    rows = [(row[2], row[5]) for row in _ROWS if row[1] == group and row[5]]
    return "\n".join(
        (
            f"Usage:  stowage {group} COMMAND",
            "",
            GROUPS[group],
            "",
            "Commands:",
            *_columns(sorted(rows)),
            "",
            f"Run 'stowage {group} COMMAND --help' for more information on a command.",
        )
    )


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"  {name.ljust(width)}   {summary}" for name, summary in rows]

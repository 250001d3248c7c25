"""``check``, ``gc``, ``info``, ``version``, ``system resume`` and ``system config``."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from shutil import which
from typing import TYPE_CHECKING

from ..config_keys import KEYS, Disposition
from ..effects import effect
from ..errors import DataLoss, StowageError
from ..images.config import this_platform
from ..version import VERSION
from . import human
from .command import Command
from .context import Context
from .errors import FAILED
from .flags import Flag, Parsed, switch
from .image import FORMAT
from .table import Listing
from .template import Template
from .template_functions import compact_json, printed

if TYPE_CHECKING:
    from ..engine import Engine
    from ..model import SnapshotInfo

_FORMAT = Flag("format", "Format the output using the given Go template", "f")

# --- check and gc -------------------------------------------------------------------------------


def _check(context: Context, parsed: Parsed) -> int:
    """Print each finding with its remedy; the code tells whether there are any."""
    engine = context.engine
    found = [
        (str(finding), finding.remedy)
        for finding in engine.layers.check(
            full=not parsed.on("quick"), is_referenced=referenced(engine)
        )
    ]
    found += _images_without_layers(engine)
    for text, remedy in found:
        context.print(text)
        if remedy:
            context.print(f"  remedy: {remedy}")
    if not parsed.on("quiet"):
        count = sum(1 for _ in engine.layers.walk())
        read = "records" if parsed.on("quick") else "records and every file"
        verdict = f"{len(found)} problems" if len(found) != 1 else "1 problem"
        context.say(f"Checked {count} layers ({read}): {verdict if found else 'clean'}")
    return FAILED if found else 0


def _images_without_layers(engine: Engine) -> Sequence[tuple[str, str]]:
    found = []
    for image in engine.images.list(intermediate=True):
        try:
            engine.images.driver_of(image)
        except DataLoss as error:
            found.append((f"image-incomplete: {error.brief}", error.resolution or ""))
    return found


def referenced(engine: Engine) -> Callable[[SnapshotInfo], bool]:
    """Return what says whether an image refers to a snapshot.

    The records are read when it is first asked, which is when the collector holds its lock.
    """
    names: set[str] | None = None

    def test(info: SnapshotInfo) -> bool:
        nonlocal names
        if names is None:
            names = engine.images.referenced()
        return info.name in names

    return test


def _gc(context: Context, parsed: Parsed) -> int:
    engine = context.engine
    done = engine.layers.gc(referenced(engine))
    for info in done.removed:
        context.print(f"Deleted: {info.driver} {info.name}")
    for left in done.left:
        context.warn(f"not deleted: {left}")
    context.print(f"Total reclaimed space: {human.size(done.size_bytes, 4)}")
    return FAILED if done.left else 0


def _resume(context: Context, parsed: Parsed) -> None:
    """Opening the root has recovered what was unfinished; this finishes what goes on behind."""
    engine = context.engine
    engine.layers.recover()
    engine.containers.recover()
    left = engine.layers.drain()
    running = sum(record.state.lives for record in engine.containers.list())
    context.say(
        f"Recovered {engine.layout.data_root}: {running} containers running"
        + (f", {left} removals left in the trash" if left else "")
    )


# --- info and version ---------------------------------------------------------------------------


def info_document(engine: Engine) -> Mapping[str, object]:
    """Return what ``docker info --format '{{json .}}'`` has, as far as it means something here."""
    records = engine.containers.list()
    states = [record.state.value for record in records]
    running, paused = states.count("running"), states.count("paused")
    uname = os.uname()
    warnings: list[str] = list(engine.config.warnings)
    driver, status = _storage(engine, warnings)
    return {
        "ID": engine.metastore.root_id,
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
        "Images": len(engine.images.list()),
        "Driver": driver,
        "DriverStatus": [list(pair) for pair in status.items()],
        "Plugins": {
            family: [plugin.name for plugin in engine.registry.plugins(family)]
            for family in ("storage", "network", "firewall", "observers")
        },
        "LoggingDriver": "k8s-file",
        "CgroupVersion": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
        "DefaultRuntime": engine.config.default_runtime or _first_runtime(),
        "Runtimes": [name for name in ("crun", "runc") if which(name)],
        "KernelVersion": uname.release,
        "OperatingSystem": _operating_system(),
        "OSType": "linux",
        "Architecture": uname.machine,
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "Name": uname.nodename,
        "ServerVersion": VERSION,
        "DataRoot": str(engine.layout.data_root),
        "DockerRootDir": str(engine.layout.data_root),
        "ExecRoot": str(engine.layout.exec_root),
        "Debug": engine.config.debug,
        "Labels": list(engine.config.labels),
        "Warnings": warnings or None,
    }


def _storage(engine: Engine, warnings: list[str]) -> tuple[str, Mapping[str, str]]:
    """Info is asked when something is wrong, so a driver that does not work is no failure."""
    try:
        name = engine.selection.name
        return name, engine.storage(name).status()
    except StowageError as error:
        warnings.append(str(error))
        return "", {}


def _first_runtime() -> str:
    return next((name for name in ("crun", "runc") if which(name)), "")


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "linux")
    except OSError:
        return "linux"


def _info(context: Context, parsed: Parsed) -> None:
    document = info_document(context.engine)
    form = parsed.text("format")
    if form == "json":
        context.print(compact_json(document))
    elif form is not None:
        context.print(Template(form).render(document))
    else:
        context.print(_info_text(document))


def _info_text(document: Mapping[str, object]) -> str:
    status = document["DriverStatus"]
    plugins = document["Plugins"]
    memory = document["MemTotal"]
    assert isinstance(status, list)
    assert isinstance(plugins, dict)
    assert isinstance(memory, int)
    lines = [
        f"Containers: {document['Containers']}",
        f" Running: {document['ContainersRunning']}",
        f" Paused: {document['ContainersPaused']}",
        f" Stopped: {document['ContainersStopped']}",
        f"Images: {document['Images']}",
        f"Version: {document['ServerVersion']}",
        f"Storage Driver: {document['Driver'] or 'none works'}",
        *(f" {name}: {value}" for name, value in status),
        "Plugins:",
        *(f" {family.capitalize()}: {' '.join(names)}" for family, names in plugins.items()),
        f"Cgroup Version: {document['CgroupVersion']}",
        f"Runtimes: {printed(document['Runtimes']).strip('[]')}",
        f"Default Runtime: {document['DefaultRuntime'] or 'none is installed'}",
        f"Kernel Version: {document['KernelVersion']}",
        f"Operating System: {document['OperatingSystem']}",
        f"OSType: {document['OSType']}",
        f"Architecture: {document['Architecture']}",
        f"CPUs: {document['NCPU']}",
        f"Total Memory: {human.binary_size(memory)}",
        f"Name: {document['Name']}",
        f"ID: {document['ID']}",
        f"Data Root: {document['DataRoot']}",
        f"Exec Root: {document['ExecRoot']}",
        f"Debug Mode: {printed(document['Debug'])}",
    ]
    warnings = document["Warnings"]
    lines += [f"WARNING: {text}" for text in warnings] if isinstance(warnings, list) else []
    return "\n".join(lines)


def version_document() -> Mapping[str, object]:
    """Return the versions of what works together here; a program that is not installed is not
    listed."""
    here = this_platform()
    return {
        "Version": VERSION,
        "PythonVersion": platform.python_version(),
        "Os": here.os,
        "Arch": here.architecture,
        "KernelVersion": os.uname().release,
        "Components": [
            {"Name": name, "Version": version}
            for name in ("crun", "runc", "conmon")
            if (version := _program_version(name))
        ],
    }


def _program_version(name: str) -> str:
    path = which(name)
    if path is None:
        return ""
    try:
        with effect("process.run", path=path):
            done = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=10, check=False
            )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = done.stdout.partition("\n")[0].split()
    return words[-1] if words else ""


def _version(context: Context, parsed: Parsed) -> None:
    document = version_document()
    form = parsed.text("format")
    if form == "json":
        context.print(compact_json(document))
        return
    if form is not None:
        context.print(Template(form).render(document))
        return
    components = document["Components"]
    assert isinstance(components, list)
    rows = [
        ("Version", document["Version"]),
        ("Python version", document["PythonVersion"]),
        ("OS/Arch", f"{document['Os']}/{document['Arch']}"),
        ("Kernel", document["KernelVersion"]),
        *((one["Name"], one["Version"]) for one in components),
    ]
    context.print("Stowage:")
    for name, value in rows:
        context.print(f" {name + ':':18}{value}")


# --- config -------------------------------------------------------------------------------------

CONFIG = Listing(
    {
        "Name": "DIRECTIVE",
        "Value": "VALUE",
        "Origin": "FROM",
        "Default": "DEFAULT",
        "Flag": "FLAG",
        "Variable": "VARIABLE",
        "Meaning": "MEANING",
    },
    ("Name", "Value", "Origin", "Meaning"),
    quiet="Name",
)


def _config(context: Context, parsed: Parsed) -> None:
    config = context.config
    told = (Disposition.HONOURED, Disposition.KEPT)
    rows = [
        {
            "Name": key.name,
            "Value": _value(getattr(config, key.field)),
            "Origin": str(config.origin(key.name)),
            "Default": _value(key.default),
            "Flag": f"--{key.flag_name}",
            "Variable": key.variable,
            "Meaning": key.meaning,
        }
        for key in KEYS.values()
        if key.disposition in told and not key.alias_of
    ]
    context.print(CONFIG.show(rows, format=parsed.text("format")))


def _value(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value) or "unset"
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in value.items()) or "unset"
    return printed(value)


COMMANDS = {
    "system check": Command(
        "[OPTIONS]",
        _check,
        (
            switch("quick", "Compare the records only, read no file"),
            switch("quiet", "Print findings only", "q"),
        ),
    ),
    "system gc": Command("", _gc),
    "system info": Command("[OPTIONS]", _info, (_FORMAT,)),
    "system resume": Command("", _resume),
    "system config": Command("[OPTIONS]", _config, (FORMAT,)),
    "version": Command("[OPTIONS]", _version, (_FORMAT,)),
}

"""``info`` and ``version``: what this root is, and what works together in it.

Docker's documents, as far as we have the thing. Client and server are one program here; both are
told, because scripts ask for ``.Server.Version`` and ``.Client.Version``.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from shutil import which
from typing import TYPE_CHECKING

from ..effects import effect
from ..errors import StowageError
from ..images.config import this_platform
from ..version import VERSION
from . import human
from .command import Command
from .context import Context
from .flags import Flag, Parsed
from .template import Template
from .template_functions import compact_json, printed

if TYPE_CHECKING:
    from ..engine import Engine
    from ..plugins import Family

FORMAT = Flag("format", "Format the output using the given Go template", "f")

_RUNTIMES = ("crun", "runc")


def _show(context: Context, parsed: Parsed, document: Mapping[str, object], text: str) -> None:
    form = parsed.text("format")
    if form == "json":
        context.print(compact_json(document))
    elif form is not None:
        context.print(Template(form).render(document))
    else:
        context.print(text)


# --- info ---------------------------------------------------------------------------------------


def info_document(engine: Engine) -> Mapping[str, object]:
    """Return what ``docker info --format '{{json .}}'`` has, as far as it means something here."""
    states = [record.state.value for record in engine.containers.list()]
    running, paused = states.count("running"), states.count("paused")
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
            "Volume": ["local"],
            "Network": _plugins(engine, "network"),
            "Authorization": None,
            "Log": ["k8s-file"],
            "Storage": _plugins(engine, "storage"),
            "Firewall": _plugins(engine, "firewall"),
            "Observers": _plugins(engine, "observers"),
        },
        **_machine(),
        "Debug": engine.config.debug,
        "SystemTime": human.rfc3339(time.time_ns()),
        "LoggingDriver": "k8s-file",
        "ServerVersion": VERSION,
        "Runtimes": {name: {"path": path} for name in _RUNTIMES if (path := which(name))},
        "DefaultRuntime": engine.config.default_runtime or next(filter(which, _RUNTIMES), ""),
        "DataRoot": str(engine.layout.data_root),
        "DockerRootDir": str(engine.layout.data_root),
        "ExecRoot": str(engine.layout.exec_root),
        "Labels": list(engine.config.labels),
        "SecurityOptions": ["name=seccomp,profile=default"],
        "Warnings": warnings or None,
    }


def _plugins(engine: Engine, family: Family) -> list[str]:
    return sorted(plugin.name for plugin in engine.registry.plugins(family))


def _machine() -> Mapping[str, object]:
    from ..linux.controllers import support

    uname, able = os.uname(), support()
    release = _os_release()
    return {
        "MemoryLimit": able.memory,
        "SwapLimit": able.swap,
        "CpuCfsPeriod": able.cpu,
        "CpuCfsQuota": able.cpu,
        "CPUShares": able.cpu,
        "CPUSet": able.cpuset,
        "PidsLimit": able.pids,
        "OomKillDisable": able.oom_kill_disable,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
        "KernelVersion": uname.release,
        "OperatingSystem": release.get("PRETTY_NAME", "linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": uname.machine,
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "Name": uname.nodename,
    }


def _storage(engine: Engine, warnings: list[str]) -> tuple[str, Mapping[str, str]]:
    """Info is asked when something is wrong, so a driver that does not work is no failure."""
    try:
        name = engine.selection.name
        return name, engine.storage(name).status()
    except StowageError as error:
        warnings.append(str(error))
        return "", {}


def _os_release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _info(context: Context, parsed: Parsed) -> None:
    document = info_document(context.engine)
    _show(context, parsed, document, _info_text(document))


def _info_text(document: Mapping[str, object]) -> str:
    status, plugins = document["DriverStatus"], document["Plugins"]
    security, labels = document["SecurityOptions"], document["Labels"]
    memory, runtimes = document["MemTotal"], document["Runtimes"]
    assert isinstance(status, list)
    assert isinstance(plugins, dict)
    assert isinstance(security, list)
    assert isinstance(labels, list)
    assert isinstance(runtimes, dict)
    assert isinstance(memory, int)
    lines = [
        f"Containers: {document['Containers']}",
        f" Running: {document['ContainersRunning']}",
        f" Paused: {document['ContainersPaused']}",
        f" Stopped: {document['ContainersStopped']}",
        f"Images: {document['Images']}",
        f"Server Version: {document['ServerVersion']}",
        f"Storage Driver: {document['Driver'] or 'none works'}",
        *(f" {name}: {value}" for name, value in status),
        f"Logging Driver: {document['LoggingDriver']}",
        f"Cgroup Driver: {document['CgroupDriver']}",
        f"Cgroup Version: {document['CgroupVersion']}",
        "Plugins:",
        *(f" {family}: {' '.join(names)}" for family, names in plugins.items() if names),
        f"Runtimes: {' '.join(runtimes)}",
        f"Default Runtime: {document['DefaultRuntime'] or 'none is installed'}",
        "Security Options:",
        *_security_lines(security),
        f"Kernel Version: {document['KernelVersion']}",
        f"Operating System: {document['OperatingSystem']}",
        f"OSType: {document['OSType']}",
        f"Architecture: {document['Architecture']}",
        f"CPUs: {document['NCPU']}",
        f"Total Memory: {human.binary_size(memory)}",
        f"Name: {document['Name']}",
        f"ID: {document['ID']}",
        f"Docker Root Dir: {document['DockerRootDir']}",
        f"Exec Root Dir: {document['ExecRoot']}",
        f"Debug Mode: {printed(document['Debug'])}",
        "Labels:",
        *(f" {label}" for label in labels),
    ]
    warnings = document["Warnings"]
    text = ["Server:", *(f" {line}" for line in lines)]
    text += [f"WARNING: {line}" for line in warnings] if isinstance(warnings, list) else []
    return "\n".join(["Client:", f" Debug Mode: {printed(document['Debug'])}", "", *text])


def _security_lines(options: Sequence[str]) -> list[str]:
    """``name=seccomp,profile=default`` as Docker breaks it up."""
    lines = []
    for option in options:
        name, *rest = option.removeprefix("name=").split(",")
        pairs = (part.partition("=") for part in rest)
        lines += [f" {name}", *(f"  {key.capitalize()}: {value}" for key, _, value in pairs)]
    return lines


# --- version ------------------------------------------------------------------------------------


def version_document() -> Mapping[str, object]:
    """Return the versions of what works together here; a program that is not installed is not
    listed."""
    here = this_platform()
    facts = {"Version": VERSION, "Os": here.os, "Arch": here.architecture}
    python, kernel = platform.python_version(), os.uname().release
    details = {"Arch": here.architecture, "KernelVersion": kernel, "Os": here.os}
    return {
        "Client": {"Platform": {"Name": ""}, **facts, "PythonVersion": python},
        "Server": {
            "Platform": {"Name": ""},
            "Components": [
                {
                    "Name": "Engine",
                    "Version": VERSION,
                    "Details": {**details, "PythonVersion": python},
                },
                *(
                    {"Name": name, "Version": version, "Details": {}}
                    for name in (*_RUNTIMES, "conmon")
                    if (version := _program_version(name))
                ),
            ],
            **facts,
            "KernelVersion": kernel,
            "PythonVersion": python,
        },
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
    _show(context, parsed, document, _version_text(document))


def _version_text(document: Mapping[str, object]) -> str:
    client, server = document["Client"], document["Server"]
    assert isinstance(client, dict)
    assert isinstance(server, dict)
    lines = ["Client:", *_pairs(client, 1), "", "Server:", " Engine:"]
    lines += [*_pairs(server, 2), f"  {'Kernel version:':18}{server['KernelVersion']}"]
    for component in server["Components"][1:]:
        lines += [f" {component['Name']}:", f"  {'Version:':18}{component['Version']}"]
    return "\n".join(lines)


def _pairs(facts: Mapping[str, object], indent: int) -> list[str]:
    rows = (
        ("Version:", facts["Version"]),
        ("Python version:", facts["PythonVersion"]),
        ("OS/Arch:", f"{facts['Os']}/{facts['Arch']}"),
    )
    return [f"{' ' * indent}{name:{20 - indent}}{value}" for name, value in rows]


COMMANDS = {
    "system info": Command("[OPTIONS]", _info, (FORMAT,)),
    "version": Command("[OPTIONS]", _version, (FORMAT,)),
}

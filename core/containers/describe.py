"""What users are shown of a container: Docker's ``inspect`` document.

Field for field as ``docker inspect`` of 20.10; what this version cannot set has the value that
Docker gives when it is not asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..images.times import format_time
from .describe_mounts import host_mounts, mount_points
from .describe_network import (
    NOT_ATTACHED,
    Attached,
    exposed_ports,
    host_networking,
    network_settings,
)
from .describe_resources import host_resources
from .describe_security import host_security
from .model import ContainerRecord, ContainerState
from .namespaces import host_namespaces

_ZERO_TIME = "0001-01-01T00:00:00Z"

#: HostConfig of a container that asked for nothing (reference: dockerd 20.10.24).
_HOST_DEFAULTS = """
{"ContainerIDFile": "", "LogConfig": {"Type": "k8s-file", "Config": {}}, "PortBindings": {},
 "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "VolumeDriver": "",
 "VolumesFrom": null, "CapAdd": null, "CapDrop": null, "Dns": [], "DnsOptions": [],
 "DnsSearch": [], "ExtraHosts": null, "GroupAdd": null, "IpcMode": "private", "Cgroup": "",
 "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false,
 "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
 "ConsoleSize": [0, 0], "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0,
 "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": null,
 "BlkioDeviceWriteBps": null, "BlkioDeviceReadIOps": null, "BlkioDeviceWriteIOps": null,
 "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0,
 "CpusetCpus": "", "CpusetMems": "", "Devices": [], "DeviceCgroupRules": null,
 "DeviceRequests": null, "KernelMemory": 0, "KernelMemoryTCP": 0, "MemoryReservation": 0,
 "MemorySwap": 0, "MemorySwappiness": null, "OomKillDisable": false, "PidsLimit": null,
 "Ulimits": null, "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0}
"""


def inspect_document(
    record: ContainerRecord,
    files: Mapping[str, str],
    driver_metadata: Mapping[str, str],
    network: str,
    volume_path: Callable[[str], Path],
    attached: Attached = NOT_ATTACHED,
) -> dict[str, object]:
    """Return what ``docker inspect`` shows of a container.

    *files* are the paths of its name files and its log, *driver_metadata* what the storage
    driver says of its snapshot, *network* what ``--network`` said, or ``default``, *volume_path*
    where a volume lies.

    The merged root and the network namespace of a running container have no names in the host;
    they are shown by the way through its first process.
    """
    arguments = record.spec.arguments
    return {
        "Id": record.id,
        "Created": format_time(record.created_ns),
        "Path": arguments[0] if arguments else "",
        "Args": list(arguments[1:]),
        "State": _state(record),
        "Image": record.image_id,
        "ResolvConfPath": files["resolv.conf"],
        "HostnamePath": files["hostname"],
        "HostsPath": files["hosts"],
        "LogPath": files["log"] if record.spec.log.kept else "",
        "Name": f"/{record.name}",
        "RestartCount": record.runtime.restarts.count,
        "Driver": record.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": record.spec.security.apparmor,
        "ExecIDs": None,
        "HostConfig": _host_config(record, network),
        "GraphDriver": {
            "Data": {**driver_metadata, **_by_process(record, "MergedDir", "root")} or None,
            "Name": record.driver,
        },
        "Mounts": mount_points(record.spec, volume_path),
        "Config": _config(record),
        "NetworkSettings": {
            **network_settings(record, attached),
            **_by_process(record, "SandboxKey", "ns/net"),
        },
    }


def _state(record: ContainerRecord) -> dict[str, object]:
    facts, state = record.runtime, record.state
    running = _running(record)
    return {
        "Status": state.value,
        "Running": running,
        "Paused": state is ContainerState.PAUSED,
        "Restarting": state is ContainerState.RESTARTING,
        "OOMKilled": facts.oom_killed,
        "Dead": state is ContainerState.DEAD,
        "Pid": facts.process.pid if running and facts.process else 0,
        "ExitCode": facts.exit_code,
        "Error": facts.error,
        "StartedAt": _time(facts.started_ns),
        "FinishedAt": _time(facts.finished_ns),
    }


def _running(record: ContainerRecord) -> bool:
    return record.state.lives  # in Docker a restarting one counts as running


def _by_process(record: ContainerRecord, key: str, entry: str) -> dict[str, str]:
    """Return *key* with a path below the first process in proc(5), if it runs."""
    process = record.runtime.process
    return {key: f"/proc/{process.pid}/{entry}"} if _running(record) and process else {}


def _time(time_ns: int) -> str:
    return format_time(time_ns) if time_ns else _ZERO_TIME


def _host_config(record: ContainerRecord, network: str) -> dict[str, object]:
    spec = record.spec
    document: dict[str, object] = json.loads(_HOST_DEFAULTS)
    return document | {
        **host_mounts(spec),
        **host_networking(spec, spec.network or network),
        "LogConfig": {"Type": spec.log.driver or "json-file", "Config": dict(spec.log.options)},
        "RestartPolicy": {
            "Name": spec.restart.name,
            "MaximumRetryCount": spec.restart.maximum_retries,
        },
        "AutoRemove": spec.auto_remove,
        **host_namespaces(spec.namespaces),
        **host_resources(spec.resources),
        "Runtime": Path(record.runtime.runtime).name,
        **host_security(spec.security),
    }


def _pairs(options: Sequence[str]) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (text.partition("=") for text in options)]


def _config(record: ContainerRecord) -> dict[str, object]:
    spec = record.spec
    document: dict[str, object] = {
        "Hostname": record.hostname,
        "Domainname": spec.domainname,
        "User": spec.user,
        "AttachStdin": spec.stdin_once,
        "AttachStdout": False,
        "AttachStderr": False,
        **exposed_ports(spec),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": list(spec.env),
        "Cmd": list(spec.command) or None,
        "Image": record.image_name,
        "Volumes": {path: {} for path in spec.volumes.declared} or None,
        "WorkingDir": spec.working_dir,
        "Entrypoint": list(spec.entrypoint) if spec.entrypoint else None,
        "OnBuild": None,
        "Labels": dict(sorted(spec.labels.items())),
    }
    if spec.networking.mac_address:
        document["MacAddress"] = spec.networking.mac_address
    if spec.stop_signal:
        document["StopSignal"] = spec.stop_signal
    if spec.stop_timeout_seconds is not None:
        document["StopTimeout"] = spec.stop_timeout_seconds
    return document

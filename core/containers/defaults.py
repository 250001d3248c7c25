"""What ``daemon.json`` says for all containers, filled in where one asked for nothing else.

It is recorded with the container, so that another configuration later changes nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from .model import ContainerSpec
from .namespaces import Namespaces
from .resources import with_defaults
from .security import Security

if TYPE_CHECKING:
    from ..config import Config


def configured(spec: ContainerSpec, config: Config) -> ContainerSpec:
    """Return *spec* with the configured limits, rights and namespaces.

    Raises:
        InvalidArgument: if the configured seccomp profile cannot be read.
    """
    resources = with_defaults(spec.resources, config.default_ulimits, config.default_shm_size)
    parent = resources.cgroup_parent or config.cgroup_parent or ""
    return replace(
        spec,
        resources=replace(resources, cgroup_parent=parent),
        security=_security(spec.security, config),
        namespaces=_namespaces(spec.namespaces, config),
    )


def _security(asked: Security, config: Config) -> Security:
    if config.no_new_privileges and not _names(asked, "no-new-privileges"):
        asked = replace(asked, no_new_privileges=True)
    if config.seccomp_profile and not _names(asked, "seccomp"):
        profile = config.seccomp_profile
        if profile != "unconfined":
            from .seccomp_profile import read_profile

            profile = read_profile(profile)
        asked = replace(asked, seccomp=profile)
    return asked


def _names(asked: Security, option: str) -> bool:
    """Whether ``--security-opt`` has a say in it."""
    return any(text.replace(":", "=").partition("=")[0] == option for text in asked.options)


def _namespaces(asked: Namespaces, config: Config) -> Namespaces:
    return replace(
        asked,
        ipc=asked.ipc or config.default_ipc_mode,
        cgroupns=asked.cgroupns or config.default_cgroupns_mode or "",
    )

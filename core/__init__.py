"""Stowage: pluggable storage and network drivers for containers, and the engine that runs them.

``from stowage import Engine`` is the door for Python users; driver authors need ``hookimpl``,
the values of :mod:`stowage.model` and :func:`effect`. Names are loaded when first used, so that
importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as typing's, which takes milliseconds to import
if TYPE_CHECKING:
    from .containers.model import ContainerSpec as ContainerSpec
    from .containers.namespaces import Namespaces as Namespaces
    from .containers.resources import Resources as Resources
    from .containers.running import RunResult as RunResult
    from .containers.security import Security as Security
    from .effects import effect as effect
    from .effects import effectful as effectful
    from .engine import Engine as Engine
    from .errors import AlreadyExists as AlreadyExists
    from .errors import Busy as Busy
    from .errors import CommandFailed as CommandFailed
    from .errors import DataLoss as DataLoss
    from .errors import DriverFailed as DriverFailed
    from .errors import FailedPrecondition as FailedPrecondition
    from .errors import InvalidArchive as InvalidArchive
    from .errors import InvalidArgument as InvalidArgument
    from .errors import NoSpace as NoSpace
    from .errors import NotFound as NotFound
    from .errors import NotSupported as NotSupported
    from .errors import PermissionDenied as PermissionDenied
    from .errors import StowageError as StowageError
    from .errors import Unavailable as Unavailable
    from .hookspecs import hookimpl as hookimpl
    from .model import API_VERSION as API_VERSION
    from .model import Change as Change
    from .model import ChangeKind as ChangeKind
    from .model import DirectoryOption as DirectoryOption
    from .model import Finding as Finding
    from .model import Kind as Kind
    from .model import LayerTree as LayerTree
    from .model import Mount as Mount
    from .model import StorageCapabilities as StorageCapabilities
    from .model import StorageProbe as StorageProbe
    from .model import Usage as Usage
    from .model import WhiteoutForm as WhiteoutForm
    from .options import BooleanType as BooleanType
    from .options import ChoiceType as ChoiceType
    from .options import IntegerType as IntegerType
    from .options import Option as Option
    from .options import Options as Options
    from .options import SizeType as SizeType
    from .options import TextType as TextType

_MODULE_BY_NAME = {
    "API_VERSION": ".model",
    "AlreadyExists": ".errors",
    "BooleanType": ".options",
    "Busy": ".errors",
    "Change": ".model",
    "ChangeKind": ".model",
    "ChoiceType": ".options",
    "CommandFailed": ".errors",
    "ContainerSpec": ".containers.model",
    "DataLoss": ".errors",
    "DirectoryOption": ".model",
    "DriverFailed": ".errors",
    "Engine": ".engine",
    "FailedPrecondition": ".errors",
    "Finding": ".model",
    "IntegerType": ".options",
    "InvalidArchive": ".errors",
    "InvalidArgument": ".errors",
    "Kind": ".model",
    "LayerTree": ".model",
    "Mount": ".model",
    "Namespaces": ".containers.namespaces",
    "NoSpace": ".errors",
    "NotFound": ".errors",
    "NotSupported": ".errors",
    "Option": ".options",
    "Options": ".options",
    "PermissionDenied": ".errors",
    "Resources": ".containers.resources",
    "RunResult": ".containers.running",
    "Security": ".containers.security",
    "SizeType": ".options",
    "StorageCapabilities": ".model",
    "StorageProbe": ".model",
    "StowageError": ".errors",
    "TextType": ".options",
    "Unavailable": ".errors",
    "Usage": ".model",
    "WhiteoutForm": ".model",
    "effect": ".effects",
    "effectful": ".effects",
    "hookimpl": ".hookspecs",
}

__all__ = [
    "API_VERSION",
    "AlreadyExists",
    "BooleanType",
    "Busy",
    "Change",
    "ChangeKind",
    "ChoiceType",
    "CommandFailed",
    "ContainerSpec",
    "DataLoss",
    "DirectoryOption",
    "DriverFailed",
    "Engine",
    "FailedPrecondition",
    "Finding",
    "IntegerType",
    "InvalidArchive",
    "InvalidArgument",
    "Kind",
    "LayerTree",
    "Mount",
    "Namespaces",
    "NoSpace",
    "NotFound",
    "NotSupported",
    "Option",
    "Options",
    "PermissionDenied",
    "Resources",
    "RunResult",
    "Security",
    "SizeType",
    "StorageCapabilities",
    "StorageProbe",
    "StowageError",
    "TextType",
    "Unavailable",
    "Usage",
    "WhiteoutForm",
    "effect",
    "effectful",
    "hookimpl",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from .version import VERSION

        return VERSION
    try:
        module = import_module(_MODULE_BY_NAME[name], __name__)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(module, name)

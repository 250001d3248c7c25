"""``network ls`` and ``network inspect``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from . import human
from .command import Command
from .context import Context
from .filters import accept, label_matches, name_matches, pairs_of
from .flags import Parsed, switch
from .image import FILTER, FORMAT, NO_TRUNC, QUIET
from .inspect import FORMAT as INSPECT_FORMAT
from .inspect import network, shown
from .table import Listing

if TYPE_CHECKING:
    from ..model import Network

NETWORKS = Listing(
    {
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "CreatedAt": "CREATED AT",
    },
    ("ID", "Name", "Driver", "Scope"),
    quiet="ID",
)
_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


def _list(context: Context, parsed: Parsed) -> None:
    from ..net.describe import driver_name
    from ..net.networks import PREDEFINED

    networks = context.engine.networks
    pairs = pairs_of(parsed, _FILTERS)
    known = networks.with_predefined()
    in_use = {endpoint.network_id for endpoint in networks.recorded().endpoints}

    def tests(one: Network) -> Mapping[str, Callable[[str], bool]]:
        custom = one.name not in PREDEFINED
        dangling = custom and one.id not in in_use
        return {
            "dangling": lambda wanted: (wanted in ("1", "true")) == dangling,
            "driver": lambda driver: driver in (driver_name(one), one.driver),
            "id": one.id.startswith,
            "label": lambda wanted: label_matches(one.labels, wanted),
            "name": lambda pattern: name_matches(one.name, pattern),
            "scope": lambda scope: scope == "local",
            "type": lambda kind: kind == ("custom" if custom else "builtin"),
        }

    def row(one: Network) -> Mapping[str, object]:
        labels = one.labels
        return {
            "ID": one.id if parsed.on("no-trunc") else one.id[:12],
            "Name": one.name,
            "Driver": driver_name(one),
            "Scope": "local",
            "IPv6": str(any(pool.subnet.version == 6 for pool in one.pools)).lower(),
            "Internal": str(one.internal).lower(),
            "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
            "Label": lambda name: labels.get(name, ""),
            "CreatedAt": human.local_time(networks.created_ns(one)),
        }

    rows = (row(one) for one in known if accept(pairs, tests(one)))
    context.print(NETWORKS.show(rows, format=parsed.text("format"), quiet=parsed.on("quiet")))


COMMANDS = {
    "network ls": Command("[OPTIONS]", _list, (FILTER, FORMAT, NO_TRUNC, QUIET)),
    "network inspect": Command(
        "[OPTIONS] NETWORK [NETWORK...]",
        shown(network),
        (INSPECT_FORMAT, switch("verbose", "Verbose output for diagnostics", "v")),
    ),
}

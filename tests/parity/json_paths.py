"""Print the names in the JSON on stdin, sorted, below the names given as arguments.

A list counts as its first element, a list around the whole is left away; what lies deeper than
three names is not shown. Run as a program, without site-packages.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

DEPTH = 3


def paths(value: object, below: str = "", depth: int = DEPTH) -> Iterator[str]:
    """Yield the names in *value* as ``.A.B``."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict) and depth:
        for key, inner in sorted(value.items()):
            yield f"{below}.{key}"
            yield from paths(inner, f"{below}.{key}", depth - 1)


def main() -> None:
    value = json.load(sys.stdin)
    for name in sys.argv[1:]:
        value = (value[0] if isinstance(value, list) else value)[name]
    print("\n".join(paths(value, depth=DEPTH if sys.argv[1:] else 1)))


if __name__ == "__main__":
    main()

"""``-e``, ``--env-file`` and ``--label``: what users write, read as Docker reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..errors import InvalidArgument, NotFound


def read_environment(
    files: Iterable[str], given: Iterable[str], environ: Mapping[str, str]
) -> tuple[str, ...]:
    """Return ``KEY=value`` of env files, then of ``-e``, which wins by coming later.

    A bare ``KEY`` takes this process's value, and nothing if it has none.

    Raises:
        InvalidArgument: if a name is empty or has blanks, or a file is no text.
        NotFound: if a file is not there.
    """
    result = [entry for path in files for entry in _env_file(Path(path), environ)]
    for text in given:
        if text.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {text}")
        result += _resolved(text, environ)
    return tuple(result)


def environment_entry(text: str) -> str:
    """Read one ``-e``.

    Raises:
        ValueError: if it has no name.
    """
    if text.startswith("="):
        raise ValueError(f"invalid environment variable: {text}")
    return text


def _resolved(text: str, environ: Mapping[str, str]) -> Iterator[str]:
    if "=" in text:
        yield text
    elif text in environ:
        yield f"{text}={environ[text]}"


def _env_file(path: Path, environ: Mapping[str, str]) -> Iterator[str]:
    try:
        content = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise NotFound("file", str(path), brief=f"open {path}: no such file or directory") from None
    except UnicodeDecodeError:
        raise InvalidArgument(f"env file {path} contains invalid utf8 bytes") from None
    for line in content.split("\n"):
        text = line.rstrip("\r").lstrip()
        if not text or text.startswith("#"):
            continue
        name = text.partition("=")[0]
        if not name:
            raise InvalidArgument(
                f"poorly formatted environment: no variable name on line '{text}'"
            )
        if any(character.isspace() for character in name):
            raise InvalidArgument(
                f"poorly formatted environment: variable '{name}' contains whitespaces"
            )
        yield from _resolved(text, environ)


def read_labels(given: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """Return labels of *files* and of ``KEY=value``, which wins; a bare ``KEY`` has an empty value.

    In a file a line is a label, as in an env file; a bare name there is left out, as Docker does
    with what the environment does not have.

    Raises:
        InvalidArgument: if a label has no name, or a file is no text.
        NotFound: if a file is not there.
    """
    labels: dict[str, str] = {}
    from_files = [line for path in files for line in _env_file(Path(path), {})]
    for text in (*from_files, *given):
        name, _, value = text.partition("=")
        if not name.strip():
            raise InvalidArgument(f"invalid label '{text}': empty name")
        labels[name.strip()] = value
    return labels

"""Ids and names of containers: 64 hex digits, and two words where nobody gave a name."""

from __future__ import annotations

import os
import re

from ..errors import AlreadyExists, InvalidArgument

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ID = re.compile(r"[0-9a-f]{64}")

_ADJECTIVES = str.split(
    """
able agile amber ample azure balmy bold brave breezy bright brisk calm candid civil clever
cobalt cosmic crisp daring deft eager early earnest fair fleet fluent fond frank fresh
gentle glad golden grand green handy hardy honest humble jolly keen kind lively loyal lucid
lunar mellow merry mild modest nimble noble patient placid plucky polite prime proud quick
quiet rapid ready robust rosy rustic serene sharp shiny silent silver sincere smooth snug
solid spry stable steady stellar stoic sturdy subtle sunny swift tender tidy tranquil true
upbeat valiant vivid warm wise witty zesty
"""
)
_SURNAMES = str.split(
    """
abel agnesi ampere anning archimedes babbage banach bardeen bassi bernoulli bhaskara bohr
boole bose brahe cannon carson cauchy cavendish celsius chandra church clarke cori curie
darwin davy descartes dijkstra dirac edison einstein erdos euclid euler faraday fermat fermi
feynman fourier franklin galileo galois gauss germain goodall hamilton hawking heisenberg
hertz hilbert hodgkin hopper hubble huygens hypatia joule kepler khayyam kirchhoff knuth
lamarr laplace leavitt leibniz lovelace mach maxwell mayer meitner mendel moser napier
newton nobel noether ohm pascal pasteur pauli perlman planck poincare ramanujan ride
riemann ritchie rubin sagan shannon somerville tesla thompson turing volta wiles wing wu
"""
)


def new_id() -> str:
    """Return a new id of 64 hex digits; its first 12 are never all decimal (a hostname that
    looks like a number confuses resolvers)."""
    while (fresh := os.urandom(32).hex())[:12].isdecimal():
        pass
    return fresh


def random_name(attempt: int = 0) -> str:
    """Return ``adjective_surname``; after a few tries that were taken, with a digit."""
    import random

    name = f"{random.choice(_ADJECTIVES)}_{random.choice(_SURNAMES)}"
    return name if attempt < 4 else f"{name}{random.randrange(10 ** (attempt - 3))}"


def is_id(text: str) -> bool:
    """Whether *text* is a whole id."""
    return _ID.fullmatch(text) is not None


def check_name(name: str) -> str:
    """Return *name* without the slash that Docker's API puts before it.

    Raises:
        InvalidArgument: in Docker's words.
    """
    bare = name.removeprefix("/")
    if not _NAME.fullmatch(bare):
        raise InvalidArgument(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return bare


def name_in_use(name: str, container_id: str) -> AlreadyExists:
    """Return Docker's answer to a name that another container has."""
    return AlreadyExists(
        "container",
        name,
        brief=(
            f'Conflict. The container name "/{name}" is already in use by container '
            f'"{container_id}". You have to remove (or rename) that container to be able to '
            "reuse that name."
        ),
    )

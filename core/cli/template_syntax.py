"""The syntax of Go templates (text/template) as far as ``--format`` goes: text to a tree.

Actions: pipelines, variables, ``if``, ``range``, ``with`` with ``else`` and ``else if``,
``break`` and ``continue``, comments, trimming (``{{-`` and ``-}}``). Not there: ``define``,
``template``, ``block``. Errors are worded as Go words them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

BranchKind = Literal["if", "range", "with"]
JumpKind = Literal["break", "continue"]


class TemplateSyntaxError(ValueError):
    """The template cannot be parsed."""


class Text(Struct, frozen=True):
    text: str


class Constant(Struct, frozen=True):
    """A constant: string, number, boolean or nil."""

    value: object


class Field(Struct, frozen=True):
    """``.A.B``, ``$x.A`` or ``(…).A``: *base* is None for the dot."""

    base: Node | None
    names: tuple[str, ...]
    source: str


class Variable(Struct, frozen=True):
    name: str


class Call(Struct, frozen=True):
    """A function by its name."""

    name: str


class Pipe(Struct, frozen=True):
    """Commands, each a word and its arguments; *variables* are set to the result."""

    commands: tuple[tuple[Node, ...], ...]
    variables: tuple[str, ...] = ()
    declares: bool = False


class Branch(Struct, frozen=True):
    """``if``, ``range`` or ``with``."""

    kind: BranchKind
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


class Jump(Struct, frozen=True):
    """``break`` or ``continue``."""

    kind: JumpKind


Node = Text | Constant | Field | Variable | Call | Pipe | Branch | Jump

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
  | (?P<char>'(?:[^'\\\n]|\\.)')
  | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+))
  | (?P<declare>:=)
  | (?P<field>\.[A-Za-z_][A-Za-z0-9_]*)
  | (?P<dot>\.)
  | (?P<variable>\$[A-Za-z0-9_]*)
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<mark>[|(),=])
    """,
    re.VERBOSE,
)
_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v",
    "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)")
_BRANCHES: dict[str, BranchKind] = {"if": "if", "range": "range", "with": "with"}
_JUMPS: dict[str, JumpKind] = {"break": "break", "continue": "continue"}
_UNSUPPORTED = ("define", "template", "block")


class _Token(Struct, frozen=True):
    kind: str
    text: str


class _Action(Struct, frozen=True):
    """The words between braces."""

    tokens: tuple[_Token, ...]


def parse(template: str) -> tuple[Node, ...]:
    """Return the tree of *template*.

    Raises:
        TemplateSyntaxError: in Go's words.
    """
    parser = _Blocks(_split(template))
    try:
        nodes, ended = parser.block(in_range=False)
    except RecursionError:
        raise TemplateSyntaxError("nested too deeply") from None
    if ended is not None:
        raise TemplateSyntaxError(f"unexpected {{{{{ended}}}}}")
    return nodes


def _split(template: str) -> list[Text | _Action]:
    """Cut *template* into text and actions; trim markers are applied here."""
    pieces: list[Text | _Action] = []
    position, trim = 0, False
    while True:
        start = template.find("{{", position)
        text = template[position : start if start >= 0 else len(template)]
        text = text.lstrip() if trim else text
        if start < 0:
            return [*pieces, Text(text)] if text else pieces
        inner = start + 2
        if re.match(r"-\s", template[inner:]):
            text = text.rstrip()
            inner += 1
        if text:
            pieces.append(Text(text))
        tokens, position, trim = _action(template, inner)
        if tokens is not None:
            pieces.append(_Action(tokens))


def _action(template: str, position: int) -> tuple[tuple[_Token, ...] | None, int, bool]:
    """Read to the closing braces: the tokens (None for a comment), where text goes on, whether
    it is trimmed."""
    comment = re.compile(r"\s*/\*.*?\*/(?:\s+-|\s*)}}", re.DOTALL).match(template, position)
    if comment is not None:
        return None, comment.end(), comment[0].endswith("-}}")
    tokens: list[_Token] = []
    while True:
        closing = re.compile(r"\s+-}}|\s*}}").match(template, position)
        if closing is not None:
            return tuple(tokens), closing.end(), closing[0].endswith("-}}")
        match = _TOKEN.match(template, position)
        if match is None:
            raise _unreadable(template, position)
        position = match.end()
        assert match.lastgroup is not None
        tokens.append(_Token(match.lastgroup, match[0]))


def _unreadable(template: str, position: int) -> TemplateSyntaxError:
    rest = template[position:]
    if not rest:
        return TemplateSyntaxError("unclosed action")
    if rest.startswith('"'):
        return TemplateSyntaxError("unterminated quoted string")
    if rest.startswith("`"):
        return TemplateSyntaxError("unterminated raw quoted string")
    if rest.startswith("'"):
        return TemplateSyntaxError("unterminated character constant")
    if rest.startswith("/*"):
        return TemplateSyntaxError("unclosed comment")
    return TemplateSyntaxError(f'unexpected "{rest[0]}" in command')


class _Blocks:
    """Nests the actions: ``if``, ``range``, ``with`` up to their ``end``."""

    def __init__(self, pieces: Sequence[Text | _Action]) -> None:
        self._pieces = list(pieces)
        self._next = 0

    def block(self, *, in_range: bool) -> tuple[tuple[Node, ...], str | None]:
        """Return nodes up to ``end`` or ``else…`` and that word, or None at the end of all."""
        nodes: list[Node] = []
        while self._next < len(self._pieces):
            piece = self._pieces[self._next]
            self._next += 1
            if isinstance(piece, Text):
                nodes.append(piece)
                continue
            words = [token for token in piece.tokens if token.kind != "space"]
            first = words[0].text if words and words[0].kind == "word" else ""
            if first in ("end", "else"):
                self._pending = words[1:]
                return tuple(nodes), first
            nodes.append(self._node(first, piece, in_range=in_range))
        return tuple(nodes), None

    def _node(self, first: str, action: _Action, *, in_range: bool) -> Node:
        if first in _BRANCHES:
            return self._branch(_BRANCHES[first], _after_word(action.tokens), in_range=in_range)
        if first in _JUMPS:
            if not in_range:
                raise TemplateSyntaxError(f"{{{{{first}}}}} outside {{{{range}}}}")
            return Jump(_JUMPS[first])
        if first in _UNSUPPORTED:
            raise TemplateSyntaxError(f"{{{{{first}}}}} is not supported in --format")
        return _Pipeline(action.tokens, "command").read()

    def _branch(
        self,
        kind: BranchKind,
        tokens: tuple[_Token, ...],
        *,
        in_range: bool,
    ) -> Branch:
        pipe = _Pipeline(tokens, kind).read()
        inner = in_range or kind == "range"
        body, ended = self.block(in_range=inner)
        otherwise: tuple[Node, ...] = ()
        if ended == "else":
            chained = self._pending
            if chained and kind != "range" and chained[0].text == kind:
                rest = _spaced(chained[1:])
                return Branch(kind, pipe, body, (self._branch(kind, rest, in_range=in_range),))
            if chained:
                raise TemplateSyntaxError(f'unexpected "{chained[0].text}" in else')
            otherwise, ended = self.block(in_range=in_range)
        if ended is None:
            raise TemplateSyntaxError("unexpected EOF")
        if ended == "else":
            raise TemplateSyntaxError("expected end; found {{else}}")
        return Branch(kind, pipe, body, otherwise)


def _after_word(tokens: tuple[_Token, ...]) -> tuple[_Token, ...]:
    index = next(i for i, token in enumerate(tokens) if token.kind == "word")
    return tokens[index + 1 :]


def _spaced(tokens: Sequence[_Token]) -> tuple[_Token, ...]:
    return tuple(piece for token in tokens for piece in (_Token("space", " "), token))


class _Pipeline:
    """Reads the tokens of one action, or of what stands in parentheses."""

    def __init__(self, tokens: Sequence[_Token], context: str) -> None:
        self._tokens = list(tokens)
        self._next = 0
        self._context = context

    def read(self) -> Pipe:
        pipe = self._pipe()
        if (token := self._peek()) is not None:
            raise TemplateSyntaxError(f'unexpected "{token.text}" in {self._context}')
        return pipe

    def _peek(self, *, skip: bool = True) -> _Token | None:
        while skip and self._next < len(self._tokens) and self._at().kind == "space":
            self._next += 1
        return self._at() if self._next < len(self._tokens) else None

    def _at(self) -> _Token:
        return self._tokens[self._next]

    def _pipe(self) -> Pipe:
        variables, declares = self._declaration()
        commands = [self._command()]
        while (token := self._peek()) is not None and token.text == "|":
            self._next += 1
            commands.append(self._command())
        for number, command in enumerate(commands[1:], 2):
            if isinstance(command[0], Constant | Pipe):
                raise TemplateSyntaxError(f"non executable command in pipeline stage {number}")
        return Pipe(tuple(commands), variables, declares)

    def _declaration(self) -> tuple[tuple[str, ...], bool]:
        """``$x :=``, ``$x =`` or ``$i, $x :=``, if the tokens start so."""
        words = [t for t in self._tokens[self._next :] if t.kind != "space"]
        for pattern in (1, 3):
            head = [t.text if t.kind != "variable" else "$" for t in words[: pattern + 1]]
            if head in (["$", ":="], ["$", "="], ["$", ",", "$", ":="], ["$", ",", "$", "="]):
                if pattern == 3 and self._context != "range":
                    raise TemplateSyntaxError(f"too many declarations in {self._context}")
                for _ in range(pattern + 1):
                    self._peek()
                    self._next += 1
                names = tuple(t.text for t in words[:pattern] if t.kind == "variable")
                return names, head[-1] == ":="
        return (), False

    def _command(self) -> tuple[Node, ...]:
        operands: list[Node] = []
        while (token := self._peek()) is not None and token.text not in ("|", ")"):
            operands.append(self._operand(token))
        if not operands:
            raise TemplateSyntaxError(f"missing value for {self._context}")
        if len(operands) > 1 and isinstance(operands[0], Constant):
            raise TemplateSyntaxError(f"can't give argument to non-function {operands[0].value}")
        return tuple(operands)

    def _operand(self, token: _Token) -> Node:
        self._next += 1
        base: Node | None
        if token.kind == "field":
            return Field(None, self._fields(token.text[1:]), token.text)
        if token.kind == "dot":
            base = Field(None, (), ".")
        elif token.kind == "variable":
            base = Variable(token.text)
        elif token.text == "(":
            base = self._pipe()
            closing = self._peek()
            if closing is None or closing.text != ")":
                raise TemplateSyntaxError("unclosed left paren")
            self._next += 1
        else:
            base = _atom(token)
        names = self._fields()
        if names and isinstance(base, Constant):
            raise TemplateSyntaxError(f"unexpected . after term {token.text!r}")
        return Field(base, names, token.text) if names else base

    def _fields(self, *first: str) -> tuple[str, ...]:
        names = list(first)
        while (token := self._peek(skip=False)) is not None and token.kind == "field":
            names.append(token.text[1:])
            self._next += 1
        if token is not None and token.kind == "dot":
            raise TemplateSyntaxError("unexpected <.> in operand")
        return tuple(names)


def _atom(token: _Token) -> Node:
    if token.kind == "string":
        return Constant(_unquoted(token.text))
    if token.kind == "char":
        return Constant(ord(_unquoted(token.text)))
    if token.kind == "number":
        text = token.text.replace("_", "")
        if re.fullmatch(r"[+-]?\d+", text):
            return Constant(int(text))
        return Constant(int(text, 16) if "x" in text.lower() else float(text))
    if token.kind == "word":
        constants: dict[str, object] = {"true": True, "false": False, "nil": None}
        if token.text in constants:
            return Constant(constants[token.text])
        return Call(token.text)
    raise TemplateSyntaxError(f'unexpected "{token.text}" in operand')


def _unquoted(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]

    def replaced(match: re.Match[str]) -> str:
        escape = match[1]
        if escape[0] in "xuU":
            return chr(int(escape[1:], 16))
        if len(escape) == 3:
            return chr(int(escape, 8))
        if escape not in _ESCAPES:
            raise TemplateSyntaxError("invalid syntax")
        return _ESCAPES[escape]

    return _ESCAPE.sub(replaced, text[1:-1])

"""``--format``: Go templates over plain values, as Docker's users write them.

Values are what JSON has, plus callables for methods (``{{.Label "x"}}``). A mapping that lacks
a name is an error, as in Docker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..errors import InvalidArgument
from . import template_syntax as syntax
from .template_functions import FUNCTIONS, TemplateError, printed, truth


class Template:
    """A parsed template; :meth:`render` may be called for any number of values.

    Raises:
        InvalidArgument: if the template is wrong, or (from render) does not fit the value.
    """

    def __init__(self, text: str) -> None:
        try:
            self._nodes = syntax.parse(text)
            _check(self._nodes, {"$"})
        except syntax.TemplateSyntaxError as error:
            where = "" if "\n" in text else "template: :1: "  # Go's line numbers
            raise InvalidArgument(
                f"template parsing error: {where}{error}",
                details=f"in --format {text!r}",
                resolution="--format takes Go templates such as '{{.Names}}' or '{{json .}}'",
            ) from None

    def render(self, value: object) -> str:
        """Return the text for *value*, which is the dot."""
        out: list[str] = []
        try:
            _Evaluation(value, out).nodes(self._nodes, value)
        except TemplateError as error:
            raise InvalidArgument(f"template execution error: {error}") from None
        return "".join(out)


def _check(nodes: Sequence[syntax.Node], variables: set[str]) -> None:
    """Refuse functions and variables that do not exist, before anything is printed."""
    known = set(variables)
    for node in nodes:
        if isinstance(node, syntax.Branch):
            inner = known | _check_pipe(node.pipe, known)
            _check(node.body, inner)
            _check(node.otherwise, inner)
        elif isinstance(node, syntax.Pipe):
            known |= _check_pipe(node, known)


def _check_pipe(pipe: syntax.Pipe, known: set[str]) -> set[str]:
    for operand in (operand for command in pipe.commands for operand in command):
        while isinstance(operand, syntax.Field) and operand.base is not None:
            operand = operand.base
        if isinstance(operand, syntax.Call) and operand.name not in FUNCTIONS:
            raise syntax.TemplateSyntaxError(f'function "{operand.name}" not defined')
        if isinstance(operand, syntax.Variable) and operand.name not in known:
            raise syntax.TemplateSyntaxError(f'undefined variable "{operand.name}"')
        if isinstance(operand, syntax.Pipe):
            _check_pipe(operand, known)
    for name in pipe.variables:
        if not pipe.declares and name not in known:
            raise syntax.TemplateSyntaxError(f'undefined variable "{name}"')
    return set(pipe.variables)


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Evaluation:
    """One rendering: variables in scopes, innermost last."""

    def __init__(self, root: object, out: list[str]) -> None:
        self._scopes: list[dict[str, object]] = [{"$": root}]
        self._out = out

    def nodes(self, nodes: Sequence[syntax.Node], dot: object) -> None:
        for node in nodes:
            if isinstance(node, syntax.Text):
                self._out.append(node.text)
            elif isinstance(node, syntax.Jump):
                raise _Break if node.kind == "break" else _Continue
            elif isinstance(node, syntax.Branch):
                self._branch(node, dot)
            elif isinstance(node, syntax.Pipe):
                value = self._pipe(node, dot)
                if node.variables:
                    self._set(node.variables[0], value, declare=node.declares)
                else:
                    self._out.append(printed(value))

    def _branch(self, node: syntax.Branch, dot: object) -> None:
        self._scopes.append({})
        try:
            value = self._pipe(node.pipe, dot)
            if node.kind == "range":
                self._range(node, value, dot)
                return
            if node.pipe.variables:
                self._set(node.pipe.variables[0], value, declare=node.pipe.declares)
            if truth(value):
                self.nodes(node.body, value if node.kind == "with" else dot)
            else:
                self.nodes(node.otherwise, dot)
        finally:
            self._scopes.pop()

    def _range(self, node: syntax.Branch, value: object, dot: object) -> None:
        items = list(_items(value))
        if not items:
            self.nodes(node.otherwise, dot)
        for key, item in items:
            self._scopes.append({})
            values = (item,) if len(node.pipe.variables) == 1 else (key, item)
            for name, bound in zip(node.pipe.variables, values, strict=False):
                self._set(name, bound, declare=node.pipe.declares)
            try:
                self.nodes(node.body, item)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                self._scopes.pop()

    def _set(self, name: str, value: object, *, declare: bool) -> None:
        if declare:
            self._scopes[-1][name] = value
            return
        for scope in reversed(self._scopes):
            if name in scope:
                scope[name] = value
                return

    def _pipe(self, pipe: syntax.Pipe, dot: object) -> object:
        value: object = None
        for number, command in enumerate(pipe.commands):
            value = self._command(command, dot, (value,) if number else ())
        return value

    def _command(
        self, command: tuple[syntax.Node, ...], dot: object, last: tuple[object, ...]
    ) -> object:
        word, *operands = command
        if isinstance(word, syntax.Call) and word.name in ("and", "or"):
            return self._short_circuit(word.name, operands, dot, last)
        arguments = [*(self._value(operand, dot) for operand in operands), *last]
        if isinstance(word, syntax.Call):
            return _called(word.name, FUNCTIONS[word.name], arguments)
        if isinstance(word, syntax.Field):
            return self._field(word, dot, arguments)
        if arguments:
            raise TemplateError("can't give argument to non-function")
        return self._value(word, dot)

    def _short_circuit(
        self, name: str, operands: Sequence[syntax.Node], dot: object, last: tuple[object, ...]
    ) -> object:
        value: object = None
        for operand in (*operands, *(syntax.Constant(given) for given in last)):
            value = self._value(operand, dot)
            if truth(value) is (name == "or"):
                return value
        return value

    def _value(self, node: syntax.Node, dot: object) -> object:
        if isinstance(node, syntax.Constant):
            return node.value
        if isinstance(node, syntax.Variable):
            return next(scope[node.name] for scope in reversed(self._scopes) if node.name in scope)
        if isinstance(node, syntax.Field):
            return self._field(node, dot, [])
        if isinstance(node, syntax.Call):
            return _called(node.name, FUNCTIONS[node.name], [])
        assert isinstance(node, syntax.Pipe)
        return self._pipe(node, dot)

    def _field(self, node: syntax.Field, dot: object, arguments: list[object]) -> object:
        value = dot if node.base is None else self._value(node.base, dot)
        for name in node.names[:-1]:
            value = _resolved(_member(value, name), name, [])
        if node.names:
            return _resolved(_member(value, node.names[-1]), node.names[-1], arguments)
        if arguments:
            raise TemplateError(f"can't give argument to non-function {node.source}")
        return value


def _member(value: object, name: str) -> object:
    if isinstance(value, Mapping):
        if name in value:
            return value[name]
        raise TemplateError(f'map has no entry for key "{name}"')
    if value is None:
        raise TemplateError(f"nil data; no entry for key {name!r}")
    raise TemplateError(f"can't evaluate field {name} in {printed(value)!r}")


def _resolved(value: object, name: str, arguments: list[object]) -> object:
    if callable(value):
        return _called(name, value, arguments)
    if arguments:
        raise TemplateError(f"{name} is not a method but has arguments")
    return value


def _called(name: str, function: Callable[..., object], arguments: list[object]) -> object:
    try:
        return function(*arguments)
    except TemplateError as error:
        raise TemplateError(f"error calling {name}: {error}") from None
    except TypeError:
        raise TemplateError(
            f"wrong number or kind of arguments for {name}: {len(arguments)} given"
        ) from None


def _items(value: object) -> Iterator[tuple[object, object]]:
    if value is None:
        return iter(())
    if isinstance(value, Mapping):
        return iter(sorted(value.items()))
    if isinstance(value, list | tuple):
        return iter(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return ((number, number) for number in range(value))
    raise TemplateError(f"range can't iterate over {printed(value)}")

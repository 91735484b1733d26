"""Python source rewritten so that it still does the same: what ``aug=code`` is made of.

Each function changes a syntax tree in place. Whatever it draws comes from ``rng``.
"""

import ast
import builtins
import io
import keyword
import math
import operator
import tokenize
import warnings
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef
INNER = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp,
    ast.GeneratorExp,
)  # fmt: skip
"""What has names of its own within a function."""
LOOKS_AT_NAMES = {"locals", "vars", "eval", "exec", "dir", "globals"}
"""A function that calls one of these may notice that its variables are called otherwise."""
WORDS = (
    "apple", "bridge", "candle", "desert", "engine", "forest", "garden", "harbor", "island", "jacket", "kernel",
    "ladder", "market", "needle", "orange", "pencil", "quarry", "ribbon", "saddle", "tunnel", "valley", "window",
    "yellow", "anchor", "basket", "copper", "dragon", "feather", "guitar", "hammer", "insect", "jungle", "kettle",
    "lantern", "marble", "number", "object", "parcel", "record", "signal", "ticket", "update", "vector", "weight",
    "answer", "button", "circle", "detail", "effect", "figure", "handle", "images", "joiner", "limits", "method",
    "nature", "option", "period", "reason", "sample", "target", "values",
)  # fmt: skip
"""What new names are made of."""
OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
LARGEST = 2**64
"""Of a folded number; and no folded string is longer than 256 characters."""


def parsed(text: str) -> ast.Module | None:
    """The syntax tree of a text; None if it is no Python source."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def rename(tree: ast.AST, rng: Random) -> None:
    """Give the parameters and variables of each outermost function other names. Names that its inner functions, classes
    and comprehensions bind, and ``self`` and ``cls``, stay."""
    for function in _outermost(tree):
        used = _identifiers(function)
        if used & LOOKS_AT_NAMES:
            continue
        new = {name: _word(rng, used) for name in _own_names(function)}
        for argument in _arguments(function.args):
            argument.arg = new.get(argument.arg, argument.arg)
        for statement in function.body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name):
                    node.id = new.get(node.id, node.id)


def insert_dead(tree: ast.AST, rng: Random) -> None:
    """Set a variable that nothing reads, somewhere in each outermost function."""
    for function in _outermost(tree):
        target = ast.Name(_word(rng, _identifiers(function)), ast.Store())
        first = 1 if _has_docstring(function) else 0
        line = ast.Assign([target], ast.Constant(rng.choice([None, 0, 1, "", True])))
        function.body.insert(rng.randint(first, len(function.body)), line)


def remove_dead(tree: ast.AST) -> None:
    """Remove what never runs or has no effect: statements behind a return, raise, break or continue, the other branch
    of a constant condition, ``pass`` and constants among other statements."""
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block and not isinstance(node, ast.Module):
                alive = _alive(block, documented=name == "body" and _has_docstring(node))
                setattr(node, name, alive or ([ast.Pass()] if name == "body" else []))


def fold(tree: ast.AST) -> None:
    """Compute sums, products and the like of constants."""
    _Fold().visit(tree)


def drop_docstrings(tree: ast.AST) -> None:
    """Remove the docstrings of functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef) and _has_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]


def without_comments(text: str) -> str:
    """Source without its comments, otherwise as it was."""
    lines = text.split("\n")
    gone = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start[0] - 1, token.start[1]
                lines[row] = lines[row][:column].rstrip()
                if not lines[row]:
                    gone.add(row)
    except (tokenize.TokenError, SyntaxError):
        return text
    return "\n".join(line for row, line in enumerate(lines) if row not in gone)


class _Fold(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        left, right, compute = node.left, node.right, OPERATORS.get(type(node.op))
        if compute is None or not (isinstance(left, ast.Constant) and isinstance(right, ast.Constant)):
            return node
        kinds = {type(left.value), type(right.value)}
        if not (kinds <= {int, float} or (kinds == {str} and isinstance(node.op, ast.Add))):
            return node
        try:
            value = compute(left.value, right.value)
        except (ArithmeticError, ValueError):
            return node
        if isinstance(value, str):
            return ast.Constant(value) if len(value) <= 256 else node
        if not math.isfinite(value) or abs(value) > LARGEST:
            return node
        # A negative constant would be written without the parentheses that it may need.
        return ast.UnaryOp(ast.USub(), ast.Constant(-value)) if value < 0 else ast.Constant(value)


def _outermost(tree: ast.AST) -> Iterator[Function]:
    """The functions that lie in no other one."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield node
        else:
            yield from _outermost(node)


def _arguments(given: ast.arguments) -> list[ast.arg]:
    more = [argument for argument in (given.vararg, given.kwarg) if argument]
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *more]


def _own_names(function: Function) -> list[str]:
    """The parameters and variables of a function that nothing else binds, in the order of the source."""
    own = {argument.arg: None for argument in _arguments(function.args)}
    fixed = {"self", "cls", function.name}
    waiting: list[ast.AST] = [*function.body]
    while waiting:
        node = waiting.pop(0)
        fixed |= _fixed(node)
        if isinstance(node, INNER):
            for inner in ast.walk(node):
                fixed |= _fixed(inner)
                if isinstance(inner, ast.arg):
                    fixed.add(inner.arg)
                elif isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
                    fixed.add(inner.id)
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            own[node.id] = None
        waiting += ast.iter_child_nodes(node)
    return [name for name in own if name not in fixed and not name.startswith("__")]


def _fixed(node: ast.AST) -> set[str]:
    """Names that a node binds or declares otherwise than by a plain variable."""
    match node:
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return {*names}
        case ast.alias(name=name, asname=asname):
            return {asname or name.partition(".")[0]}
        case ast.MatchMapping(rest=name):
            return {name} if name else set()
        case (
            ast.FunctionDef(name=name)
            | ast.AsyncFunctionDef(name=name)
            | ast.ClassDef(name=name)
            | ast.ExceptHandler(name=name)
            | ast.MatchAs(name=name)
            | ast.MatchStar(name=name)
        ):
            return {name} if name else set()
    return set()


def _identifiers(function: Function) -> set[str]:
    """Every name that occurs in a function."""
    found = {function.name}
    for node in ast.walk(function):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                found.add(name)
            case _:
                found |= _fixed(node)
    return found


def _word(rng: Random, used: set[str]) -> str:
    """A name of one or two words that is not used yet; it is from now on."""
    while True:
        words = rng.choices(WORDS, k=rng.randint(1, 2))
        name = "_".join(words) if rng.random() < 0.5 else words[0] + "".join(word.title() for word in words[1:])
        if len(used) > len(WORDS):  # a long function
            name += str(rng.randrange(1000))
        if name not in used and not keyword.iskeyword(name) and not hasattr(builtins, name):
            used.add(name)
            return name


def _has_docstring(node: ast.AST) -> bool:
    documented = isinstance(node, Function | ast.ClassDef | ast.Module)
    return documented and ast.get_docstring(node, clean=False) is not None  # type: ignore[arg-type]


def _alive(block: list[Any], *, documented: bool) -> list[Any]:
    """The statements of a block that run and do something."""
    alive = block[:1] if documented else []
    for place, statement in enumerate(block[len(alive) :], start=len(alive)):
        match statement:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                continue
            case ast.If(test=ast.Constant(value=value)) if not _binds(statement):
                alive += _alive(statement.body if value else statement.orelse, documented=False)
                continue
        alive.append(statement)
        if isinstance(statement, ast.Return | ast.Raise | ast.Break | ast.Continue):
            rest = block[place + 1 :]
            return [*alive, *rest] if any(map(_binds, rest)) else alive
    return alive


def _binds(statement: ast.AST) -> bool:
    """Whether a statement matters to its function although it may never run: a yield makes a generator of it, and what
    is set somewhere is a variable of its own."""
    return any(
        isinstance(node, ast.Yield | ast.YieldFrom | ast.Await)
        or (isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load))
        or bool(_fixed(node))
        for node in ast.walk(statement)
    )

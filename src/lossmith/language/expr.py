"""Expressions in explicit index notation: a loss for one sample, and all that is derived from it.

The grammar, one line a node (indices range over the classes 0 … K−1):

    index i ::= Free(name, uid)              an index with a name (j, k), or one opened by a traversal
              | Bound(level)                 bound by the enclosing binder of that level
              | Label(name)                  the label of the sample: y
              | Fixed(number)                a class by its number
              | ArgReduce(op, cond, body)    the class with the largest (max) or smallest (min) body;
                                             the first of them at ties

    expr  e ::= Const(value)                 int, Fraction, or a float that is neither
              | Hyper(name, indices)         a hyperparameter, a number or one per class: γ, α_k
              | Entry(name, index)           an entry of an input row: s_k; of an elementwise input: s
              | Size()                       the number of classes, K
              | ClassNumber(index)           an index as a number
              | Delta(i, j)                  the Kronecker delta 1{i = j}
              | Compare(op, a, b)            the indicator 1{a op b}, op one of  >  >=  ==
              | Not(cond)                    1 − cond, for an indicator cond
              | Add(terms) | Mul(factors) | Pow(base, exponent)
              | Call(function, args)         an elementary function: see elementary.py
              | Where(cond, then, other)     the case distinction: what is not chosen does not matter
              | Reduce(op, cond, body)       op over the classes m with cond: sum, max, min, logsumexp
              | Softmax(cond, body, at)      exp(body_at) / Σ_{m: cond} exp(body_m)
              | Derivative(body, name, wrt)  ∂body/∂name_wrt, not yet carried out
              | Held(body)                   the body, in parentheses that simplification leaves alone
              | Var(name, indices)           a named intermediate value: p_j

Nodes are frozen and interned: equal expressions are one object, so `is` compares them. Binders
(Reduce, Softmax, ArgReduce) store their body with Bound(level), where level is one more than that of any binder
inside; so expressions that differ in the names of bound indices alone are one object too, and nothing can be
captured. Traversals *open* a binder with a fresh Free index and *close* it again through its constructor function.

Build nodes with the functions of build.py, never with the classes: those functions keep the normal form.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias, TypeVar, dataclass_transform
from weakref import WeakValueDictionary

from lossmith.language.budget import LOOKING, MAKING, spend
from lossmith.language.parsing import lock_held_over_forks

Number: TypeAlias = int | Fraction | float

_TABLE: WeakValueDictionary[tuple[Any, ...], Node] = WeakValueDictionary()
_T = TypeVar("_T")
_LOCK = lock_held_over_forks()  # re-entrant: making a node looks at the nodes below it
_UIDS = itertools.count(1)


class _Interned(type):
    """Equal arguments give the same object; numbers equal in value but not in type stay apart."""

    def __call__(cls, *args: Any) -> Any:
        spend(MAKING)
        key = (cls, *args, *(type(a) for a in args if not isinstance(a, Node)))
        with _LOCK:
            node = _TABLE.get(key)
            if node is None:
                node = super().__call__(*args)
                _TABLE[key] = node
        return node


@dataclass_transform(frozen_default=True, eq_default=False)
def _node(cls: type[_T]) -> type[_T]:
    return dataclass(frozen=True, eq=False, slots=True)(cls)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Node(metaclass=_Interned):
    """A node of an expression. `free` holds the indices in it that no binder inside binds."""

    digest: bytes = field(init=False, repr=False)
    height: int = field(init=False, repr=False)
    free: frozenset[Index] = field(init=False, repr=False)
    size: int = field(init=False, repr=False)
    uids: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        below = children(self)
        height = max((c.height for c in below), default=0)
        free: frozenset[Index] = frozenset().union(*(c.free for c in below))
        if isinstance(self, Reduce | Softmax | ArgReduce):
            level = level_of(self)
            height, free = max(height, level), free - {Bound(level)}
        elif isinstance(self, Free | Bound | Label | Fixed):
            free = frozenset([self])
        set_field = object.__setattr__
        set_field(self, "height", height)
        set_field(self, "free", free)
        set_field(self, "size", 1 + sum(c.size for c in below))
        own = (self.uid,) if isinstance(self, Free) and self.uid > 0 else ()
        set_field(self, "uids", own + tuple(u for c in below for u in c.uids))
        text = type(self).__name__ + repr(_plain_fields(self))
        parts = [text.encode(), *(c.digest for c in below)]
        set_field(self, "digest", hashlib.blake2b(b"|".join(parts), digest_size=8).digest())

    @property
    def order(self) -> tuple[bytes, tuple[int, ...]]:
        """The place of a node among others: by what it is, and only then by which open indices it has.

        Digests leave out the uids of open indices, so that the order of terms does not depend on how many indices
        were opened before; the uids tell apart what is alike but for them.
        """
        return self.digest, self.uids

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return type(self), tuple(getattr(self, f.name) for f in fields(self) if f.init)


class Index(Node):
    """A node that names a class."""

    __slots__ = ()


class Expr(Node):
    """A node that stands for a number."""

    __slots__ = ()


@_node
class Free(Index):
    name: str
    uid: int


@_node
class Bound(Index):
    level: int


@_node
class Label(Index):
    name: str


@_node
class Fixed(Index):
    number: int


@_node
class ArgReduce(Index):
    op: str
    cond: Expr
    body: Expr


@_node
class Const(Expr):
    value: Number


@_node
class Hyper(Expr):
    name: str
    indices: tuple[Index, ...]


@_node
class Entry(Expr):
    name: str
    index: Index | None


@_node
class Size(Expr):
    pass


@_node
class ClassNumber(Expr):
    index: Index


@_node
class Delta(Expr):
    i: Index
    j: Index


@_node
class Compare(Expr):
    op: str
    a: Expr
    b: Expr


@_node
class Not(Expr):
    cond: Expr


@_node
class Add(Expr):
    terms: tuple[Expr, ...]


@_node
class Mul(Expr):
    factors: tuple[Expr, ...]


@_node
class Pow(Expr):
    base: Expr
    exponent: Expr


@_node
class Call(Expr):
    function: str
    args: tuple[Expr, ...]


@_node
class Where(Expr):
    cond: Expr
    then: Expr
    other: Expr


@_node
class Reduce(Expr):
    op: str
    cond: Expr
    body: Expr


@_node
class Softmax(Expr):
    cond: Expr
    body: Expr
    at: Index


@_node
class Derivative(Expr):
    body: Expr
    name: str
    wrt: Index | None


@_node
class Held(Expr):
    body: Expr


@_node
class Var(Expr):
    name: str
    indices: tuple[Index, ...]


Binder: TypeAlias = Reduce | Softmax | ArgReduce


def level_of(binder: Binder) -> int:
    """Return the level of the Bound index that `binder` binds: above every binder inside it."""
    return 1 + max(binder.cond.height, binder.body.height)


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly below `node`, in the order of its fields."""
    spend(LOOKING)
    found: list[Node] = []
    for name in _field_names(type(node)):
        value = getattr(node, name)
        if isinstance(value, Node):
            found.append(value)
        elif isinstance(value, tuple):
            found.extend(v for v in value if isinstance(v, Node))
    return tuple(found)


@cache
def _field_names(cls: type[Node]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if f.init)


def _plain_fields(node: Node) -> list[Any]:
    if isinstance(node, Free):  # no uid: the order of terms must not depend on how many indices came before
        return [node.name]
    values = (getattr(node, name) for name in _field_names(type(node)))
    return [v if not isinstance(v, tuple) else len(v) for v in values if not isinstance(v, Node)]


def fresh(name: str = "m") -> Free:
    """Return an index that occurs in no expression yet."""
    return Free(name, next(_UIDS))


def named(name: str) -> Free:
    """Return the free index that readers know by `name`, such as j."""
    return Free(name, 0)


def walk(node: Node) -> Iterator[Node]:
    """Yield `node` and every distinct node below it, binders' bodies as they are stored."""
    seen: set[Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            yield current
            stack.extend(children(current))


ZERO, ONE, TRUE = Const(0), Const(1), Const(1)

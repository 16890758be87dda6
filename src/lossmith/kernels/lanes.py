"""Vectors of numbers as values of Numba kernels: loops over classes are written in them, a vector at a time.

Left to itself LLVM vectorises a loop well in the middle and badly at its ends: with a hundred classes a third of them
would be done one by one. Here the ends are written too: the last vector of a row is loaded and stored in part, the
lanes that belong to no class hold a number of the caller's choice. The width is the same on every processor, which
takes as many registers for a vector as it needs, so the order of a sum is the same everywhere::

    total = spread(F(0), 16)
    for k in range(U(0), whole, U(16)):
        total = total + exp(load(s, i * K + k, 16))
    return add_lanes(total)

Operators and the functions of vecmath take vectors next to numbers: a number stands for a vector full of it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model


class Vector(types.Type):
    """So many floats, integers (of 32 bits) or truth values."""

    def __init__(self, element: Any, width: int) -> None:
        self.element = element
        self.width = width
        super().__init__(name=f"{width} of {element}")

    @property
    def key(self) -> Any:
        return self.element, self.width

    def of(self, element: Any) -> Vector:
        """Return a vector type of the same width."""
        return Vector(element, self.width)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        element = ir.IntType(1) if kind.element == types.boolean else manager.lookup(kind.element).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.width))


def element_of(kind: Any) -> Any:
    """Return the type of the lanes of a vector, or the type itself."""
    return kind.element if isinstance(kind, Vector) else kind


def joined(*kinds: Any, element: Any = None) -> Any:
    """Return the type of what is made lane by lane from these, all of one element type; None if they do not fit."""
    vectors = [k for k in kinds if isinstance(k, Vector)]
    elements = {element_of(k) for k in kinds}
    if len(elements) != 1 or len({v.width for v in vectors}) > 1:
        return None
    element = element or elements.pop()
    return vectors[0].of(element) if vectors else element


def widened(builder: Any, value: Any, like: Any) -> Any:
    """Return a number as a vector full of it if `like`, an LLVM type, is a vector type."""
    if not isinstance(like, ir.VectorType) or isinstance(value.type, ir.VectorType):
        return value
    lane = ir.Constant(ir.IntType(32), 0)
    one = builder.insert_element(ir.Constant(ir.VectorType(value.type, like.count), ir.Undefined), value, lane)
    order = ir.Constant(ir.VectorType(ir.IntType(32), like.count), [0] * like.count)
    return builder.shuffle_vector(one, one, order)


# ------------------------------------------------------------------ operators

ARITHMETIC = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}
COMPARISONS = {
    operator.gt: ">", operator.ge: ">=", operator.lt: "<", operator.le: "<=", operator.eq: "==", operator.ne: "!=",
}  # fmt: skip
TYPED: Any = infer_global
"""Adds to the types that an operator is known for."""
LOGIC = {operator.and_: "and_", operator.or_: "or_"}


def _binary(symbol: Any, emit: Callable[[Any, Any, Any], Any], floats: bool, truth: bool) -> None:
    class Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) != 2 or not any(isinstance(a, Vector) for a in args):
                return None
            element = element_of(next(a for a in args if isinstance(a, Vector)))
            kinds = [a if isinstance(a, Vector) else element for a in args]
            if (element == types.boolean) == floats:
                return None
            result = joined(*kinds, element=types.boolean if truth else None)
            return None if result is None else signature(result, *kinds)

    TYPED(symbol)(Typing)

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        like = next(a.type for a in args if isinstance(a.type, ir.VectorType))
        a, b = (widened(builder, value, like) for value in args)
        return emit(builder, a, b)

    for pair in ((Vector, Vector), (Vector, types.Any), (types.Any, Vector)):
        lower_builtin(symbol, *pair)(lowered)


def _unary(symbol: Any, emit: Callable[[Any, Any], Any]) -> None:
    class Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            return signature(args[0], *args) if len(args) == 1 and isinstance(args[0], Vector) else None

    TYPED(symbol)(Typing)
    lower_builtin(symbol, Vector)(lambda context, builder, sig, args: emit(builder, args[0]))


def _compared(sign: str) -> Callable[[Any, Any, Any], Any]:
    def emit(builder: Any, a: Any, b: Any) -> Any:
        if isinstance(a.type.element, ir.IntType):
            return builder.icmp_signed(sign, a, b)
        return builder.fcmp_unordered(sign, a, b) if sign == "!=" else builder.fcmp_ordered(sign, a, b)

    return emit


def method(name: str) -> Callable[..., Any]:
    return lambda builder, *values: getattr(builder, name)(*values)


for _symbol, _name in ARITHMETIC.items():
    _binary(_symbol, method(_name), floats=True, truth=False)
for _symbol, _name in COMPARISONS.items():
    _binary(_symbol, _compared(_name), floats=True, truth=True)
for _symbol, _name in LOGIC.items():
    _binary(_symbol, method(_name), floats=False, truth=True)
_unary(operator.neg, method("fneg"))
_unary(operator.not_, method("not_"))


def call_lanes(builder: Any, name: str, result: Any, *values: Any) -> Any:
    """Call an LLVM intrinsic whose name ends in the type of its first value, a vector."""
    kind = values[0].type
    element = {"float": "f32", "double": "f64"}.get(str(kind.element), str(kind.element))
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [v.type for v in values]), f"{name}.v{kind.count}{element}"
    )
    return builder.call(function, values)


_unary(abs, lambda builder, x: call_lanes(builder, "llvm.fabs", x.type, x))


# ------------------------------------------------------------------ memory


def pointer(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return where an array's numbers begin."""
    return context.make_array(kind)(context, builder, array).data


def place_of(context: Any, builder: Any, kind: Any, array: Any, at: Any, to: Any) -> Any:
    return builder.bitcast(builder.gep(pointer(context, builder, kind, array), [at]), ir.PointerType(to))


def live_lanes(builder: Any, count: Any, width: int) -> Any:
    """Return which lanes are among the first `count`."""
    short = ir.IntType(32)
    lanes = ir.Constant(ir.VectorType(short, width), list(range(width)))
    return builder.icmp_signed("<", lanes, widened(builder, builder.trunc(count, short), lanes.type))


def masked(builder: Any, name: str, result: Any, vector: Any, values: list[Any]) -> Any:
    element = {"float": "f32", "double": "f64"}[str(vector.element)]
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(result, [v.type for v in values]),
        f"llvm.masked.{name}.v{vector.count}{element}.p0",
    )
    return builder.call(function, values)


def literal(kind: Any) -> int:
    return int(kind.literal_value)


@intrinsic(prefer_literal=True)
def load(typingctx: Any, array: Any, at: Any, width: Any) -> Any:
    """Return the `width` numbers of an array in C order that begin at place `at`."""
    result = Vector(array.dtype, literal(width))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = context.get_value_type(result)
        address = place_of(context, builder, sig.args[0], args[0], args[1], vector)
        return builder.load(address, align=result.element.bitwidth // 8)

    return result(array, at, width), codegen


@intrinsic(prefer_literal=True)
def load_some(typingctx: Any, array: Any, at: Any, width: Any, count: Any) -> Any:
    """Return the first `count` of `width` numbers, and 0 in the other lanes; nothing behind them is read."""
    result = Vector(array.dtype, literal(width))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = context.get_value_type(result)
        address = place_of(context, builder, sig.args[0], args[0], args[1], vector)
        rest = ir.Constant(vector, [0.0] * vector.count)
        align = ir.Constant(ir.IntType(32), result.element.bitwidth // 8)
        live = live_lanes(builder, args[3], vector.count)
        return masked(builder, "load", vector, vector, [address, align, live, rest])

    return result(array, at, width, count), codegen


@intrinsic
def store(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    """Write a vector to an array in C order from place `at`; a number too, if the result did not depend on the lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = place_of(context, builder, sig.args[0], args[0], args[1], args[2].type)
        builder.store(args[2], address, align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, at, value), codegen


@intrinsic
def store_some(typingctx: Any, array: Any, at: Any, value: Any, count: Any) -> Any:
    """Write the first `count` lanes only."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = args[2].type
        address = place_of(context, builder, sig.args[0], args[0], args[1], vector)
        align = ir.Constant(ir.IntType(32), sig.args[0].dtype.bitwidth // 8)
        live = live_lanes(builder, args[3], vector.count)
        masked(builder, "store", ir.VoidType(), vector, [args[2], address, align, live])
        return context.get_dummy_value()

    return types.void(array, at, value, count), codegen


def _ahead(name: str, write: int, doc: str) -> Any:
    def typed(typingctx: Any, array: Any, at: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            byte = ir.PointerType(ir.IntType(8))
            address = builder.bitcast(builder.gep(pointer(context, builder, sig.args[0], args[0]), [args[1]]), byte)
            short = ir.IntType(32)
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [byte, short, short, short]), "llvm.prefetch.p0"
            )
            builder.call(function, [address, *(ir.Constant(short, n) for n in (write, 3, 1))])
            return context.get_dummy_value()

        return types.void(array, at), codegen

    typed.__name__ = typed.__qualname__ = name
    typed.__doc__ = doc
    return intrinsic(typed)


will_read = _ahead(
    "will_read", 0, "Ask for the numbers around a place of an array, which need not exist, to be read soon."
)
will_write = _ahead("will_write", 1, "Ask for the place of numbers that will be written soon.")


# ------------------------------------------------------------------ making vectors, and folding them


@intrinsic(prefer_literal=True)
def spread(typingctx: Any, number: Any, width: Any) -> Any:
    """Return a vector full of a number; a vector as it is."""
    result = number if isinstance(number, Vector) else Vector(types.unliteral(number), literal(width))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return widened(builder, args[0], context.get_value_type(result))

    return result(number, width), codegen


@intrinsic(prefer_literal=True)
def first_lanes(typingctx: Any, count: Any, width: Any) -> Any:
    """Return which of `width` lanes are among the first `count`."""
    result = Vector(types.boolean, literal(width))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return live_lanes(builder, args[0], result.width)

    return result(count, width), codegen


@intrinsic(prefer_literal=True)
def places(typingctx: Any, start: Any, width: Any) -> Any:
    """Return the integers from `start` on, in 32 bits."""
    result = Vector(types.int32, literal(width))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = ir.Constant(context.get_value_type(result), list(range(result.width)))
        return builder.add(lanes, widened(builder, builder.trunc(args[0], ir.IntType(32)), lanes.type))

    return result(start, width), codegen


@intrinsic
def as_floats(typingctx: Any, whole: Any, like: Any) -> Any:
    """Return integers as floats of the type of `like`."""
    result = whole.of(like)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sitofp(args[0], context.get_value_type(result))

    return result(whole, like), codegen


@intrinsic
def square_root(typingctx: Any, x: Any) -> Any:
    """Return the square roots of the lanes; a number's if it is one."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (value,) = args
        if isinstance(value.type, ir.VectorType):
            return call_lanes(builder, "llvm.sqrt", value.type, value)
        return builder.call(builder.module.declare_intrinsic("llvm.sqrt", [value.type]), [value])

    return x(x), codegen


@intrinsic
def chosen(typingctx: Any, condition: Any, a: Any, b: Any) -> Any:
    """Return integers: those of a in lanes where the condition holds, those of b elsewhere."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(condition, a, b), codegen


def _halved(builder: Any, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Combine the halves of a vector until one number is left: an order that no processor changes."""
    while vector.type.count > 1:
        half = vector.type.count // 2
        low, high = (
            builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(start, start + half)))
            )
            for start in (0, half)
        )
        vector = combine(low, high)
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _folding(name: str, doc: str, combine: Callable[[Any, Any, Any], Any]) -> Any:
    def typed(typingctx: Any, vector: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _halved(builder, args[0], lambda a, b: combine(builder, a, b))

        return element_of(vector)(vector), codegen

    typed.__name__ = typed.__qualname__ = name
    typed.__doc__ = doc
    return intrinsic(typed)


def extreme(name: str, sign: str) -> Callable[[Any, Any, Any], Any]:
    """Return what chooses between two vectors lane by lane, NaN if either is; see LLVM_HAS_MAXIMUM in vecmath."""

    def combine(builder: Any, a: Any, b: Any) -> Any:
        if isinstance(a.type.element, ir.IntType):
            return builder.select(builder.icmp_signed(sign, a, b), a, b)
        if llvm_version_info >= (20,):
            return call_lanes(builder, name, a.type, a, b)
        first = builder.or_(builder.fcmp_ordered(sign, a, b), builder.fcmp_unordered("uno", a, a))
        return builder.select(first, a, b)

    return combine


add_lanes = _folding("add_lanes", "Return the sum of all lanes.", method("fadd"))
max_lanes = _folding("max_lanes", "Return the largest lane, NaN if one is.", extreme("llvm.maximum", ">"))
min_lanes = _folding("min_lanes", "Return the smallest lane, NaN if one is.", extreme("llvm.minimum", "<"))

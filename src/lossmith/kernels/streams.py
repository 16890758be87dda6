"""Writing past the cache: for arrays too large to be found in it when they are read again.

An ordinary store reads the line of memory that it is about to change. A whole line can be written without that, which
spares a quarter of the traffic of a loss that reads two arrays and writes one; and what the cache holds stays there.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LINE = 64
"""Bytes of memory that a processor reads and writes at once."""

_INT = ir.IntType(64)


@intrinsic
def stream(typingctx: Any, target: Any, at: Any, source: Any, count: Any) -> Any:
    """Copy the first `count` numbers of one array to another, from place `at` on, the whole lines past the cache.

    Both arrays are in C order and of one type. Other threads may read what was written after `drain`.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        size = sig.args[0].dtype.bitwidth // 8
        to, of = (
            context.make_array(k)(context, builder, a).data for k, a in zip(sig.args[::2], args[::2], strict=True)
        )
        to = builder.gep(to, [args[1]])
        line = ir.VectorType(to.type.pointee, LINE // size)

        def constant(value: int) -> Any:
            return ir.Constant(_INT, value)

        # up to the first whole line, the lines, and what is left
        missing = builder.and_(builder.neg(builder.ptrtoint(to, _INT)), constant(LINE - 1))
        missing = builder.udiv(missing, constant(size))
        head = builder.select(builder.icmp_unsigned("<", missing, args[3]), missing, args[3])
        lines = builder.udiv(builder.sub(args[3], head), constant(line.count))
        tail = builder.add(head, builder.mul(lines, constant(line.count)))
        for start, length in ((constant(0), head), (tail, builder.sub(args[3], tail))):
            with cgutils.for_range(builder, length) as loop:
                place = builder.add(start, loop.index)
                builder.store(builder.load(builder.gep(of, [place])), builder.gep(to, [place]))
        once = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        with cgutils.for_range(builder, lines) as loop:
            place = builder.add(head, builder.mul(loop.index, constant(line.count)))
            whole = builder.load(builder.bitcast(builder.gep(of, [place]), line.as_pointer()), align=size)
            stored = builder.store(whole, builder.bitcast(builder.gep(to, [place]), line.as_pointer()), align=LINE)
            stored.set_metadata("nontemporal", once)
        return context.get_dummy_value()

    return types.void(target, at, source, count), codegen


@intrinsic
def drain(typingctx: Any) -> Any:
    """Wait until what was streamed has reached the memory."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen

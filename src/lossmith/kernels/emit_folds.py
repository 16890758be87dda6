"""How loops that Numba compiles gather what a fold asks for.

Every fold is a chain of one operation, which is what LLVM turns into vectors: a maximum, a sum that may be regrouped.
So a place (argmax) is looked for in a second loop, once the maximum is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from lossmith.kernels.printing import UNARY, Printer
from lossmith.kernels.rowprogram import Fold, Load, Loop, Number, Value, letter
from lossmith.kernels.schedule import closure

START = {
    "max": "F(-np.inf)", "min": "F(np.inf)", "peak": "F(-np.inf)", "nan": "F(-np.inf)",
    "argmax": "F(-np.inf)", "argmin": "F(np.inf)",
}  # fmt: skip


class FoldWriter(Printer):
    """Writes lines of code, and the statements before, in and after a loop that its folds need."""

    def __init__(self) -> None:
        self.depth = 0
        self.vecmath: set[str] = set()
        self.known: set[str] = set()  # values of loops that are at hand as plain variables
        self.lines: list[str] = []
        self.indent = 1
        self.counter = 0

    def put(self, line: str) -> None:
        self.lines.append("    " * self.indent + line)

    def vec(self, function: str, arguments: str) -> str:
        self.vecmath.add(function)
        return f"{function}({arguments})"

    def atom(self, value: Value) -> str:
        """Return the text of a value that occurs more than once, given a name first if it is no plain one."""
        text = self.text(value)
        if text.isidentifier() or isinstance(value, Load | Number):
            return text
        (x,) = self.temporaries("x")
        self.put(f"{x} = {text}")
        return x

    def temporaries(self, *stems: str) -> list[str]:
        """Return names for values in passing."""
        self.counter += 1
        return [f"{stem}_{self.counter}" for stem in stems]

    def keep(self, name: str) -> None:
        """Remember a loop's value for later loops."""
        raise NotImplementedError

    # -------------------------------------------------------------- folds

    def start(self, fold: Fold, blocked: bool) -> None:
        name = fold.name
        if fold.op == "sum":
            self.put(f"{name}_sum = 0.0" if blocked else f"{name} = F(0)")
        elif fold.op in ("argmax", "argmin"):
            self.put(f"{name}_best = {START[fold.op]}")
        elif fold.op == "nan":
            self.put(f"{name}_max = {START['nan']}")
        else:
            self.put(f"{name} = {START[fold.op]}")

    def gather(self, fold: Fold) -> None:
        name, value = fold.name, self.text(fold.value)
        where = None if fold.where is None else self.text(fold.where)
        if where is not None:
            value = self.vec("select", f"{where}, {value}, {START.get(fold.op, 'F(0)')}")
        match fold.op:
            case "sum":
                self.put(f"{name} = {self.vec('add_reassoc', f'{name}, {value}')}")
            case "min":
                self.put(f"{name} = {self.vec('minimum', f'{name}, {value}')}")
            case "nan":
                self.put(f"{name}_max = {self.vec('maximum', f'{name}_max, {value}')}")
            case "argmax" | "argmin":
                extreme = "maximum" if fold.op == "argmax" else "minimum"
                self.put(f"{name}_best = {self.vec(extreme, f'{name}_best, {value}')}")
            case _:
                self.put(f"{name} = {self.vec('maximum', f'{name}, {value}')}")

    def finish(self, fold: Fold, blocked: bool, loop: Loop) -> None:
        name = fold.name
        match fold.op:
            case "sum" if blocked:
                self.put(f"{name} = F({name}_sum)")
            case "nan":
                self.put(f"{name} = {name}_max != {name}_max  # NaN wins every maximum")
            case "peak":
                self.settle(fold, loop)
            case "argmax" | "argmin":
                self.find_place(fold, loop)
            case _:
                pass  # the maximum, minimum or place is the variable that gathered it
        if loop.depth:
            self.keep(name)

    def settle(self, fold: Fold, loop: Loop, reads: Iterable[str] = ()) -> None:
        """Look again at a maximum that is infinite: a shift by it has a limit only for one +inf."""
        name, index = fold.name, letter(loop.depth)
        self.put(f"if abs({name}) == F(np.inf):  # rare: all -inf, or some +inf")
        self.indent += 1
        for line in reads:
            self.put(line)
        self.put("equal = 0")
        self.put(f"for {index} in range(K):")
        outer = self.enter_again(fold, loop)
        tie = f"{self.text(fold.value, UNARY)} == {name}"
        self.put(f"if {tie}:" if fold.where is None else f"if ({self.text(fold.where)}) and {tie}:")
        self.put("    equal += 1")
        self.leave(loop, outer)
        # over some classes only, -inf is the maximum of none
        self.put(f"if {name} < F(0) or equal > 1:" if fold.where is None else f"if {name} > F(0) and equal > 1:")
        self.put(f"    {name} = F(np.nan)")
        self.indent -= 1

    def find_place(self, fold: Fold, loop: Loop) -> None:
        """Find the first class with the extreme value, or the first that is NaN; 0 if there is no class at all."""
        name, index = fold.name, letter(loop.depth)
        self.put(f"{name}_at = np.uint32(K)")
        self.put(f"for {index} in range(K):")
        outer = self.enter_again(fold, loop)
        hit = self.is_extreme(fold, f"{name}_best")
        self.put(f"{name}_at = {self.vec('first_where', f'{name}_at, {hit}, {index}')}")
        self.leave(loop, outer)
        self.put(f"{name} = U({name}_at) if {name}_at < K else U(0)")

    def is_extreme(self, fold: Fold, best: str) -> str:
        """Write whether an entry is the extreme one; only if it is NaN may others be NaN."""
        value = self.atom(fold.value)
        hit = f"({value} == {best}) | ({value} != {value})"
        return hit if fold.where is None else f"({self.text(fold.where)}) & ({hit})"

    def enter_again(self, fold: Fold, loop: Loop, reads: Iterable[str] = ()) -> set[str]:
        """Begin the body of another loop over the same entries: write what the fold looks at."""
        outer, self.known = self.known, set(self.known)
        self.depth, self.indent = loop.depth + 1, self.indent + 1
        for line in reads:
            self.put(line)
        values = (fold.value,) if fold.where is None else (fold.value, fold.where)
        for let in closure(values, loop.body):
            self.put(f"{let.name} = {self.text(let.value)}")
            self.known.add(let.name)
        return outer

    def leave(self, loop: Loop, outer: set[str]) -> None:
        """End that body."""
        self.depth, self.indent = loop.depth, self.indent - 1
        self.known = outer

"""Why a target is missed, from the machine code or the memory system: printed below the misses.

An entry is (words in the target's text, words in the work's name, what to say); "" fits everything, the first entry
that fits is taken.
"""

from __future__ import annotations

REMARKS: tuple[tuple[str, str, str], ...] = (
    (
        "value only",
        "",
        "Each row is read twice, for its maximum and for its sum of exponentials, the second time from the cache while "
        "the next row is fetched. What is left is the work: 16 exponentials take 8 cycles where, as on the processor "
        "measured, instructions of 512 bits run at half rate, so one thread computes for longer than it reads.",
    ),
    (
        "formula to first result, cold",
        "",
        "Importing Numba takes half of it, and Numba's own passes in Python most of the rest; LLVM takes a tenth.",
    ),
    (
        "elementwise losses with out=",
        "logistic",
        "An exponential, a logarithm and a quotient take 31 multiplications (alone or with an addition) a vector, two "
        "of which are done in a cycle: 20 cycles and more for 16 elements, where a copy takes 8.",
    ),
    (
        "elementwise losses with out=",
        "bce",
        "Two logarithms of numbers that may be 0 or subnormal, and two quotients: 34 multiplications (alone or with an "
        "addition), 8 comparisons and 12 moves of bits a vector, 30 cycles for 16 elements, where a copy takes 8.",
    ),
    (
        "elementwise losses with out=",
        "",
        "Scores and targets are read and the gradient is written: three arrays move where a copy moves two, so 1.5 is "
        "the physical limit when all of them come from memory. Below it is possible only since the gradient is written "
        "past the cache and the copy is not.",
    ),
)


def remark(target: str, work: str) -> str:
    """Return what is known about a miss, "" if nothing is."""
    return next((text for t, w, text in REMARKS if t in target and w in work), "")

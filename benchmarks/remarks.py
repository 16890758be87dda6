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
        "the next row is fetched. What is left is the work: 16 exponentials take 12 cycles where, as on the processor "
        "measured, instructions of 512 bits run at half rate, so one thread computes for longer than it reads.",
    ),
    (
        "softmax cross-entropy, fresh output",
        "×1000",
        "A vector of 16 classes takes 11 multiplications (alone or with an addition), 2 comparisons, 2 extremes and a "
        "scaling by a power of two, which the same two pipes do, one a cycle where instructions of 512 bits run at "
        "half rate: 1 ms of one thread for 4096 rows at 4 GHz, 0.03 ms for 128.",
    ),
    (
        "softmax cross-entropy, fresh output",
        "×100",
        "A row of 100 classes is 7 vectors of 16, of 16 cycles each, as for 1000 classes: 112 cycles a row, 0.23 ms "
        "for 8192 rows at 4 GHz. The loops take 0.25 ms.",
    ),
    (
        "softmax cross-entropy, fresh output",
        "×10",
        "The loops take 1.4 µs for 128 rows of 10 classes, and less than 1 µs for one row. The rest is Python: looking "
        "at the arguments and making the arrays of the result.",
    ),
    (
        "float64: fastest peer",
        "×10 ",
        "The loops take 2.1 µs for 128 rows of 10 classes. The rest is Python: looking at the arguments and making the "
        "arrays of the result.",
    ),
    (
        "second derivatives",
        "hvp 8192×100",
        "What one gradient takes, and for each of 7 vectors a row another 2 comparisons and 2 multiplications, and one "
        "more comparison to find the class of the largest score: 147 cycles a row, 0.3 ms for 8192 rows at 4 GHz.",
    ),
    (
        "other losses",
        "kl_divergence 65536×10",
        "A third of the time goes into the check that the targets of each row sum to 1, which no peer makes.",
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

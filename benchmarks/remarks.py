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
        "the next row is fetched. What is left is the work: 16 exponentials take 7 cycles, their maximum 1, so one "
        "thread computes for longer than it reads.",
    ),
    (
        "softmax cross-entropy, fresh output",
        "×1000",
        "A vector of 16 classes takes 8 multiplications (alone or with an addition), 2 a cycle, and 10 turns of two "
        "more pipes for additions, extremes, comparisons and scaling: 5 cycles. Of the 13 measured, 7 are "
        "the loop of the exponentials, whose steps wait for one another; the rest is the maximum, which also looks for "
        "NaN, the multiplication by 1/Σ, which waits for stores, and 350 cycles a row for folding lanes, a logarithm "
        "and a division, of which the next row hides little.",
    ),
    (
        "softmax cross-entropy, fresh output",
        "×100",
        "A row of 100 classes is 7 vectors of 16, the last with 4 of them. Of the 105 cycles a row, half are the "
        "exponentials, 15 the maximum, which also looks for NaN, 15 the multiplication by 1/Σ, 16 what is done for 16 "
        "rows at once: folding lanes, logarithm, quotient.",
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
        "second derivatives: lossmith ÷ its value and gradient",
        "grad_and_hessian_diag",
        "Three arrays of 16 MB move where value and gradient move two, which takes 1.5 times as long from memory; the "
        "loops themselves take 1.1 to 1.2 times as long.",
    ),
    (
        "second derivatives",
        "hvp 8192×100",
        "What one gradient takes, and for each of 7 vectors a row another 2 comparisons and 2 multiplications, and one "
        "more comparison to find the class of the largest score.",
    ),
    (
        "other losses",
        "kl_divergence 65536×10",
        "A logarithm for each of 655360 targets takes most of it; the check that targets are 0 or more and sum to 1, "
        "which no peer makes, is part of the same loops.",
    ),
    (
        "other losses",
        "nll",
        "The gradient is 0 but for the label's entry: its array comes from the allocator full of zeros, which writes "
        "them where it has memory of an earlier array to give. All scores are read, since a NaN among them makes its "
        "row NaN; peers read the label's alone.",
    ),
    (
        "other losses",
        "cross_entropy_on_probabilities",
        "The gradient is 0 but for the label's entry: its array comes from the allocator full of zeros, which writes "
        "them where it has memory of an earlier array to give. All probabilities are read once, to see that they lie "
        "in [0, 1], which no peer does.",
    ),
    (
        "the same with out=, K ≥ 32000",
        "",
        "The scores are read twice, once for the maximum, and on one thread the exponentials take longer than moving "
        "the arrays does. It is 1.5 within the scatter of the measurement.",
    ),
    (
        "options: with",
        "",
        "A label and a weight are 16 bytes a row, beside 80 of scores and gradient, and are looked at once more than "
        "by the kernel, on one thread: are weights finite, and what is their sum; what is the weight of each label's "
        "class.",
    ),
    (
        "precision=exact ÷ fast, float64",
        "",
        "An addition of double words is 20 operations and a product 9 (Joldes, Muller and Popescu 2017), where the "
        "fast kernel has one.",
    ),
    (
        "one thread ÷ two threads",
        "",
        "Scores and gradient are 32 MB, as much as the last level of the cache, and copying them gains only 1.1 to 1.4 "
        "from the second thread here. Waking it and waiting for it takes 40 to 60 µs more.",
    ),
    (
        "formula to first result, cold",
        "",
        "Importing Numba takes half of it, and Numba's own passes in Python most of the rest; LLVM takes a tenth.",
    ),
    (
        "elementwise losses with out=",
        "logistic",
        "An exponential, a logarithm and a quotient are 76 instructions for 16 elements, 29 of them multiplications, "
        "and take 29 cycles where the cache holds the arrays, 31 where it does not: moving them is hidden. With out= "
        "all targets are read before that, so that nothing is written if one is outside of [0, 1]; without it they "
        "are looked at in passing.",
    ),
    (
        "elementwise losses with out=",
        "bce",
        "Two logarithms of numbers that may be 0 or subnormal and two quotients are 120 instructions for 16 elements, "
        "36 of them multiplications, and take 36 cycles where the cache holds the arrays, 40 where it does not: "
        "moving them is hidden. With out= both arrays are read before that, so that nothing is written if a number is "
        "outside of [0, 1]; without it they are looked at in passing.",
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

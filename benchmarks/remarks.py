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
        "other losses",
        "nll",
        "The gradient is 0 but for the label's entry. Peers get the zeros from the allocator, or write them with a "
        "streaming store; the kernel writes them through the cache, as a gradient that is not 0.",
    ),
    (
        "other losses",
        "cross_entropy_on_probabilities",
        "The gradient is 0 but for the label's entry, and the kernel writes the zeros through the cache, as a gradient "
        "that is not 0. Before it, the probabilities are read once for the check that they lie in [0, 1], which no "
        "peer makes: 16 MB, a fifth of the time.",
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
        "Labels and weights are arrays of 65536 numbers that are looked at once more, where the scores are ten times "
        "as many: checking, looking up the weight of each class and adding the weights up. The kernel skips rows of "
        "weight 0, a branch a row in a loop over tiles of rows.",
    ),
    (
        "precision=exact ÷ fast, float64",
        "",
        "An addition of double words is 20 operations and a product 9 (Joldes, Muller and Popescu 2017), where the "
        "fast kernel has one. At 1000 classes the fast kernel hardly waits for the logarithm of each row any more.",
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

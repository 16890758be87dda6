"""Why a target is missed, from the machine code or the memory system: printed below the misses.

An entry is (words in the target's text, words in the work's name, what to say); "" fits everything, the first entry
that fits is taken.
"""

from __future__ import annotations

REMARKS: tuple[tuple[str, str, str], ...] = (
    (
        "elementwise losses with out=",
        "",
        "Scores and targets are read and the gradient is written: three arrays move where a copy moves two, so 1.5 is "
        "the physical limit when all of them come from memory.",
    ),
)


def remark(target: str, work: str) -> str:
    """Return what is known about a miss, "" if nothing is."""
    return next((text for t, w, text in REMARKS if t in target and w in work), "")

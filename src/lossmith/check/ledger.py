"""How many digits are right where: of every output, for every kind of input, on each side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from lossmith.check.samples import REGIONS

OURS, TEXTBOOK, PYTORCH = "lossmith", "textbook", "PyTorch"
"""Who computed: the kernels, the formulas as they are written down in NumPy, PyTorch's autograd of the definition."""
EVERYWHERE = "all inputs"


@dataclass(frozen=True)
class Digits:
    """The correct decimal digits of one output, in one dtype, over one kind of inputs.

    Attributes
    ----------
    side : str
        Who computed: lossmith, textbook or PyTorch.
    output : str
        value, grad, hessian_diag or hvp.
    dtype : str
    region : str
        The kind of inputs, of `lossmith.check.samples.REGIONS`, or "all inputs".
    worst, typical : float
        The fewest digits of any number, and the median.
    numbers : int
        How many there were.
    """

    side: str
    output: str
    dtype: str
    region: str
    worst: float
    typical: float
    numbers: int


@dataclass
class Ledger:
    """Digits as they are found, one number at a time.

    `unsteady` counts the numbers that are left out on all sides because they hang on the last digits of the inputs.
    """

    unsteady: int = 0
    _found: dict[tuple[str, str, str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, side: str, output: str, dtype: str, region: str, digits: float) -> None:
        """Enter one number's digits."""
        self._found[side, output, dtype, region].append(digits)

    def digits(self) -> tuple[Digits, ...]:
        """Return the summary, regions in the order of a report, and all inputs together at the end."""
        order = {region: place for place, region in enumerate(REGIONS)}
        lines = [_summed(*key, found) for key, found in self._found.items()]
        lines.sort(key=lambda line: order.get(line.region, len(order)))
        return (*lines, *self._everywhere())

    def _everywhere(self) -> Iterable[Digits]:
        together: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for (side, output, dtype, _), found in self._found.items():
            together[side, output, dtype].extend(found)
        for (side, output, dtype), found in together.items():
            yield _summed(side, output, dtype, EVERYWHERE, found)


def _summed(side: str, output: str, dtype: str, region: str, found: list[float]) -> Digits:
    return Digits(side, output, dtype, region, min(found), median(found), len(found))

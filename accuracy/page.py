"""The page with the results, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version

from benchmarks.machine import description

from accuracy.campaign import LARGE, SOFT, Totals
from accuracy.chunk import CLOSE, PRECISIONS
from accuracy.judge import Worst
from accuracy.oracle import OUTPUTS

DTYPES = ("float32", "float64")
PACKAGES = ("numpy", "numba", "python-flint", "mpmath")

HEAD = """\
# Numerics

<!-- Written by `{command}`. Do not edit: change the code and run it again. -->

What lossmith promises about the digits of its results, and the worst errors found over {rows} random rows.
{verdict}

## What is promised

u is the unit roundoff, 2⁻²⁴ in float32 and 2⁻⁵³ in float64; ulp is the distance of the floats around the exact result.

| promise | value | each component of gradient, Hessian diagonal and Hessian-vector product |
| --- | --- | --- |
| `precision="fast"` (default) | relative error ≤ (8 + ⌈log₂ K⌉ + \\|s_k − m\\|) u | the same |
| `precision="exact"`, float32 | ≤ 1 ulp | ≤ 1 ulp |
| `precision="exact"`, float64 | ≤ 4 ulp | ≤ 4 ulp |

⌈log₂ K⌉ is for the sums over K classes. |s_k − m| is the distance of the score from the largest, in the loss's own
units (divided by τ where the loss does so): the exponential of a rounded difference knows no better. For the largest
score itself, and for the value, it is the distance of the runner-up.

Where even the exact result changes by more when the inputs are changed in their last digit, `fast` promises what
rounding the inputs explains, besides the 8 + ⌈log₂ K⌉ ulp: scores, or differences s_k − m, changed by 4u,
targets, probabilities and hyperparameters by 8u, all relative; for second derivatives the scores by twice and for
Hessian-vector products by four times as much; a power γ makes 2|γ| u more; of a Hessian-vector product, also each
component of the vector by (8 + |s_k − m|) u. That is so where a difference such as p_k − t_k cancels, and beside a
kink, where the other slope is as good. Such numbers are called *ill-conditioned* below; they count as broken if they
are off by more than that. `exact` promises the same of its wider arithmetic (u = 2⁻⁵³ for float32, 2⁻¹⁰⁴ for float64),
besides its ulps.

## Special values

The same in every kernel and back end.

| input | result |
| --- | --- |
| −∞ at k ≠ y | contributes nothing, g_k = 0 |
| −∞ at y | loss +∞, g_y = −1, others p_k |
| all −∞ | NaN, in that row only |
| one +∞ | the limit: loss 0 if it is at y, else +∞; gradient onehot(argmax) − onehot(y). Two or more: NaN |
| NaN in a row | the whole row NaN, every other row bitwise unchanged |
| row ignored, or weight 0 | contributes nothing and gets gradient 0, whatever it holds |
| no row left | mean and sum are 0.0, gradient zeros |
| label outside [0, K), wrong shape, wrong dtype, negative weight, targets outside their domain | an error that says \
which row, what it got and what it expected; nothing computed |

For another loss than softmax cross-entropy the first four read: the limit, where there is one, else NaN. The random
rows below hold −∞, alone and in whole rows; the other lines are tested in `tests/test_hostile.py`. Where several scores
of a row are −∞ and a result has no limit (it depends on which falls fastest), that result is not judged.

## How it is measured

- **Rows.** Scores, from the roles of the loss's inputs: ordinary ones; one scale from 1e-30 to 1e30 for the
  row; a scale of its own for each score; two scales; leads of 0 to 200; scores far from zero; ties; subnormal numbers;
  −∞ among them. Probabilities: Dirichlet, peaked down to subnormal numbers, one-hot, smoothed, with zeros. Numbers as
  targets: of any size, near the scores, equal to them. Hyperparameters vary from batch to batch. {soft:.0%} of the
  batches of a loss with a label have a distribution in its place.
- **Classes.** 1 to 10; besides, {large}. In rows of more than 12 classes all of the gradient is compared, and
  the label's and one or two other components of the Hessian.
- **Results.** Every row is computed with both precisions by Numba, one in eight by NumPy too; in one of four batches
  the Hessian-vector product as well.
- **Oracle.** The definition as it was read is written out for the row's K and label into additions, products, powers,
  exponentials, logarithms and choices, and differentiated, backwards and forwards, by a page of rules of its own
  (`accuracy/derive.py`): nothing of the library's derivation or of its stable forms. It is evaluated on balls (Arb, in
  python-flint), whose radius proves how many digits are right, with as many bits as it takes for 75 of them. At
  {confirmed} rows lossmith's interpreter, on mpmath, confirmed it to 20 digits. What no 6000 bits decide is counted as
  undecided: {undecided} of {numbers} numbers. So are, in rows of more than 10,000 classes, numbers off by more than the
  first of the limits above for which it would take hours to work out the second; of each output the eight farthest off
  are judged.
"""


def page(totals: Totals, command: str, seed: int) -> str:
    """Return the whole page."""
    rows = sum(totals.rows.values())
    every = totals.worst.values()
    large = ", ".join(f"{K:,}" for K, *_ in LARGE if totals.sizes.get(K))
    head = HEAD.format(
        command=command,
        rows=_count(rows),
        verdict="No promise was broken." if not totals.broken else "Promises were broken: see below.",
        soft=SOFT,
        large=f"a few rows of {large}" if large else "none in this run",
        confirmed=_count(totals.confirmed),
        undecided=_count(sum(w.undecided for w in every)),
        numbers=_count(sum(w.numbers for w in every)),
    )
    parts = [head, machine(totals, seed), "## Broken promises\n", broken(totals), "## Overview\n", summary(totals)]
    parts += ["## Every loss\n", LEGEND.format(close=CLOSE["fast"])]
    for loss in dict.fromkeys(key[0] for key in totals.worst):
        parts += [f"### {loss}\n", details(totals, loss)]
    return "\n".join(parts).rstrip() + "\n"


def machine(totals: Totals, seed: int) -> str:
    """Return one list of what the figures depend on."""
    about = description()
    lines = [
        f"- {key}: {about[key]}" for key in ("processor", "widest vectors", "system", "python", "date") if about[key]
    ]
    lines += [f"- {package}: {version(package)}" for package in PACKAGES]
    lines += [f"- seed: {seed}", f"- processor time: {totals.seconds:,.0f} s"]
    sizes = ", ".join(f"{K:,}: {_count(n)}" for K, n in sorted(totals.sizes.items()) if K)
    lines += [f"- rows by number of classes: {sizes or 'none'}; elements: {_count(totals.sizes.get(0, 0))}"]
    lines += [f"- rows with a distribution for the label: {_count(totals.soft)}"]
    return "\n".join(lines) + "\n"


def broken(totals: Totals, most: int = 40) -> str:
    """Return the broken promises, a few of each kind."""
    if not totals.broken:
        return "None.\n"
    counts = {key: w.broken for key, w in totals.worst.items() if w.broken}
    lines = [
        f"- {', '.join(key)}: {_count(n)} of {_count(totals.worst[key].numbers)} numbers" for key, n in counts.items()
    ]
    shown, kinds = list[str](), dict[str, int]()
    for text in totals.broken:
        kind = text.split(":")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] <= 2:
            shown.append(f"- {_escaped(text)}")
    return "\n".join([*lines, "", "For example:", "", *shown[:most]]) + "\n"


def summary(totals: Totals) -> str:
    """Return a line for each loss: its rows, and the worst of all outputs."""
    head = ["loss", "rows", *(f"{p}, {d}: ulp; share" for p in PRECISIONS for d in DTYPES), "broken"]
    lines = []
    for loss in dict.fromkeys(loss for loss, _ in totals.rows):
        count = sum(n for (name, _), n in totals.rows.items() if name == loss)
        cells = [loss, _count(count)]
        for precision in PRECISIONS:
            for dtype in DTYPES:
                worst = _merged(w for k, w in totals.worst.items() if (k[0], k[1], k[2]) == (loss, dtype, precision))
                cells.append(f"{_figure(worst.ulp.figure)}; {_share(worst)}" if worst.numbers else "")
        cells.append(_count(sum(w.broken for k, w in totals.worst.items() if k[0] == loss)))
        lines.append(cells)
    return _table(head, lines)


LEGEND = """\
“ulp” is the largest error, in units in the last place, of the numbers that are not ill-conditioned; “share” is the
largest error of all as a share of what is promised there, and “where” is its row. Up to {close:.0%} a share is an upper
bound: what rounding the inputs explains besides is worked out above that only. Both back ends together.
"""


def details(totals: Totals, loss: str) -> str:
    """Return a line for each output, dtype and precision of a loss."""
    head = ["output", "precision", "dtype", "numbers", "ill-conditioned", "ulp", "share", "where"]
    lines: list[Sequence[str]] = []
    for output in OUTPUTS:
        for precision in PRECISIONS:
            for dtype in DTYPES:
                wanted = loss, dtype, precision, output
                found = [w for (*key, _, last), w in totals.worst.items() if (*key, last) == wanted]
                if not found:
                    continue
                w = _merged(found)
                counts = _count(w.numbers), _count(w.spoilt) if precision == "fast" else "—"
                where = _escaped(w.share.at) if w.share.figure else "every number is exact"
                lines.append([output, precision, dtype, *counts, _figure(w.ulp.figure), _share(w), where])
    return _table(head, lines)


def _merged(found: Iterable[Worst]) -> Worst:
    merged = Worst()
    for worst in found:
        merged = merged.merged(worst)
    return merged


def _share(worst: Worst) -> str:
    return "broken" if worst.broken else f"{worst.share.figure:.0%}"


def _figure(x: float) -> str:
    return "∞" if x == float("inf") else f"{x:.3g}"


def _count(n: int) -> str:
    return f"{n:,}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("[-inf", "[−∞").replace("-inf", "−∞")


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"

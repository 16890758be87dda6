"""A long run of the whole trip of formulas under a coverage-guided fuzzer, outside of CI: `make fuzz`.

It needs atheris (`pip install atheris`), which is no dependency of the tests. What fails is shown with its formula and
written to a file crash-…; when it is mended, the formula goes into ADVERSARIAL of tests/fuzz/test_trip.py. Options of
libFuzzer follow the script's name: -max_total_time=600, -runs=100000, a folder for the corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SECONDS = 5.0
"""Of processor time for each step; instrumented code is some five times slower."""


def text_from(given: Any) -> str:
    """Return a formula built from choices, or now and then text as it comes."""
    from fuzz.trip import formula_from

    if given.ConsumeIntInRange(0, 7):
        return formula_from(lambda n: given.ConsumeIntInRange(0, n - 1))
    return given.ConsumeUnicode(400)


def fuzz(arguments: list[str]) -> None:
    """Run until something fails or time is up."""
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit("The fuzzer is atheris, which is not installed here: pip install atheris")
    with atheris.instrument_imports(include=["lossmith"]):
        from fuzz.trip import whole_trip

    def one_input(data: bytes) -> None:
        text = text_from(atheris.FuzzedDataProvider(data))
        try:
            whole_trip(text, SECONDS)
        except BaseException:
            print(f"the formula: {text!r}", file=sys.stderr, flush=True)
            raise

    # Short inputs are no formulas; time is measured above, libFuzzer's own limit is for what never ends.
    atheris.Setup([sys.argv[0], "-timeout=300", "-max_len=600", "-len_control=0", *arguments], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    fuzz(sys.argv[1:])

"""Row programs: what the lowering makes, what the verifier refuses, and the code that people read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from kernels import stable_forms as forms
from lossmith.kernels.emit import emit
from lossmith.kernels.emit_numpy import emit_numpy
from lossmith.kernels.emit_tiles import emit_tiles
from lossmith.kernels.lower import lower
from lossmith.kernels.rowprogram import (
    AtLabel,
    Each,
    Fold,
    Let,
    Load,
    Loop,
    Number,
    Op,
    Patch,
    Position,
    Ref,
    Reject,
    RowProgram,
    Store,
    form_of,
    function_name,
    statements,
)
from lossmith.kernels.runtime import compile_kernel
from lossmith.kernels.schedule import schedule
from lossmith.kernels.verify import MalformedProgram, verify


def folds(program):
    return [s for s in statements(program.body) if isinstance(s, Fold)]


def test_softmax_cross_entropy_is_three_loops():
    program = lower(*forms.softmax_cross_entropy())
    loops = [s for s in program.body if isinstance(s, Loop)]
    gathered = [[s.op for s in loop.body if isinstance(s, Fold)] for loop in loops]
    assert gathered == [["peak"], ["sum", "sum"], []]
    assert isinstance(loops[-1].body[-1], Store)
    assert isinstance(program.body[-1], Patch)


def test_the_exponential_is_kept_and_the_gap_computed_again():
    plan = schedule(lower(*forms.softmax_cross_entropy()))
    assert plan.kept == ("e",)
    assert plan.homes == {"e": "grad"}
    plan = schedule(lower(*forms.soft_cross_entropy()))
    assert plan.kept == ("e",)


def test_a_factor_of_the_inner_class_is_not_computed_for_every_pair():
    program = lower(*forms.pairwise_exp())
    assert program.depth == 2
    outside = [s for s in program.body[0].body if isinstance(s, Let)]
    assert any(isinstance(s.value, Op) and s.value.op == "exp" for s in outside)
    assert schedule(program).kept == ("e",)


def test_maxima_and_gaps_share_one_peak():
    program = lower(*forms.log_sum_exp())
    assert [f.op for f in folds(program)].count("peak") == 1
    assert "max" not in [f.op for f in folds(program)]


@pytest.mark.parametrize("form", forms.ALL, ids=lambda f: f.__name__)
def test_nan_is_looked_for_only_where_it_could_hide(form):
    program = lower(*form())
    shows_by_itself = {"softmax_cross_entropy", "soft_cross_entropy", "log_sum_exp", "logistic", "huber"}
    looked_for = any(isinstance(s, Reject) for s in statements(program.body))
    assert looked_for == (form.__name__ not in shows_by_itself)


def program(*body, outputs=(("value", False),), kind="row", labels=("y",)):
    return RowProgram("planted", kind, ("s",), labels, (), outputs, body)


TOTAL = Loop(0, (Fold("total", "sum", Load("s", Each(0))),))
VALUE = Store("value", Ref("total"))


def test_the_verifier_passes_what_is_right():
    verify(program(TOTAL, VALUE))


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        (program(VALUE, TOTAL), "total is used before it is known"),
        (program(Loop(0, (*TOTAL.body, Let("a", 1, Ref("total")))), VALUE), "total is used before it is known"),
        (program(TOTAL), "value is stored 0 times"),
        (program(TOTAL, VALUE, VALUE), "value is stored 2 times"),
        (program(TOTAL, Store("value", Load("s", Each(0)))), "index of depth 0 is used at depth 0"),
        (program(TOTAL, Store("value", Load("x", AtLabel("y")))), "x is no input"),
        (program(TOTAL, Store("value", Load("s", AtLabel("z")))), "z is no label"),
        (program(TOTAL, Store("value", Load("s", None))), "in a program of kind row"),
        (program(TOTAL, TOTAL, VALUE), "total is named twice"),
        (program(TOTAL, Store("value", Op("exp", (Position(AtLabel("y")),)))), "mixes up its types"),
        (program(TOTAL, Store("value", Op("shrug", (Number(1),)))), "shrug is no operation"),
        (program(Fold("total", "sum", Number(1)), VALUE), "outside of any loop"),
        (program(Let("a", 1, Number(1)), TOTAL, VALUE), "named at depth 0 but says 1"),
        (program(TOTAL, VALUE, Patch("value", AtLabel("y"), Number(0))), "no entries to overwrite"),
        (
            program(Loop(0, (Store("grad", Number(0)),)), TOTAL, VALUE, outputs=(("value", False), ("grad", True))),
            "grad is not stored where it belongs",
        ),
        (program(TOTAL, VALUE, kind="elementwise"), "has a loop"),
        (
            program(TOTAL, VALUE, Let("bad", 0, Op("is_nan", (Ref("total"),))), Reject("bad")),
            "before its row is rejected",
        ),
    ],
    ids=lambda p: p.replace(" ", "-") if isinstance(p, str) else "",
)
def test_the_verifier_refuses_what_is_planted(planted, complaint):
    with pytest.raises(MalformedProgram, match=complaint):
        verify(planted)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("k", [12, 40])
@pytest.mark.parametrize(
    "names", [("F", "rows", "scale"), ("tile", "i", "K"), ("exp", "np", "dtype"), ("value", "classes", "weight")]
)
def test_arguments_may_have_names_that_the_code_uses(names, backend, k):
    rng = np.random.default_rng(0)
    s, y = rng.normal(size=(9, k)).astype("f4"), rng.integers(0, k, 9)
    found = []
    for row, label, hyper in (("s", "y", "margin"), names):
        outputs, formula = forms.hinge(row, label, hyper)
        made = lower(outputs, replace(formula, name="lambda-loss 1"))
        out = {"value": np.empty(9), "grad": np.empty_like(s)}
        compile_kernel(made, "f4", backend).run({row: s}, y, {hyper: 0.5}, None, 1.0, out)
        found.append((out["value"].tobytes(), out["grad"].tobytes()))
    assert found[0] == found[1]


# ------------------------------------------------------------------ the code that people read

SHOWN = (forms.softmax_cross_entropy, forms.hinge, forms.huber, forms.pairwise_hinge, forms.largest_margin)


@pytest.mark.parametrize("form", SHOWN, ids=lambda f: f.__name__)
def test_generated_code_is_what_it_was(form, golden):
    made = lower(*form())
    golden(f"kernels/{made.name}.numpy.py.txt", emit_numpy(made))
    golden(f"kernels/{made.name}.numba.py.txt", emit(made, np.dtype("f4"), form=form_of(made, 5000)))
    if form is forms.softmax_cross_entropy:
        golden(f"kernels/{made.name}.tiles.py.txt", emit_tiles(made, np.dtype("f4"), weighted=True))
        golden(f"kernels/{made.name}.bands.py.txt", emit(made, np.dtype("f4"), form="bands"))


ALONE = """
import json, sys, warnings
sys.modules.update(numba=None, scipy=None, lossmith=None)
warnings.simplefilter("error")
namespace = {}
exec(sys.stdin.read(), namespace)
import numpy as np
s = np.array([[0.5, 2.0, -1.0], [100.0, -100.0, 0.0]], "f4")
args = {"label": np.array([1, 1]), "targets": np.array([[0, 1, 0], [0.5, 0.5, 0]], "f4"), "none": None}[sys.argv[2]]
if sys.argv[3] == "elementwise":
    s = s.ravel()
    args = None if args is None else args.ravel()
hypers = {"alpha": np.ones(3)} if sys.argv[1].startswith("pairwise_exp") else {}
found = namespace[sys.argv[1]](*([s] if args is None else [s, args]), **hypers)
found = found if isinstance(found, tuple) else (found,)
assert all(a.dtype == np.float32 for a in found), [a.dtype for a in found]
print(json.dumps([a.tolist() for a in found]))
"""


@pytest.mark.parametrize("form", forms.ALL, ids=lambda f: f.__name__)
def test_numpy_code_runs_on_its_own(form):
    outputs, formula = form()
    made = lower(outputs, formula)
    kind = "label" if made.labels else "targets" if "t" in made.inputs else "none"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, function_name(made), kind, made.kind],
        input=emit_numpy(made), env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    value, *rest = json.loads(done.stdout)
    assert len(value) == (6 if made.kind == "elementwise" else 2)
    assert len(rest) == len(outputs) - 1

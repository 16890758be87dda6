"""The estimators are where the documentation says."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lossmith as lm
from lossmith.linear import LinearClassifier


def test_estimators_are_in_the_package() -> None:
    assert lm.linear.LinearClassifier is LinearClassifier
    assert LinearClassifier(loss="focal").fit([[0.0], [1.0]], ["a", "b"]).score([[0.0], [1.0]], ["a", "b"]) == 1.0
    with pytest.raises(AttributeError, match="no attribute 'Perceptron'"):
        _ = lm.linear.Perceptron


def test_package_loads_no_scikit_learn_by_itself() -> None:
    code = "import sys, lossmith.linear.tasks; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

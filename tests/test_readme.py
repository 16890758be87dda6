"""What the README shows is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [text for language, text in BLOCKS if language == kind]


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, encoding="utf-8", check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_example_prints_what_is_shown() -> None:
    example = blocks("python")[0]
    assert run("-c", example).strip() == blocks("text")[0].strip()


def test_code_shown_is_code_generated() -> None:
    assert run("-m", "lossmith", "code", "cross_entropy").strip() == blocks("python")[1].strip()


@pytest.mark.parametrize("line", [c for text in blocks("console") for c in text.splitlines() if "lossmith" in c])
def test_command_runs(line: str) -> None:
    assert run("-m", *shlex.split(line.removeprefix("$ "))) != ""


def test_make_commands_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for line in (c for text in blocks("console") for c in text.splitlines() if c.startswith("$ make")):
        assert re.search(rf"^{line.split()[-1]}:", makefile, re.MULTILINE)


def test_picture_is_what_the_command_draws(tmp_path: Path) -> None:
    shown = README.parent / re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8"))[0]
    drawn = tmp_path / "compare.svg"
    run("-m", "lossmith", "compare", "logistic", "(sigmoid(s) - t)**2 / 2", "-o", str(drawn))

    def words(path: Path) -> list[str]:
        return sorted(re.findall(r">([^<>]+)</text>", path.read_text(encoding="utf-8")))

    assert words(drawn) == words(shown) != []


def test_stated_figures() -> None:
    import numpy as np

    import lossmith as lm

    scores = np.zeros((1, 2), np.float32)
    scores[0, 0] = 20
    value, grad = lm.cross_entropy.value_and_grad(scores, [0])
    assert f"{value:.0e}" == f"{abs(grad[0, 0]):.0e}" == "2e-09"

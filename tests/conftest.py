"""Fixtures of all tests: real data, golden files, and how Hypothesis searches."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).resolve().parent
IN_CI = bool(os.environ.get("CI"))

# A kernel compiles inside the first example, so a time limit per example says nothing. In CI the
# examples are the same every time: a red run there is one that anybody can repeat.
settings.register_profile("lossmith", deadline=None, derandomize=IN_CI)
settings.load_profile("lossmith")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refresh-golden",
        action="store_true",
        help="write the files in tests/golden anew from what the code gives now",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--refresh-golden") and IN_CI:
        raise pytest.UsageError(
            "--refresh-golden is refused where the environment variable CI is set: "
            "golden files are written by a person who reads the difference"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refreshing runs the tests that have golden files, and no others."""
    if config.getoption("--refresh-golden"):
        with_golden = [item for item in items if "golden" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in with_golden])
        items[:] = with_golden


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real data: MNIST digits and letters, with reference figures."""
    named = os.environ.get("LOSSMITH_DATA")
    candidates = [Path(named)] if named else []
    candidates.append(HERE.parent.parent / "shared" / "data")
    for folder in candidates:
        if folder.is_dir():
            return folder
    pytest.skip("no real data: set LOSSMITH_DATA to its folder, or put it at ../shared/data")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return `golden(name, text)`, which compares a text with the file tests/golden/<name>."""

    def compare(name: str, text: str) -> None:
        __tracebackhide__ = True
        path = HERE / "golden" / name
        if not text.endswith("\n"):
            text += "\n"
        if request.config.getoption("--refresh-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            return
        if not path.exists():
            pytest.fail(f"tests/golden/{name} is not there; `make golden` writes it", pytrace=False)
        expected = path.read_bytes().decode()
        if text != expected:
            diff = difflib.unified_diff(expected.splitlines(), text.splitlines(), f"golden/{name}", "now", lineterm="")
            pytest.fail("\n".join([*diff, "", "if the new text is right: `make golden`"]), pytrace=False)

    return compare

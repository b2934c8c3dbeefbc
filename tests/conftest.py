"""Options of the test run, and the modes that tests run in."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import pytest

# machine code of the tests: shared by the processes of a run and by runs after one another, apart from the user's own
os.environ.setdefault("GRAPHC_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"graphc-tests-{os.getuid() if hasattr(os, 'getuid') else 0}"))

import graphc as gc


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected blocks of tests/golden/*.gc")


MODES: dict[str, Any] = {
    "FAST_RUN": "FAST_RUN", "FAST_COMPILE": "FAST_COMPILE", "DEBUG": "DEBUG",
    "reference": gc.Mode(backend="reference"), "none": gc.Mode(backend="numpy", passes="none"),
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Any:
    """Every way to compile."""
    return MODES[request.param]


@pytest.fixture(params=("FAST_RUN", "FAST_COMPILE", "DEBUG"))
def stable(request: pytest.FixtureRequest) -> Any:
    """The modes that run passes."""
    return MODES[request.param]

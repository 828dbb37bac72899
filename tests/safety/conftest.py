from __future__ import annotations

import json
import os
import platform
import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from . import processes

RESULTS = Path(__file__).with_name("soak-results.json")

_figures: dict[str, dict[str, dict[str, int]]] = {}


class Figures:
    """Counts of one test, by backend; they add up over the test's parametrised runs."""

    def __init__(self, test: str) -> None:
        self._test = test

    def add(self, backend: str, **counts: int) -> None:
        held = _figures.setdefault(self._test, {}).setdefault(backend, {})
        for name, count in counts.items():
            held[name] = held.get(name, 0) + count


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return Figures(request.node.originalname)


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--soak"))


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Randomness whose seed is printed when the test fails; JARVIS_TEST_SEED sets it."""
    seed = int(os.environ.get("JARVIS_TEST_SEED", "20"))
    print(f"seed {seed} (JARVIS_TEST_SEED)")
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture(params=["sqlite", "json"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _no_child_stays() -> Iterator[None]:
    yield
    processes.end_all()


@pytest.fixture(autouse=True, scope="session")
def _soak_results(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.config.getoption("--soak") and _figures:
        known = json.loads(RESULTS.read_text())["tests"] if RESULTS.exists() else {}
        results = {
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "sqlite": apsw.sqlite_lib_version(),
            "tests": {**known, **_figures},
        }
        RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")

"""The state machine of each backend: thousands of random steps, compared with a plain dict at each."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from jarvis.config import HistoryPolicy
from jarvis.conformance import BackendMachine, machine
from jarvis.json_backend import JSONBackend
from jarvis.keys import KeyFunction
from jarvis.sealing import SealedBackend
from jarvis.sqlite_backend import SQLiteBackend
from tests.sealable import SealableSQLite
from tests.test_contract import DictBackend, a_key

from .conftest import Figures

STEPS_A_STORY, STORIES = 50, 200
SOAK = 50  # times the usual steps: a million

SQLITE = machine(lambda directory: SQLiteBackend(directory / "memory.db", durability="normal"), name="sqlite")
JSON = machine(lambda directory: JSONBackend(directory / "memory.json", durability="normal"), name="json")
FEW = HistoryPolicy(max_revisions=2)
PRUNED = (
    machine(
        lambda directory: SQLiteBackend(directory / "memory.db", durability="normal", history=FEW),
        name="sqlite, pruned",
        max_revisions=2,
    ),
    machine(
        lambda directory: JSONBackend(directory / "memory.json", durability="normal", history=FEW),
        name="json, pruned",
        max_revisions=2,
    ),
)
SEALED = machine(
    lambda directory: SQLiteBackend(
        directory / "memory.db", durability="normal", encryption="required", keys=[KeyFunction(a_key)]
    ),
    name="sqlite, encrypted",
)
WRAPPED = machine(
    lambda directory: SealedBackend(
        SealableSQLite(directory / "memory.db", durability="normal"), keys=[KeyFunction(a_key)]
    ),
    name="sqlite, sealed",
)
DICT = machine(lambda directory: DictBackend(directory / "store"), name="dict")


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        (SQLITE, 20_000),
        (JSON, 20_000),
        *((kind, 8_000) for kind in PRUNED),
        (SEALED, 6_000),
        (WRAPPED, 6_000),
        (DICT, 2_000),
    ],
    ids=["sqlite", "json", "sqlite pruned", "json pruned", "sqlite encrypted", "sqlite sealed", "dict"],
)
def test_random_steps_never_tell_a_backend_from_a_dict(
    kind: type[BackendMachine], steps: int, soak: bool, figures: Figures, capsys: pytest.CaptureFixture[str]
) -> None:
    steps *= SOAK if soak else 1
    kind.counts.clear()
    for round_number in itertools.count():
        if kind.counts.total() >= steps:
            break
        run_state_machine_as_test(
            type(f"{kind.__name__}-{round_number}", (kind,), {}),  # the name seeds the choices
            settings=settings(
                max_examples=STORIES,
                stateful_step_count=STEPS_A_STORY,
                derandomize=True,
                database=None,
                deadline=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )

    total = kind.counts.total()
    shares = {name: count / total for name, count in kind.counts.most_common()}
    with capsys.disabled():
        print(f"\n{kind.__name__}: {total:,} steps; " + ", ".join(f"{n} {share:.1%}" for n, share in shares.items()))
    figures.add(kind.__name__, steps=total, differences=0, rarest_rule_per_mille=int(min(shares.values()) * 1000))
    assert min(kind.counts.values()) >= steps / 200, kind.counts

"""The benchmarks measure right answers, and the documentation shows what is checked in."""

from __future__ import annotations

import ast
import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import harness, report, worker
from benchmarks.harness import Goal, Worker, alternate, amount, ending, statistics_of
from benchmarks.systems import SYSTEMS, open_system
from benchmarks.workloads import WORKLOADS, Call, Some, Store, is_right

SIZE = 1_000
OURS = ("jarvis", "jarvis-json", "raw")
ADAPTERS = Path(worker.__file__).parent / "systems"


@pytest.fixture(autouse=True)
def this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run workers in the environment of the tests, which installs nothing."""
    monkeypatch.setattr(harness, "python_of", lambda _: sys.executable)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("stores")
    for system in OURS:
        (directory / system).mkdir()
        worker.load(system, SIZE, directory / system)
    return {system: directory / system for system in OURS}


@pytest.fixture
def own(filled: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    for system, directory in filled.items():
        shutil.copytree(directory, tmp_path / system)
        shutil.copy(directory.with_suffix(".ids"), tmp_path / f"{system}.ids")
    return {system: tmp_path / system for system in filled}


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("system", OURS)
def test_every_workload_is_answered_right(system: str, name: str, own: dict[str, Path]) -> None:
    workload = WORKLOADS[name]
    count = min(workload.calls_a_round, 5)
    opened = open_system(system, own[system], durable=workload.durable)
    ids = worker.ids_of(own[system])
    if workload.store == "empty":
        opened.clear()

    taken = worker.time_calls(workload.calls(Store(opened, ids, SIZE), 1, count), 30)

    opened.close()
    assert len(taken) == count


def test_a_wrong_answer_ends_a_round() -> None:
    with pytest.raises(AssertionError, match="a wrong answer"):
        worker.time_calls(iter([(lambda: [("b", 1, 1), ("a", 1, 1)], ["a", "b"])]), 1)


def test_a_round_ends_when_its_seconds_are_over_but_makes_one_call() -> None:
    endless: Iterator[Call] = itertools.repeat((lambda: None, None))

    assert len(worker.time_calls(endless, 0)) == 1


def test_a_system_without_exact_order_may_give_any_that_satisfy() -> None:
    wanted = Some(2, frozenset({"a", "b", "c"}))

    assert is_right([("c", 0, 0), ("a", 0, 0)], wanted)
    assert not is_right([("a", 0, 0), ("a", 0, 0)], wanted)
    assert not is_right([("a", 0, 0), ("d", 0, 0)], wanted)
    assert not is_right([("a", 0, 0)], wanted)


def test_workers_take_turns_and_say_how_long_each_call_took(filled: dict[str, Path]) -> None:
    workers: list[Worker] = []
    with ending(workers):
        for system in ("raw", "jarvis"):
            workers.append(Worker(system, "get", SIZE, filled[system]))
        taken = alternate(workers, rounds=2, count=20)
        peaks = [each.close()["peak_kib"] for each in workers]

    assert [[len(calls) for calls in rounds] for rounds in taken] == [[20, 20], [20, 20]]
    assert all(statistics_of(rounds)["median_us"] > 0 for rounds in taken)
    assert all(peak > 1_000 for peak in peaks)


def test_what_a_peer_is_measured_by_does_not_import_jarvis() -> None:
    for system, description in SYSTEMS.items():
        if system.startswith("jarvis"):
            continue
        tree = ast.parse((ADAPTERS / f"{description.module}.py").read_text(encoding="utf-8"))
        imported = [
            name
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        ]
        assert not [name for name in imported if name.split(".")[0] == "jarvis" or "jarvis" in name], system


def test_a_goal_is_met_up_to_its_limit() -> None:
    goal = Goal("get", 1_000, 1.0, 1.0, "µs", 1.0, at_most=1.0)

    assert goal.is_met
    assert not goal._replace(figure=1.001).is_met
    assert goal._replace(at_most=None, at_least=1.0).is_met
    assert not goal._replace(at_most=None, at_least=1.001).is_met


def test_an_amount_is_given_in_the_unit_that_suits_it() -> None:
    assert amount(12.34, "µs") == "12.3 µs"
    assert amount(1_234.5, "µs") == "1.23 ms"
    assert amount(2_048, "KiB") == "2.00 MiB"
    assert amount(0.844, "x") == "0.84×"
    assert amount(1_234, "") == "1,234"


@pytest.fixture
def results() -> report.Results:
    """Figures in which ours lost to the store by hand, and won against a peer."""
    calls = {"raw": (1.0, 1.0), "jarvis": (2.0, 2.0), "langgraph": (3.0, 3.0)}
    table = {"get": {system: {"median_us": median, "ratio": ratio} for system, (median, ratio) in calls.items()}}
    machine = {"processor": "a processor", "cores": 2, "system": "Linux", "python": "3.11.7"}
    versions = {"raw": {"sqlite": "3.40.1"}}
    return {"one_caller": {"machine": machine, "versions": versions, "results": {"10000": table}, "goals": []}}


def test_a_loss_is_marked_as_one(results: report.Results) -> None:
    (row,) = [line for line in report.tables(results).splitlines() if line.startswith("| get by id")]

    assert row == "| get by id | 2.00 µs | 1.00 µs | **2.00×** | ≤ 0.8× | **missed** | 3.00× |"


def test_the_chart_shows_each_ratio(results: report.Results) -> None:
    picture = ElementTree.fromstring(report.picture(results))

    texts = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"get by id", "2.00×", "3.00×"} <= set(texts)


def test_what_stands_around_the_tables_stays() -> None:
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"

    new = report.page(text, {})

    assert new.startswith(f"before\n{report.BEGIN}\n")
    assert new.endswith(f"{report.END}\nafter\n")
    assert "old" not in new


def test_the_documentation_shows_the_figures_that_are_checked_in() -> None:
    results = report.read()
    if not results:
        pytest.skip("no figures are checked in")

    assert report.PAGE.read_text(encoding="utf-8") == report.page(report.PAGE.read_text(encoding="utf-8"), results)
    assert report.CHART.read_text(encoding="utf-8") == report.picture(results)

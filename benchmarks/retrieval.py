"""Does it find the right memory? Questions about long conversations, and the turns and facts that answer them.

python -m benchmarks.retrieval ../locomo-dev.json [--write]

The data are conversations of LoCoMo (https://github.com/snap-research/locomo, CC BY-NC 4.0); they are read where they
lie. A question is put to all memories of its conversation. *Found* is the share of the right turns (or facts) among the
first ten, *rank* the mean reciprocal rank of the first right one. Each conversation is ranked with weights that were
learned from the others, and with those of the library. The intervals hold 95 of 100 samples of the questions.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.conversations import KINDS, Asked, asked_of, conversations_of
from benchmarks.harness import Goal
from benchmarks.learning import EMBEDDER, fit
from benchmarks.systems.jarvis_sqlite import Jarvis
from jarvis.search.weights import FACT, FACT_BY_MEANING, TURN, TURN_BY_MEANING

AT = 10
CATEGORIES = {1: "several turns", 2: "when", 3: "open", 4: "one turn", 5: "about the wrong person"}
REQUIRED = {"turns": (0.79, 0.62), "facts": (0.77, None)}
REQUIRED_WITH_MODEL = {"turns": (0.84, 0.66), "facts": (0.81, None)}
SHIPPED = {"turns": TURN, "facts": FACT}
SHIPPED_WITH_MODEL = {"turns": TURN_BY_MEANING, "facts": FACT_BY_MEANING}
SAMPLES = 1_000

Score = tuple[float, float, float]
"""Three figures of a question: the share found in the first ten, the reciprocal rank, the share in all candidates."""


def scores(questions: Sequence[Asked], weights: dict[str, float]) -> list[tuple[int, Score]]:
    """Return category and score of each question."""
    vector = np.array([weights[name] for name in questions[0].parts])
    result = []
    for asked in questions:
        order = np.argsort(-(asked.features @ vector), kind="stable")
        holds = [asked.holds[index] for index in order]
        first = next((place for place, held in enumerate(holds, 1) if held), None)
        shares = [len(frozenset().union(*some)) / asked.right for some in (holds[:AT], holds)]
        result.append((asked.category, (shares[0], 1 / first if first else 0.0, shares[1])))
    return result


def summary(scored: Sequence[tuple[int, Score]]) -> dict[str, Any]:
    """Return means over categories 1 to 4 with intervals, over all five, and of each category."""
    usual = _usual(scored)
    draw = random.Random(1)
    samples = [np.mean([draw.choice(usual) for _ in usual], axis=0) for _ in range(SAMPLES)]
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    mean = np.mean(usual, axis=0)
    table = {}
    for category, name in CATEGORIES.items():
        some = [score for each, score in scored if each == category]
        if some:
            table[name] = {"questions": len(some), **_named(np.mean(some, axis=0))}
    return {
        "questions": len(usual),
        **_named(mean),
        "found from": float(low[0]),
        "found to": float(high[0]),
        "rank from": float(low[1]),
        "rank to": float(high[1]),
        "rank of all five": float(np.mean([score for _, score in scored], axis=0)[1]),
        "categories": table,
    }


def _named(mean: Any) -> dict[str, float]:
    return {"found": float(mean[0]), "rank": float(mean[1]), "among candidates": float(mean[2])}


def measure(path: Path) -> dict[str, Any]:
    """Return the summaries, by kind and by weights."""
    conversations = conversations_of(path, EMBEDDER)
    results: dict[str, Any] = {}
    for kind in KINDS:
        asked = [asked_of(each, kind) for each in conversations]
        _judge(results, kind, asked, SHIPPED[kind])
        if len(asked) > 1:
            results[f"{kind} without"] = {
                part: _named(np.mean(_usual(_left_out([_without(part, each) for each in asked])), axis=0))
                for part in KINDS[kind]
            }
    for kind in KINDS:
        asked = [asked_of(each, kind, EMBEDDER) for each in conversations]
        _judge(results, f"{kind} with {EMBEDDER}", asked, SHIPPED_WITH_MODEL[kind])
    return results


def _judge(results: dict[str, Any], name: str, asked: Sequence[Sequence[Asked]], weights: dict[str, float]) -> None:
    """Add the summaries of some questions, with the weights of the library and with those of other conversations."""
    every = [score for questions in asked for score in scores(questions, weights)]
    results[f"{name}, weights of the library"] = summary(every)
    if len(asked) > 1:
        results[f"{name}, weights of the other conversations"] = summary(_left_out(asked))


def _left_out(asked: Sequence[Sequence[Asked]]) -> list[tuple[int, Score]]:
    """Return the scores of all questions, each conversation with weights that were learned from the others."""
    result = []
    for index, questions in enumerate(asked):
        others = [question for other, each in enumerate(asked) if other != index for question in each]
        result += scores(questions, fit(others))
    return result


def _without(part: str, questions: Sequence[Asked]) -> list[Asked]:
    """Return questions as if the ranking did not know a part of the score."""
    kept = [index for index, name in enumerate(questions[0].parts) if name != part]
    names = tuple(questions[0].parts[index] for index in kept)
    return [asked._replace(parts=names, features=asked.features[:, kept]) for asked in questions]


def _usual(scored: Sequence[tuple[int, Score]]) -> list[Score]:
    return [score for category, score in scored if category != 5]


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        f"| searched, with which weights | category | questions | found in {AT} | rank | among the candidates |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in results.items():
        if "categories" not in found:
            continue
        interval = f"{found['found']:.3f} ({found['found from']:.3f} to {found['found to']:.3f})"
        rank = f"{found['rank']:.3f} ({found['rank from']:.3f} to {found['rank to']:.3f})"
        lines.append(
            f"| {name} | 1 to 4 | {found['questions']} | {interval} | {rank} | {found['among candidates']:.3f} |"
        )
        for category, each in found["categories"].items():
            lines.append(
                f"| | {category} | {each['questions']} | {each['found']:.3f} | {each['rank']:.3f} "
                f"| {each['among candidates']:.3f} |"
            )
    for kind in KINDS:
        if f"{kind} without" in results:
            lines += ["", f"| {kind}, the ranking without | found in {AT} | rank |", "| --- | --- | --- |"]
            lines += [
                f"| `{part}` | {each['found']:.3f} | {each['rank']:.3f} |"
                for part, each in results[f"{kind} without"].items()
            ]
    return "\n".join(lines)


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return what is wanted of weights that were learned from other conversations."""
    wanted = []
    with_model = {f"{kind} with {EMBEDDER}": least for kind, least in REQUIRED_WITH_MODEL.items()}
    for kind, (found, rank) in (REQUIRED | with_model).items():
        learned = results.get(f"{kind}, weights of the other conversations")
        if learned is None:
            continue
        wanted.append(_goal(f"{kind}: share found in the first {AT}", learned["found"], found))
        if rank is not None:
            wanted.append(_goal(f"{kind}: mean reciprocal rank", learned["rank"], rank))
            lower = learned["rank"] - learned["rank of all five"]
            what = f"{kind}: rank lower with questions about the wrong person"
            wanted.append(Goal(what, None, None, None, "", lower, at_most=0.08, figure_unit=""))
    return wanted


def _goal(what: str, figure: float, least: float) -> Goal:
    return Goal(what, None, None, None, "", figure, at_least=least, figure_unit="")


def main() -> None:
    """Measure, and check in."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="a JSON file of conversations, in the form of LoCoMo's locomo10.json")
    parser.add_argument("--write", action="store_true", help="check the figures in")
    chosen = parser.parse_args()
    machine = harness.machine()
    results = measure(chosen.data)
    print(table(results))
    harness.publish("retrieval", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()

"""Learns the weights of the ranking from conversations with questions, and writes them into the library.

python -m benchmarks.learning ../locomo-dev.json

The questions of LoCoMo (https://github.com/snap-research/locomo) name the turns that hold their answers. The weights
make these turns likely among all candidates of their question: a softmax over the scores, the negative logarithm of the
share of the right ones as loss, a small L2 penalty, and Adam (https://arxiv.org/abs/1412.6980). It has one optimum; no
number is set by hand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.conversations import Asked, Conversation, asked_of, conversations_of
from benchmarks.harness import ROOT

WEIGHTS = ROOT / "src" / "jarvis" / "search" / "weights.py"
EMBEDDER = "minilm"
_TABLES = {
    "TURN": "Weights of the parts of the score of a turn.",
    "FACT": "Weights of the parts of the score of any other memory.",
    "TURN_BY_MEANING": "Those of a turn, where a model says how similar it is to the question.",
    "FACT_BY_MEANING": "Those of any other memory, where a model does.",
}
PENALTY, STEPS, RATE, COOLED = 0.002, 400, 0.3, 0.2

_HEAD = '''"""The weights of the ranking: written by ``python -m benchmarks.learning``, never by hand."""

from __future__ import annotations

'''


def fit(questions: Sequence[Asked]) -> dict[str, float]:
    """Return the weights, by part, that make the right memories of these questions most likely."""
    names = questions[0].parts
    data = [(asked.features, asked.is_right) for asked in questions if asked.category != 5 and asked.is_right.any()]
    weights = np.zeros(len(names))
    weights[0] = 1.0
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, STEPS + 1):
        gradient = -PENALTY * weights
        for features, is_right in data:
            scores = features @ weights
            likely = np.exp(scores - scores.max())
            likely /= likely.sum()
            right = likely * is_right
            wanted = 0.5 * right / right.sum() + 0.5 * is_right / is_right.sum()
            gradient += (wanted - likely) @ features / len(data)
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        rate = RATE if step < STEPS / 2 else RATE * COOLED
        weights += rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return {name: round(float(weight), 2) for name, weight in zip(names, weights, strict=True)}


def written(weights: dict[str, dict[str, float]]) -> str:
    """Return the module of weights."""
    return _HEAD + "\n".join(f'{name} = {weights[name]!r}\n"""{text}"""\n' for name, text in _TABLES.items())


def learned(conversations: Sequence[Conversation]) -> dict[str, dict[str, float]]:
    """Return the weights for each kind of memory, without a model and with one, from all questions."""
    return {
        f"{name}{end}": fit([asked for each in conversations for asked in asked_of(each, kind, embedder)])
        for name, kind in (("TURN", "turns"), ("FACT", "facts"))
        for end, embedder in (("", None), ("_BY_MEANING", EMBEDDER))
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    WEIGHTS.write_text(written(learned(conversations_of(parser.parse_args().data, EMBEDDER))), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(WEIGHTS)], check=True)

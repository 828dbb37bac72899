"""Draws bars on a logarithmic axis, as SVG: how many times as long as the store by hand each system takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 880, 232, 36, 84, 44
BAR, GAP, BETWEEN = 8, 2, 12
LEAST, MOST = 0.06, 10_000.0
FIRST_TICK = 0.1

STYLE = """
  text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; }
  .note, .tick { font-size: 11px; fill: #57606a; }
  .name { font-size: 12px; }
  .value { font-size: 9px; fill: #57606a; }
  .first.value { font-weight: 700; fill: #24292f; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .one { stroke: #24292f; stroke-width: 1.5; }
  .s0 { fill: #0969da; } .s1 { fill: #bf8700; } .s2 { fill: #1a7f37; } .s3 { fill: #8250df; }
  .s1, .s2, .s3 { opacity: 0.62; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note, .tick, .value { fill: #9198a1; }
    .first.value { fill: #e6edf3; }
    .grid { stroke: #3d444d; }
    .one { stroke: #e6edf3; }
    .s0 { fill: #4493f8; } .s1 { fill: #d29922; } .s2 { fill: #3fb950; } .s3 { fill: #ab7df8; }
  }
"""


class Row(NamedTuple):
    """A workload, and the ratio of each system to the store by hand; None where it was not measured."""

    name: str
    ratios: Sequence[float | None]


def draw(title: str, note: str, systems: Sequence[str], rows: Sequence[Row]) -> str:
    """Return the chart of `rows`, whose ratios stand in the order of `systems`; ours come first."""
    tall = len(systems) * (BAR + GAP) + BETWEEN
    bottom = TOP + len(rows) * tall
    height = bottom + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
        f'<text class="note" x="16" y="44">{escape(note)}</text>',
        *_legend(systems),
        *_axis(bottom),
    ]
    for number, row in enumerate(rows):
        parts += _bars(row, TOP + number * tall + BETWEEN / 2, tall - BETWEEN)
    parts.append(f'<line class="one" x1="{_x(1):.1f}" x2="{_x(1):.1f}" y1="{TOP - 4}" y2="{bottom + 4}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(ratio: float) -> float:
    share = math.log(min(max(ratio, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _legend(systems: Sequence[str]) -> list[str]:
    parts, x = [], 16.0
    for number, system in enumerate(systems):
        parts.append(f'<rect class="s{number}" x="{x:.0f}" y="56" width="10" height="10" rx="2"/>')
        parts.append(f'<text class="note" x="{x + 15:.0f}" y="65">{escape(system)}</text>')
        x += 37 + 6.2 * len(system)
    return parts


def _axis(bottom: float) -> list[str]:
    parts = []
    ratio = FIRST_TICK
    while ratio <= MOST * 1.001:
        x = _x(ratio)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        label = f"{ratio:,.0f}" if ratio >= 0.99 else f"{ratio:g}"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}×</text>')
        ratio *= 10
    arrows = (("end", "← faster than by hand", -10), ("start", "slower than by hand →", 10))
    parts += [
        f'<text class="tick" x="{_x(1) + shift:.1f}" y="{bottom + 34}" text-anchor="{anchor}">{text}</text>'
        for anchor, text, shift in arrows
    ]
    return parts


def _bars(row: Row, top: float, tall: float) -> list[str]:
    parts = [
        f'<text class="name" x="{LEFT - 10}" y="{top + tall / 2 + 4:.1f}" text-anchor="end">{escape(row.name)}</text>'
    ]
    for number, ratio in enumerate(row.ratios):
        if ratio is None:
            continue
        y = top + number * (BAR + GAP)
        start, end = sorted((_x(1), _x(ratio)))
        wide = max(end - start, 0.8)
        parts.append(f'<rect class="s{number}" x="{start:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{BAR}" rx="1"/>')
        place = (end + 4, "start") if ratio >= 1 else (start - 4, "end")
        kind = "first value" if number == 0 else "value"
        label = f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.1f}×" if ratio >= 10 else f"{ratio:.2f}×"
        parts.append(
            f'<text class="{kind}" x="{place[0]:.1f}" y="{y + BAR:.1f}" text-anchor="{place[1]}">{label}</text>'
        )
    return parts

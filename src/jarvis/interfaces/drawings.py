"""Drawings of a page: bars and columns as SVG, and stored texts as harmless ones."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from jarvis.interfaces.readable import greatest, safe

WIDE, NARROW, TALL = 880, 430, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 12, 26
_LABELS_ABOVE = 5
_LABELS = 8  # at most
_STEPS = (1, 2, 5)


class Column(NamedTuple):
    """A column of a chart: its label below, what it shows in words, and its parts, from below to above."""

    label: str
    said: str
    parts: tuple[int, ...]


def text(stored: str) -> str:
    """Return a stored text for a page: it does nothing there, and turns no direction of what stands around it."""
    return html.escape(safe(stored), quote=True)


def bar(amount: int, most: int) -> str:
    """Return a horizontal bar, as long as its share of `most`; what is above 0 is visible."""
    share = 0.0 if amount <= 0 else max(0.6, 100 * amount / greatest([most]))
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="ground" width="100" height="10"/><rect class="s0" width="{share:.2f}" height="10"/></svg>'
    )


def columns(several: Sequence[Column], *, title: str, width: int = WIDE) -> str:
    """Return a chart of columns with an axis.

    Args:
        several: the columns, from left to right.
        title: says what is shown, for those who do not see it.
        width: of the drawing; the page makes it larger or smaller.
    """
    most, step = _axis(greatest(sum(each.parts) for each in several))
    inner, height = width - _LEFT - _RIGHT, TALL - _TOP - _BOTTOM
    each = inner / max(len(several), 1)
    thick = min(each * 0.78, 56)
    drawn = [
        f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_short(value)}</text>'
        for value in range(0, most + 1, step)
        for y in [_TOP + height * (1 - value / most)]
    ]
    every = -(-len(several) // _LABELS)
    for number, column in enumerate(several):
        middle, y = _LEFT + each * (number + 0.5), float(_TOP + height)
        drawn.append(f"<g><title>{text(column.said)}</title>")
        drawn.append(
            f'<rect class="touch" x="{middle - each / 2:.1f}" y="{_TOP}" width="{each:.1f}" height="{height}"/>'
        )
        for kind, part in enumerate(column.parts):
            if part > 0:
                tall = max(1.0, height * part / most)
                y -= tall
                drawn.append(
                    f'<rect class="s{kind}" x="{middle - thick / 2:.1f}" y="{y:.1f}" width="{thick:.1f}"'
                    f' height="{tall:.1f}"/>'
                )
        drawn.append("</g>")
        if number % every == 0:
            drawn.append(
                f'<text class="tick" x="{middle:.1f}" y="{TALL - 8}" text-anchor="middle">{text(column.label)}</text>'
            )
        if len(several) <= _LABELS and any(column.parts):
            drawn.append(
                f'<text class="value" x="{middle:.1f}" y="{max(y - _LABELS_ABOVE, 9):.1f}" text-anchor="middle">'
                f"{_short(sum(column.parts))}</text>"
            )
    begin = f'<svg class="columns" viewBox="0 0 {width} {TALL}" role="img" aria-label="{text(title)}">'
    return f'<div class="scroll{" long" if width == WIDE else ""}">{begin}{"".join(drawn)}</svg></div>'


def _axis(most: int) -> tuple[int, int]:
    """Return the end of an axis that shows `most`, and the step between its marks."""
    power = 1
    while True:
        for step in _STEPS:
            if most <= 4 * step * power:
                return -(-most // (step * power)) * step * power, step * power
        power *= 10


def _short(number: int) -> str:
    """Return a number with at most three digits and a letter."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            shown = number / size
            return f"{shown:.0f}{letter}" if shown >= 100 or number % size == 0 else f"{shown:.1f}{letter}"
    return str(number)

"""Record the command line in a terminal, as the picture of the README: real commands, real output.

python examples/recording.py            writes docs/terminal.svg
python examples/recording.py --print    writes it to the standard output
"""

from __future__ import annotations

import html
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pexpect
import pyte

SESSION = (
    'jarvis-memory remember "Maria moves to Lisbon" --about person/maria --tag family',
    "jarvis-memory set preferences/theme mode=dark contrast=3",
    'jarvis-memory recall "where does Maria move?"',
    "jarvis-memory set preferences/theme mode=light --merge --reason 'it was noon'",
    "jarvis-memory history preferences/theme",
    "jarvis-memory undo preferences/theme",
    "jarvis-memory delete --tag family",
    "jarvis-memory list",
)
ANSWERS = {"Do it? [y/N]:": "n"}
COLUMNS, ROWS = 106, 60
SECONDS_A_COMMAND = 1.6

SIGN, LINE, EDGE, TOP = 8.4, 19, 18, 44
COLOURS = {"default": "#d8dee9", "green": "#a3be8c", "cyan": "#88c0d0", "red": "#bf616a", "prompt": "#a3be8c"}
TARGET = Path(__file__).parent.parent / "docs" / "terminal.svg"


def recorded(command: str, environment: dict[str, str]) -> list[list[tuple[str, str]]]:
    """Run a command in a terminal; return the lines on its screen as parts, each a style and a text."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    words = command.replace("jarvis-memory", f"{sys.executable} -m jarvis", 1)
    process = pexpect.spawn(
        "/bin/sh", ["-c", words], env=environment, dimensions=(ROWS, COLUMNS), encoding="utf-8", timeout=60
    )
    while (at := process.expect([pexpect.EOF, *map(re.escape, ANSWERS)])) != 0:
        stream.feed(f"{process.before}{process.after}")
        process.sendline(list(ANSWERS.values())[at - 1])
    stream.feed(str(process.before))
    lines = [_parts(screen, row) for row in range(ROWS)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _parts(screen: pyte.Screen, row: int) -> list[tuple[str, str]]:
    signs = [screen.buffer[row][column] for column in range(COLUMNS)]
    while signs and signs[-1].data == " ":
        signs.pop()
    return [
        (style, "".join(sign.data for sign in group)) for style, group in groupby(signs, key=lambda sign: _style(sign))
    ]


def _style(sign: pyte.screens.Char) -> str:
    colour = COLOURS.get(sign.fg, COLOURS["default"])
    return f"fill:{colour}" + (";font-weight:bold" if sign.bold else "")


def picture(session: list[tuple[str, list[list[tuple[str, str]]]]]) -> str:
    """Return the picture of commands with their output; each appears when it was given."""
    rows: list[tuple[float, list[tuple[str, str]]]] = []
    for number, (command, lines) in enumerate(session):
        begin = number * SECONDS_A_COMMAND
        prompt = f"fill:{COLOURS['prompt']}"
        rows.append((begin, [(prompt, "$ "), (f"fill:{COLOURS['default']};font-weight:bold", command)]))
        rows += [(begin + SECONDS_A_COMMAND / 2, parts) for parts in lines]
        rows.append((begin, []))
    width, height = round(COLUMNS * SIGN + 2 * EDGE), TOP + len(rows) * LINE + 8
    texts = "\n".join(_lines(rows))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>jarvis-memory in a terminal: remember, recall, see the history, undo, delete</title>
<style>
text {{ font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }}
@keyframes appear {{ from {{ opacity: 0 }} to {{ opacity: 1 }} }}
@media (prefers-reduced-motion: no-preference) {{ .line {{ animation: appear 0.2s both }} }}
</style>
<rect width="{width}" height="{height}" rx="10" fill="#232831"/>
<circle cx="22" cy="20" r="6" fill="#bf616a"/>
<circle cx="42" cy="20" r="6" fill="#ebcb8b"/>
<circle cx="62" cy="20" r="6" fill="#a3be8c"/>
{texts}
</svg>
"""


def _lines(rows: list[tuple[float, list[tuple[str, str]]]]) -> Iterator[str]:
    for number, (begin, parts) in enumerate(rows):
        spans, column = [], 0
        for style, text in parts:
            x = EDGE + column * SIGN
            spans.append(f'<tspan x="{x:.1f}" style="{style}">{html.escape(text)}</tspan>')
            column += len(text)
        if spans:
            y = TOP + number * LINE + 12
            yield f'<text class="line" y="{y}" style="animation-delay:{begin:.1f}s">{"".join(spans)}</text>'


def main() -> None:
    """Record the session in a store of its own."""
    with tempfile.TemporaryDirectory() as directory:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        environment = {**kept, "HOME": directory, "TERM": "xterm-256color", "LANG": "C.UTF-8", "USER": "ada"}
        environment |= {"JARVIS_MEMORY_STORE": f"{directory}/memory", "LOGNAME": "ada"}
        made = picture([(command, recorded(command, environment)) for command in SESSION])
    if "--print" in sys.argv[1:]:
        sys.stdout.write(made)
    else:
        TARGET.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()

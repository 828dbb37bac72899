"""Sets the figures that are checked in as tables and a chart, for the documentation; measures nothing.

python -m benchmarks.report
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import chart, retrieval
from benchmarks.harness import RESULTS, ROOT, Goal, amount
from benchmarks.one_caller import CLAIMED
from benchmarks.systems import SYSTEMS
from benchmarks.workloads import WORKLOADS

PAGE = ROOT / "docs" / "explanation" / "benchmarks.md"
CHART = PAGE.with_suffix(".svg")
BEGIN = "<!-- tables: written by `python -m benchmarks.report`, do not edit -->"
END = "<!-- end of the tables -->"
SECTIONS = {
    "cold_start": "A process that has just begun",
    "many_threads": "Many threads of one process",
    "many_processes": "Many processes on one store",
    "growth": "As the store grows",
    "json_file": "The JSON file",
    "awaiting": "Awaiting",
    "asking": "Asking, and many at once",
    "looking_back": "History",
    "forgetting": "Expiry and erasure",
    "encryption": "Encryption",
    "sweeping": "Cleaning up",
    "compression": "Compression",
    "caching": "The cache",
    "postgresql": "PostgreSQL",
    "awaiting_a_server": "Awaiting PostgreSQL",
    "text_search": "Finding by words",
    "meaning": "Finding by meaning",
    "analytics": "Counting what a store holds",
    "moving": "Export, import, verification and repair",
    "retrieval": "Finding the right memory",
}
PEERS = ("diskcache", "langgraph", "tinydb")
CHARTED_AT = 10_000

Results = dict[str, dict[str, Any]]


def read(directory: Path = RESULTS) -> Results:
    """Return what is checked in, by question."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}


def tables(results: Results) -> str:
    """Return all tables, as Markdown."""
    blocks = []
    if "one_caller" in results:
        blocks += [f"![Time of each call relative to a store written by hand]({CHART.name})", *_one_caller(results)]
    for name, title in SECTIONS.items():
        if name in results:
            more = [DETAILS[name](results[name]["results"])] if name in DETAILS else []
            blocks += [f"### {title}", _table_of_goals(results[name]), *more, _where(results[name])]
    return "\n\n".join(blocks) + "\n"


def page(text: str, results: Results) -> str:
    """Return the page `text` with its tables replaced; what stands around them stays."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the tables, between {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{tables(results)}\n{END}{after}"


def picture(results: Results) -> str:
    """Return the chart of one caller's calls, as SVG."""
    found = results["one_caller"]["results"]
    systems = ("jarvis", *PEERS)
    sizes = {each: min(CHARTED_AT, SYSTEMS[each].largest) for each in systems}
    rows = []
    for name, workload in WORKLOADS.items():
        ratios = [found.get(str(sizes[each]), {}).get(name, {}).get(each, {}).get("ratio") for each in systems]
        if ratios[0] is not None:
            rows.append(chart.Row(workload.title, ratios))
    labels = [
        SYSTEMS[each].title + ("" if sizes[each] == CHARTED_AT else f" ({sizes[each]:,} entries)") for each in systems
    ]
    note = f"{CHARTED_AT:,} entries, one caller; median time of a call, by hand = 1; shorter is better"
    return chart.draw("Time of a call relative to SQLite and JSON by hand", note, labels, rows)


def _one_caller(results: Results) -> list[str]:
    found = results["one_caller"]
    blocks = ["### One caller"]
    for size in sorted(map(int, found["results"])):
        blocks.append(f"#### {size:,} entries")
        blocks.append(_table_of_calls(found["results"][str(size)], size))
    blocks.append(
        "Medians; each × is relative to the store by hand. **Bold**: where ours loses, to the store by hand, "
        "to another library, or to its goal."
    )
    blocks.append(" ".join(f"{SYSTEMS[each].title} {SYSTEMS[each].remark}." for each in PEERS))
    return [*blocks, _where(found)]


def _table_of_calls(table: dict[str, Any], size: int) -> str:
    present = {system for systems in table.values() for system in systems}
    others = [system for system in SYSTEMS if system in present and system not in ("raw", "jarvis")]
    has_goals = size in CLAIMED
    heads = ["", "ours", "by hand", "ratio", *(["goal", ""] if has_goals else []), *(SYSTEMS[o].title for o in others)]
    rows = [heads, [":--", *["--:"] * (len(heads) - 1)]]
    for name, systems in table.items():
        ours, raw = systems["jarvis"], systems["raw"]
        row = [WORKLOADS[name].title, amount(ours["median_us"], "µs"), amount(raw["median_us"], "µs")]
        row.append(_marked(amount(ours["ratio"], "x"), is_lost=round(ours["ratio"], 2) > 1))
        if has_goals:
            row += _goal_cells(WORKLOADS[name].goal, ours["ratio"])
        for other in others:
            ratio = systems[other]["ratio"] if other in systems else None
            is_lost = ratio is not None and ratio < ours["ratio"] and not other.startswith("jarvis")
            row.append("–" if ratio is None else _marked(amount(ratio, "x"), is_lost=is_lost))
        rows.append(row)
    return _markdown(rows)


def _goal_cells(goal: tuple[float, float | None] | None, ratio: float) -> list[str]:
    if goal is None:
        return ["–", ""]
    is_met = ratio <= goal[0]
    return [f"≤ {goal[0]:g}×", "met" if is_met else "**missed**"]


def _table_of_goals(found: dict[str, Any]) -> str:
    heads = ["", "entries", "ours", "beside it", "figure", "goal", ""]
    rows = [heads, [":--", "--:", "--:", "--:", "--:", "--:", "--:"]]
    for held in found["goals"]:
        goal = Goal(**{name: value for name, value in held.items() if name != "met"})
        rows.append(
            [
                goal.what,
                "–" if goal.entries is None else f"{goal.entries:,}",
                "–" if goal.ours is None else amount(goal.ours, goal.unit),
                "–" if goal.other is None else f"{amount(goal.other, goal.unit)} ({goal.beside})",
                _marked(amount(goal.figure, goal.figure_unit), is_lost=not goal.is_met),
                goal.wanted,
                "met" if goal.is_met else "**missed**",
            ]
        )
    return _markdown(rows)


def _table_of_threads(found: dict[str, Any]) -> str:
    heads = ["durable creates from", "ours", "median", "99th of 100", "by hand", "median", "99th of 100"]
    rows = [heads, [":--", *["--:"] * (len(heads) - 1)]]
    for name in (each for each in found["jarvis"] if each.endswith(" threads")):
        row = ["1 thread" if name == "1 threads" else name]
        for each in (found["jarvis"][name], found["raw"][name]):
            failed = sum(each["errors"].values())
            row.append(f"{each['creates_a_second']:,.0f} a second" + (f", {failed:,} errors" if failed else ""))
            row += [amount(each["p50_us"], "µs"), amount(each["p99_us"], "µs")]
        rows.append(row)
    return _markdown(rows)


def _table_of_processes(found: dict[str, Any]) -> str:
    heads = ["", "", "creates a second", "reads a second", "slowest to fastest", "longest write", "errors"]
    rows = [heads, [":--", ":--", *["--:"] * (len(heads) - 2)]]
    for name in (each for each in found["jarvis"] if each.endswith(" processes")):
        for system in ("jarvis", "raw"):
            each = found[system][name]
            row = [name, "ours" if system == "jarvis" else "by hand", f"{each['creates_a_second']:,.0f}"]
            row += [f"{each['reads_a_second']:,.0f}", amount(each["slowest_to_fastest"], "x")]
            rows.append([*row, amount(each["worst_write_seconds"], "s"), f"{sum(each['errors'].values()):,}"])
    return _markdown(rows)


def _table_of_levels(found: dict[str, Any]) -> str:
    heads = ["a value of text, at a level of zstd", "smaller by", "to compress", "to decompress", ""]
    uses = {"3": "`auto`", "19": "`max`"}
    rows = [heads, [":--", *["--:"] * (len(heads) - 2), ":--"]]
    for size, levels in found["levels"].items():
        for level, figures in levels.items():
            row = [f"{size}, level {level}", amount(figures["ratio"], "x")]
            row += [amount(figures[name], "µs") for name in ("compress_us", "decompress_us")]
            rows.append([*row, "" if size == "300 B" else uses.get(level, "")])
    return _markdown(rows)


DETAILS = {
    "retrieval": retrieval.table,
    "many_threads": _table_of_threads,
    "many_processes": _table_of_processes,
    "compression": _table_of_levels,
}


def _where(found: dict[str, Any]) -> str:
    machine = found["machine"]
    versions = "; ".join(
        f"{SYSTEMS[system].title}: "
        + ", ".join(f"{name} {number}" for name, number in each.items() if name != "python")
        for system, each in found["versions"].items()
    )
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}. {versions}."
    )


def _marked(text: str, *, is_lost: bool) -> str:
    return f"**{text}**" if is_lost else text


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Write the page's tables and the chart."""
    results = read()
    if not PAGE.exists():
        PAGE.write_text(f"# What it costs: benchmarks\n\n{BEGIN}\n{END}\n")
    PAGE.write_text(page(PAGE.read_text(), results))
    if "one_caller" in results:
        CHART.write_text(picture(results))
    print(f"wrote {PAGE.relative_to(ROOT)} and {CHART.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

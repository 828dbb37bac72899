"""A report of `Store.analytics` as one HTML page: it needs no network and no script, and can be mailed or printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC

from jarvis.interfaces import drawings
from jarvis.interfaces.charts import breakdowns
from jarvis.interfaces.drawings import Column, text
from jarvis.interfaces.readable import greatest, several, share, size, span
from jarvis.model.analytics import Analytics, Bar, Breakdown

_SHOWN = 12
"""How many rows a table or a chart of names has."""

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #59636e; --line: #e3e7ec;
  --ground: #eef1f4; --s0: #2f6fde; --s1: #d98a00; --s2: #c2413a; --s3: #7a57d1; --s4: #9aa4af; }
@media (prefers-color-scheme: dark) { :root { --page: #0e1116; --card: #171b21; --ink: #e8ebef; --soft: #9aa4af;
  --line: #2a3038; --ground: #222830; --s0: #5b9bff; --s1: #e3a32c; --s2: #ee6f66; --s3: #a98bf0; --s4: #5d6773; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.45;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 20px 56px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; letter-spacing: -0.01em; }
h2 { font-size: 15px; margin: 0 0 2px; }
p { margin: 0; } .soft { color: var(--soft); } .small { font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 24px 0 16px; }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 14px 16px; } .tile b { display: block; font-size: 22px; font-weight: 650; line-height: 1.3; }
.grid { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
section { padding: 16px 18px 18px; min-width: 0; } section.wide { grid-column: 1 / -1; }
section > svg, section > table, section > .rows { margin-top: 14px; }
svg { display: block; } .columns { width: 100%; height: auto; }
.columns text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--soft); }
.columns .value { fill: var(--ink); font-weight: 600; }
.grid .grid, line.grid { stroke: var(--line); } .touch { fill: transparent; }
g:hover .touch { fill: var(--ground); }
.ground { fill: var(--ground); } .s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); }
.s3 { fill: var(--s3); } .s4 { fill: var(--s4); }
.rows { display: grid; grid-template-columns: minmax(70px, 11em) 1fr auto auto; gap: 7px 12px; align-items: center;
  font-size: 14px; }
.rows .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.rows .number, td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.rows .more { grid-column: 1 / -1; color: var(--soft); font-size: 13px; }
.bar { width: 100%; height: 10px; border-radius: 3px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 10px; font-size: 13px; }
.key span::before { content: ""; display: inline-block; width: 10px; height: 10px; margin-right: 6px;
  border-radius: 2px; background: var(--dot); }
.scroll { overflow-x: auto; margin-top: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: 13px; }
th, td { padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; } tr:last-child td { border-bottom: 0; }
td.name { overflow-wrap: anywhere; min-width: 9em; } td.first { white-space: nowrap; }
td.id { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; color: var(--soft);
  overflow-wrap: anywhere; }
footer { margin-top: 24px; }
.rows.sizes { grid-template-columns: minmax(70px, 14em) 1fr auto; }
@media (max-width: 720px) { .long .columns { min-width: 640px; } .grid { grid-template-columns: 1fr; }
  main { padding: 24px 12px 40px; }
  .rows { grid-template-columns: minmax(70px, 8em) 1fr auto auto; gap: 7px 8px; }
  .rows.sizes { grid-template-columns: minmax(70px, 12em) 1fr auto; } }
@media print { :root { --page: #ffffff; } body { font-size: 11px; } main { max-width: none; padding: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } h1 { font-size: 20px; } h2 { font-size: 13px; }
  .small, .key, th, .rows .more { font-size: 10px; } .rows, table { font-size: 11px; } td.id { font-size: 9px; }
  .tiles { grid-template-columns: repeat(5, 1fr); gap: 8px; } .tile { padding: 8px 10px; } .tile b { font-size: 15px; }
  .grid { grid-template-columns: 1fr 1fr; gap: 10px; } .rows { grid-template-columns: 9em 1fr auto auto; gap: 4px 8px; }
  .rows.sizes { grid-template-columns: 13em 1fr auto; } section { padding: 10px 12px; }
  th, td { padding: 3px 8px 3px 0; }
  .tile, section, tr { break-inside: avoid; } section.listed { break-inside: auto; } }
"""
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
"""


def page(report: Analytics, title: str) -> str:
    """Return the page of a report.

    Args:
        report: what `jarvis.services.store.Store.analytics` returned.
        title: of the page, such as the path of the store.
    """
    made = report.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = "\n".join(section for section in _sections(report) if section)
    return f"""{_HEAD}<title>{text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header><h1><bdi>{text(title)}</bdi></h1><p class="soft">What this memory holds, as of {made}</p></header>
<div class="tiles">{"".join(_tiles(report))}</div>
<div class="grid">
{sections}
</div>
<footer class="soft small"><p>Names, ids and keys of memories are on this page, and no values.
Sizes of memories are those of their JSON before compression.</p></footer>
</main>
</body>
</html>
"""


def _tiles(report: Analytics) -> Iterator[str]:
    spaces = len(report.namespaces.shares) + report.namespaces.more_names
    figures = [
        (f"{report.memories:,}", "memory" if report.memories == 1 else "memories"),
        (size(report.bytes), "encoded"),
        (size(report.overhead.store_bytes), "on the disk"),
        (f"{spaces:,}", "namespace" if spaces == 1 else "namespaces"),
        (span(report.ages.median_seconds), "median age"),
    ]
    for figure, name in figures:
        yield f'<div class="tile"><b>{figure}</b><span class="soft">{name}</span></div>'


def _section(title: str, note: str, content: str, *, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    said = f'<p class="soft small">{note}</p>' if note else ""
    return f"<section{kind}><h2>{title}</h2>{said}{content}</section>"


def _sections(report: Analytics) -> Iterator[str]:
    yield _growth(report)
    yield _churn(report)
    yield _histogram("Age", "since memories were created", report.ages.histogram if report.memories else [])
    yield _expiry(report)
    for title, breakdown in breakdowns(report):
        yield _breakdown(title, breakdown, report.memories)
    yield _room(report)
    yield from _lists(report)


def _growth(report: Analytics) -> str:
    growth = report.growth
    if not growth.periods:
        return ""
    each = "day" if growth.days == 1 else f"{growth.days:,} days"
    several_of = [
        Column(
            f"{period.start:%d %b}" if growth.days <= 7 else f"{period.start:%b} {period.start.year}",
            f"from {period.start}: {several(period.memories, 'memory')}, {period.total:,} in all",
            (period.memories,),
        )
        for period in growth.periods
    ]
    note = f"{growth.periods[0].start} to {growth.periods[-1].start}, a column for each {each}"
    return _section("Memories created", note, drawings.columns(several_of, title="memories created"), kind="wide")


def _churn(report: Analytics) -> str:
    churn = report.churn
    if not any((churn.created, churn.updated, churn.removed)):
        return ""
    days = [
        Column(
            f"{day.date:%d %b}",
            f"{day.date}: {day.created:,} created, {day.updated:,} updated, {day.removed:,} removed",
            (day.created, day.updated, day.removed),
        )
        for day in churn.days
    ]
    names = [
        f"created, {churn.created:,} in all",
        f"updated, {churn.updated:,} in all",
        f"removed, {churn.removed:,} in all",
    ]
    chart = drawings.columns(days, title="changes by day")
    return _section(
        "Changes", "the last 30 days, and all that the feed of changes has", chart + _key(names), kind="wide"
    )


def _key(names: Sequence[str]) -> str:
    parts = "".join(f'<span style="--dot: var(--s{number})">{text(name)}</span>' for number, name in enumerate(names))
    return f'<div class="key">{parts}</div>'


def _histogram(title: str, note: str, bars: Sequence[Bar]) -> str:
    if not bars:
        return ""
    columns = [
        Column(_shortly(each.name), f"{each.name}: {several(each.memories, 'memory')}", (each.memories,))
        for each in bars
    ]
    return _section(title, note, drawings.columns(columns, title=title, width=drawings.NARROW))


def _shortly(name: str) -> str:
    """Return the name of a bar that ends at a bound as a sign and the bound."""
    bound = name.partition(" ")[2]
    return f"< {bound}" if bound else name


def _expiry(report: Analytics) -> str:
    expiry = report.expiry
    if not report.memories and not expiry.expired:
        return ""
    note = f"{expiry.never:,} of {several(report.memories, 'memory')} never"
    if expiry.expired:
        note += f"; {expiry.expired:,} more have expired, and are not purged yet"
    if not any(each.memories for each in expiry.histogram):
        return _section("Expires", note, "")
    return _histogram("Expires", note, expiry.histogram)


def _breakdown(title: str, breakdown: Breakdown, whole: int) -> str:
    if not breakdown.shares:
        return ""
    shown, hidden = breakdown.shares[:_SHOWN], breakdown.shares[_SHOWN:]
    most = greatest(each.memories for each in shown)
    rows = [
        f'<span class="name" title="{text(each.name)}"><bdi>{text(each.name)}</bdi></span>'
        f"{drawings.bar(each.memories, most)}"
        f'<span class="number" title="{share(each.memories, whole)} of all memories">{each.memories:,}</span>'
        f'<span class="number soft">{size(each.bytes)}</span>'
        for each in shown
    ]
    if more := len(hidden) + breakdown.more_names:
        memories = sum(each.memories for each in hidden) + breakdown.more_memories
        rows.append(f'<span class="more">and {more:,} more, with {several(memories, "memory")}</span>')
    return _section(title, "", f'<div class="rows">{"".join(rows)}</div>')


def _room(report: Analytics) -> str:
    overhead = report.overhead
    figures = [
        ("memories, encoded", report.bytes),
        (f"{overhead.past_states or 0:,} past states, encoded", overhead.past_bytes),
        ("store, on the disk", overhead.store_bytes),
        ("its index of words", overhead.index_bytes),
        ("free in it", overhead.free_bytes),
        ("log, beside it", overhead.log_bytes),
    ]
    known = [(name, amount) for name, amount in figures if amount is not None]
    most = greatest(amount for _, amount in known)
    rows = [
        f'<span class="name">{name}</span>{drawings.bar(amount, most)}<span class="number">{size(amount)}</span>'
        for name, amount in known
    ]
    return _section("Room", "", f'<div class="rows sizes">{"".join(rows)}</div>')


def _lists(report: Analytics) -> Iterator[str]:
    largest = [(size(each.bytes), f"{each.category}/{each.key}", each.namespace, each.id) for each in report.largest]
    yield _table("Largest memories", "", ("size", "memory", "namespace", "id"), largest)
    changed = [
        (f"{each.version:,}", f"{each.category}/{each.key}", each.namespace, each.id)
        for each in report.churn.most_changed
    ]
    yield _table("Changed most", "", ("version", "memory", "namespace", "id"), changed)
    equal = report.duplicates
    note = f"{several(equal.memories, 'memory')} with {several(equal.groups, 'value')}, {size(equal.bytes)} to spare"
    same = [
        (
            f"{each.memories:,} \N{MULTIPLICATION SIGN} {size(each.bytes)}",
            _first(each.ids, each.memories),
            each.namespace,
        )
        for each in equal.largest
    ]
    yield _table("Equal values", note, ("memories", "ids", "namespace"), same)
    if report.near is not None:
        near = [
            (f"{each.memories:,}, {each.similarity:.0%} alike", _first(each.ids, each.memories), each.namespace)
            for each in report.near.largest
        ]
        note = f"{several(report.near.memories, 'memory')} in {several(report.near.groups, 'group')}"
        yield _table("Nearly equal", note, ("memories", "ids", "namespace"), near)


def _first(ids: Sequence[str], whole: int) -> str:
    """Return some ids, and how many more there are."""
    return ", ".join(ids[:2]) + (f" and {whole - 2:,} more" if whole > 2 else "")


def _table(title: str, note: str, heads: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    kinds = {"size": "number", "version": "number", "memories": "first", "memory": "name", "id": "id", "ids": "id"}
    classes = [f' class="{kinds[head]}"' if head in kinds else "" for head in heads]
    head = "".join(
        f"<th{kind if 'number' in kind else ''}>{name}</th>" for name, kind in zip(heads, classes, strict=True)
    )
    lines = "".join(
        "<tr>"
        + "".join(f"<td{kind}><bdi>{text(cell)}</bdi></td>" for cell, kind in zip(row, classes, strict=True))
        + "</tr>"
        for row in rows[:_SHOWN]
    )
    return _section(
        title,
        note,
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>',
        kind="wide listed",
    )

"""The report of a store for people: as a text for terminals, and as a page."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from jarvis.conformance.fixtures import FakeClock
from jarvis.interfaces import charts, readable
from jarvis.interfaces.page import page
from jarvis.model.analytics import Analytics, Overhead
from jarvis.persistent_memory import MemoryModule

HOSTILE = (
    "</title></style><script>alert(1)</script>",
    '" onload="alert(1)',
    "\x1b]0;title\x07\x1b[31mred",
    "line\nbreak\r\x85\u2028",
    "\u202eright to left\u2066",
    "'; DROP TABLE",
    "&lt;escaped&gt;",
    "\u8a18\u61b6" * 40,
    "e\u0301" * 90,
    "long " * 60,
)
VOID = {"meta", "br", "rect", "line"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Analytics:
    """A report in which every text is hostile."""
    clock = FakeClock(datetime(2099, 3, 1, 12, tzinfo=UTC))
    memory = MemoryModule(storage_dir=tmp_path_factory.mktemp("store"), clock=clock)
    for number, name in enumerate(HOSTILE * 2):
        clock.step(days=3)
        part = memory.for_namespace(f"space {number % 3} {name[:40]}")
        named = {"category": name, "key": name, "entity_type": name, "tags": [name, "all"], "module": name}
        memory_id = part.create_memory(**named, value={"secret": "a value"}, ttl=timedelta(days=number + 1))  # type: ignore[arg-type]
        part.create_memory(**named, value={"text": "They like tea with honey in the morning"})  # type: ignore[arg-type]
        part.update_memory(memory_id, value={"secret": f"a value {number % 2}"})
    found = memory.store.analytics(top=100, near=True)
    memory.shutdown()
    return found


class Tags(HTMLParser):
    """Collects the tags of a page, and its text outside of styles."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.opened and self.opened[-1] != "style":
            self.text += data


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.opened == []
    return tags


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("colours", [False, True])
def test_no_line_is_longer_than_the_terminal(report: Analytics, width: int, colours: bool) -> None:
    text = re.sub(r"\x1b\[\d+m", "", charts.text_of(report, width=width, colours=colours))

    for line in text.splitlines():
        assert readable.columns(line) <= width, line


def test_nothing_stored_controls_the_terminal(report: Analytics) -> None:
    text = charts.text_of(report)

    assert [sign for sign in text if not sign.isprintable() and sign != "\n"] == []
    assert "\\u001b" in text
    assert "\\u202e" in text
    text.encode()


def test_colours_are_written_only_if_they_are_allowed(report: Analytics) -> None:
    coloured = charts.text_of(report, colours=True)

    assert set(re.findall(r"\x1b.*?m", coloured)) == {"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m"}
    assert re.sub(r"\x1b\[\d+m", "", coloured) == charts.text_of(report)


def test_bars_are_as_long_as_their_share(report: Analytics) -> None:
    rows = [charts.Row("a", 4, ("x",)), charts.Row("b", 2, ("yy",)), charts.Row("c", 0, ("",))]

    first, second, third = charts.bars(rows, width=60)

    assert first.count("\u2588") == 2 * second.count("\u2588") > 0
    assert (third.count("\u2588"), third.split()) == (0, ["c", "0"])
    assert charts.bars([]) == []


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing(report: Analytics) -> None:
    html = page(report, HOSTILE[0])

    tags = parsed(html)
    assert {tag for tag, _ in tags.seen}.isdisjoint({"script", "link", "img", "iframe", "object", "base", "a", "form"})
    names = {name for _, attributes in tags.seen for name in attributes}
    assert names.isdisjoint({"src", "href", "xlink:href", "srcset", "action"})
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in html
    assert "@import" not in html
    policy = [attributes.get("content") for _, attributes in tags.seen if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_every_text_of_a_page_is_shown_as_it_is(report: Analytics) -> None:
    html = page(report, "it's <mine>")

    shown = parsed(html).text
    assert "it's <mine>" in shown
    for name in HOSTILE:
        assert readable.safe(name) in shown
    assert [sign for sign in html if not sign.isprintable() and sign != "\n"] == []
    html.encode()


def test_a_page_has_no_value(report: Analytics) -> None:
    assert "a value" not in page(report, "store") + charts.text_of(report)
    assert "They like tea" not in page(report, "store") + charts.text_of(report)


def test_an_empty_store_and_unknown_sizes_are_shown(tmp_path: Path, report: Analytics) -> None:
    empty = MemoryModule(storage_dir=tmp_path, backend_type="json").store.analytics()
    unknown = msgspec.structs.replace(report, overhead=Overhead(None, None, None, None, None, None))

    for each in (empty, unknown):
        parsed(page(each, "store"))
        assert "memories" in charts.text_of(each)
    assert "0 memories" in charts.text_of(empty)
    assert "None" not in charts.text_of(unknown) + page(unknown, "store")


def test_a_page_of_many_names_is_short(report: Analytics) -> None:
    assert len(page(report, "store")) < 100_000

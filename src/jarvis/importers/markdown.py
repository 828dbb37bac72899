"""The kind ``markdown``: notes with YAML front matter, a file or a directory of them.

Sources: Obsidian's properties (https://help.obsidian.md/properties), the notes of basic-memory
(https://docs.basicmemory.com/concepts/knowledge-format), and files such as CLAUDE.md without any front matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from jarvis.importers.source import Item, OtherKindError, Unmapped

_SUFFIXES = (".md", ".markdown")
_CREATED = ("created", "created_at", "date")
_CHANGED = ("updated", "updated_at", "modified", "last_updated")
_FENCE = "---"


def looks_like(path: Path) -> bool:
    """Tell whether it is a note, or a directory with one."""
    return _is_note(path) or any(map(_is_note, path.rglob("*")))


def read(path: Path) -> Iterator[Item | Unmapped]:
    """Yield each note; its key is the path below the directory. Hidden files and directories are left out."""
    if path.is_file() and not _is_note(path):
        raise OtherKindError(f"its name ends with none of {', '.join(_SUFFIXES)}")
    path.stat()
    is_other = True
    for file in [path] if path.is_file() else _files(path):
        name = file.name if file == path else file.relative_to(path).as_posix()
        if not _is_note(file):
            yield Unmapped(name, "is no note")
            continue
        is_other = False
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            yield Unmapped(name, "is not UTF-8")
            continue
        except OSError as error:
            yield Unmapped(name, f"cannot be read: {error.strerror}")
            continue
        yield from _note(name, text, file.stat().st_mtime)
    if is_other:
        raise OtherKindError("no file in it is a note")


def _is_note(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _files(path: Path) -> Iterator[Path]:
    for file in sorted(path.rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
            yield file


def _note(name: str, text: str, changed: float) -> Iterator[Item | Unmapped]:
    properties: dict[str, Any] = {}
    body, front = text, _front_matter(text)
    if front is not None:
        try:
            properties, body = _properties(front[0]), front[1]
        except ValueError as error:
            yield Unmapped(name, f"{error}; the note was stored with it as text")
    texts = {each: properties.pop(each) for each in ("type", "title") if isinstance(properties.get(each), str)}
    tags = _tags(properties.get("tags"))
    if tags:
        del properties["tags"]
    named = [next((properties[each] for each in names if each in properties), None) for names in (_CREATED, _CHANGED)]
    created, updated = map(_moment, named)
    yield Item(
        place=name,
        category="notes",
        key=name,
        value={
            "title": texts.get("title", Path(name).stem),
            "text": body,
            **({"properties": properties} if properties else {}),
        },
        entity_type=texts.get("type", "note"),
        tags=tags,
        created_at=created,
        timestamp=updated or created or datetime.fromtimestamp(changed, UTC),
    )


def _front_matter(text: str) -> tuple[str, str] | None:
    """Return what stands between the fences at the top, and the rest; None if there are none."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != _FENCE:
        return None
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == _FENCE:
            return "".join(lines[1:number]), "".join(lines[number + 1 :]).lstrip("\n")
    return None


def _properties(front: str) -> dict[str, Any]:
    """Return the properties; raise `ValueError` with the reason if there are none."""
    import yaml

    try:
        found = yaml.safe_load(front)
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 2})" if error.problem_mark else ""
        raise ValueError(f"the front matter is no YAML{line}") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError):  # of `2024-13-01`
        raise ValueError("the front matter is no YAML") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError("the front matter is no mapping of names")
    return found


def _tags(found: object) -> list[str]:
    """Return the tags of a list, or of a text with commas or blanks between them, without the sign ``#``; or none."""
    if isinstance(found, str):
        found = found.replace(",", " ").split()
    if not isinstance(found, list) or not all(isinstance(each, str | int | float) for each in found):
        return []
    return list(dict.fromkeys(filter(None, (str(each).lstrip("#") for each in found))))


def _moment(found: object) -> datetime | None:
    if isinstance(found, str):
        try:
            return datetime.fromisoformat(found)
        except ValueError:
            return None
    if isinstance(found, date) and not isinstance(found, datetime):
        return datetime.combine(found, time())
    return found if isinstance(found, datetime) else None

"""The kind ``chatgpt``: the file ``conversations.json`` of an export from ChatGPT, or the directory it is in.

The format is not documented by OpenAI; this reads that of the exports of 2023 to 2026: a list of conversations, each
with a tree of messages (``mapping``), of which ``current_node`` ends the branch that was last seen. Others describe it:
https://github.com/mitkury/chatgpt-export-parser/blob/main/docs/chatgpt-data-export-format.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jarvis.importers.source import Item, OtherKindError, Unmapped, beginning, plausible

_NAME = "conversations.json"


def looks_like(path: Path) -> bool:
    """Tell whether a file begins as a list of conversations."""
    first = beginning(_file(path))
    return first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") and b'"mapping"' in first


def read(path: Path) -> Iterator[Item | Unmapped]:
    """Yield each conversation: the texts of its last branch, as one memory whose key is its id."""
    file = _file(path)
    try:
        found = json.loads(file.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise OtherKindError(f"it is no JSON (line {error.lineno})") from None
    except (ValueError, RecursionError):
        raise OtherKindError("it is no JSON in UTF-8") from None
    if not isinstance(found, list) or not any(isinstance(each, dict) and "mapping" in each for each in found):
        raise OtherKindError("it is no list of conversations")
    for number, conversation in enumerate(found, 1):
        place = f"{file.name}, conversation {number}"
        if not isinstance(conversation, dict) or not isinstance(conversation.get("mapping"), dict):
            yield Unmapped(place, "is no conversation")
            continue
        yield from _conversation(place, conversation)


def _file(path: Path) -> Path:
    return path / _NAME if path.is_dir() else path


def _conversation(place: str, conversation: dict[str, Any]) -> Iterator[Item | Unmapped]:
    key = conversation.get("conversation_id") or conversation.get("id")
    if not isinstance(key, str):
        yield Unmapped(place, "has no id")
        return
    nodes, messages, left_out = conversation["mapping"], [], 0
    branch = _branch(nodes, conversation.get("current_node"))
    for node in branch:
        message, without_text = _message(nodes[node].get("message"))
        messages += [message] if message else []
        left_out += without_text
    others = sum(_message(_part(nodes, node).get("message")) != ({}, 0) for node in nodes.keys() - branch)
    if left_out:
        yield Unmapped(place, f"{left_out} parts of messages are no text, such as images")
    if others:
        yield Unmapped(place, f"{others} messages are of branches that were left")
    title = conversation.get("title")
    yield Item(
        place=place,
        category="conversations",
        key=key,
        value={"title": title if isinstance(title, str) else "", "messages": messages},
        entity_type="conversation",
        entity_id=key,
        created_at=_moment(conversation.get("create_time")),
        timestamp=_moment(conversation.get("update_time")),
    )


def _branch(nodes: dict[str, Any], last: object) -> list[str]:
    """Return the nodes from the root to `last`, or to the last node of the file if that is none."""
    node = last if isinstance(last, str) and last in nodes else next(reversed(nodes), None)
    branch: dict[str, None] = {}
    while isinstance(node, str) and node not in branch and isinstance(nodes.get(node), dict):
        branch[node] = None
        node = nodes[node].get("parent")
    return [*branch][::-1]


def _message(found: Any) -> tuple[dict[str, Any], int]:
    """Return role, text and time of a message, {} if it is empty or hidden; and how many of its parts are no text."""
    author, content, told = (_part(found, name) for name in ("author", "content", "metadata"))
    if told.get("is_visually_hidden_from_conversation"):
        return {}, 0
    parts = content.get("parts", [content["text"]] if "text" in content else [])
    texts = [part for part in parts if isinstance(part, str)] if isinstance(parts, list) else []
    left_out = len(parts) - len(texts) if isinstance(parts, list) else 1
    text = "\n".join(texts)
    if not text.strip():
        return {}, left_out
    moment = plausible(_moment(found.get("create_time")))
    return {"role": author.get("role"), "text": text, **({"at": moment} if moment else {})}, left_out


def _part(found: Any, name: str) -> dict[str, Any]:
    """Return the object of this name in another one, {} if there is none."""
    part = found.get(name) if isinstance(found, dict) else None
    return part if isinstance(part, dict) else {}


def _moment(seconds: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, (int, float)) else None
    except (OverflowError, ValueError, OSError):
        return None

"""What a server says in reply to a call, as a result that a model can read: text and passages within a limit of bytes."""

import json
from collections.abc import Iterator
from typing import Any

from cappella.tools.base import Passage, ToolResult
from cappella.types import Json

MAX_PASSAGES = 50
MAX_NAME_CHARACTERS = 300
"""Of a passage's path, and of its title."""


def read(server: str, reply: Json, max_bytes: int) -> ToolResult:
    """The result. What a model cannot read, such as an image, is named."""
    content = reply.get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    passages = [passage for block in blocks if (passage := _passage(server, block))]
    text = "\n".join(_texts(block for block in blocks if _passage(server, block) is None))
    structured = reply.get("structuredContent")
    # Servers are asked to repeat it as text; most do.
    if structured is not None and not text and not passages:
        text = json.dumps(structured, ensure_ascii=False)
    if len(passages) > MAX_PASSAGES:
        text = f"{text}\n[only the first {MAX_PASSAGES} of {len(passages)} passages are shown]".lstrip()
    return limited(ToolResult(text, reply.get("isError") is True, tuple(passages[:MAX_PASSAGES])), max_bytes)


def limited(result: ToolResult, max_bytes: int) -> ToolResult:
    """The result within a limit: what is cut is told, in its text or its last passage."""
    named = [text for each in result.passages for text in (each.path, each.title, each.text)]
    whole_bytes = sum(map(_bytes, [result.text, *named]))
    if whole_bytes <= max_bytes:
        return result
    text, left = _cut(result.text, max_bytes)
    passages = []
    for passage in result.passages:
        left -= _bytes(passage.path) + _bytes(passage.title)
        if left <= 0:
            break
        kept, left = _cut(passage.text, left)
        passages.append(Passage(passage.documents, passage.path, passage.place, kept, passage.title))
    mark = f"[cut: this result has {whole_bytes} bytes, and only its first {max_bytes} are shown]"
    return ToolResult(f"{text}\n{mark}" if text else mark, result.is_error, tuple(passages))


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def _cut(text: str, max_bytes: int) -> tuple[str, int]:
    """The beginning of a text, and how many bytes are left."""
    encoded = text.encode(errors="replace")
    return encoded[:max_bytes].decode(errors="ignore"), max(0, max_bytes - len(encoded))


def _passage(server: str, block: Json) -> Passage | None:
    """The text of a document that is in the reply itself."""
    resource = block.get("resource")
    if block.get("type") != "resource" or not isinstance(resource, dict) or not isinstance(resource.get("text"), str):
        return None
    path, title = (str(resource.get(key) or "")[:MAX_NAME_CHARACTERS] for key in ("uri", "title"))
    return Passage(server, path, "", resource["text"], title)


def _texts(blocks: Iterator[Json]) -> Iterator[str]:
    for block in blocks:
        match block:
            case {"type": "text", "text": str(text)}:
                yield text
            case {"type": "image" | "audio" as kind}:
                yield f"[{kind}, {_size(block)}, which you cannot read]"
            case {"type": "resource", "resource": dict(resource)}:
                yield f"[file {resource.get('uri')}, {resource.get('mimeType')}, which you cannot read]"
            case {"type": "resource_link"}:
                about = block.get("description") or block.get("title") or block.get("name") or ""
                yield f"[link to {block.get('uri')}: {about}]"
            case _:
                yield f"[content of the kind {str(block.get('type'))[:40]!r}, which you cannot read]"


def _size(block: dict[str, Any]) -> str:
    data = block.get("data")
    return f"{block.get('mimeType')}, {len(data) * 3 // 4 if isinstance(data, str) else 0} bytes"

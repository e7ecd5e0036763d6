"""Limits of what MCP servers list and say."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cappella.tools.mcp import listing, replies, session, stdio
from support.scripted_engine import Json
from support.tool_server import running, until


def test_a_schema_whose_references_double_is_left_out_and_told() -> None:
    parts = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": {"type": "object"}}
    doubling = {"type": "object", "allOf": [{"$ref": "#/$defs/d0"}], "$defs": parts}
    tree = {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#"}}}}
    tools, notes = listing.read("s", [{"name": "a", "inputSchema": doubling}, {"name": "b", "inputSchema": tree}])
    assert list(tools) == ["b"]
    assert "references" in notes[0]


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "twice",
    [
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"anyOf": [{"$ref": "#/$defs/again"}, {"not": {"$ref": "#"}}]},
        {"$ref": "#", "if": {"properties": {"a": {"$ref": "#"}}}},
    ],
)
def test_arguments_for_which_a_recursive_schema_doubles_are_refused_unchecked(twice: Json) -> None:
    again = {"again": {"type": "object", "properties": {"a": twice}}}
    schema = {"type": "object", "properties": {"a": twice}, "$defs": again}
    tools, notes = listing.read("s", [{"name": "doubling", "inputSchema": schema}])
    assert (list(tools), notes) == (["doubling"], [])
    assert tools["doubling"].mistakes(nested(3)) is None
    assert "too deep" in str(tools["doubling"].mistakes(nested(16)))


def test_deep_arguments_of_a_recursive_schema_that_does_not_double_are_checked() -> None:
    one_of = [
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/tree"}, "b": {"$ref": "#/$defs/tree"}}},
        {"type": "null"},
    ]
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/tree"}}, "$defs": {"tree": {"anyOf": one_of}}}
    tools, _ = listing.read("s", [{"name": "tree", "inputSchema": schema}])
    assert tools["tree"].mistakes(nested(90)) is None
    assert "too deep" not in str(tools["tree"].mistakes({"a": 3}))


KINDS = ("text", "list", "group")


@pytest.mark.parametrize("kinds", [KINDS, KINDS[::-1]], ids=["last", "first"])
@pytest.mark.parametrize("property_name", ["akind", "zkind"])
@pytest.mark.parametrize("choice", [lambda kind: {"const": kind}, lambda kind: {"enum": [kind]}], ids=["const", "enum"])
def test_a_branch_for_another_constant_does_not_multiply(kinds: Any, property_name: str, choice: Any) -> None:
    below = {"type": "array", "items": {"$ref": "#/$defs/node"}}
    one_of = [{"properties": {"parts": below, property_name: choice(kind)}} for kind in kinds]
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/node"}}, "$defs": {"node": {"oneOf": one_of}}}
    tools, _ = listing.read("s", [{"name": "tree", "inputSchema": schema}])

    def tree(levels: int, kind: str = "group") -> Json:
        return {property_name: kind, "parts": [tree(levels - 1) for _ in range(3)] if levels else []}

    assert tools["tree"].mistakes({"a": tree(4)}) is None
    assert "do not fit" in str(tools["tree"].mistakes({"a": tree(4, "nothing")}))
    assert str(listing.MAX_APPLIED) in str(tools["tree"].mistakes({"a": tree(7)}))


async def test_tools_after_the_last_page_that_is_read_are_told_to_be_left_out(tmp_path: Path) -> None:
    async with running(tmp_path, "endless") as small:
        assert len(small.tools) == session.MAX_PAGES
        assert any(f"more than {session.MAX_PAGES} pages" in note for note in small.details.notes)


def test_uris_titles_and_the_number_of_passages_count_for_the_limit_of_a_result() -> None:
    long = {"type": "resource", "resource": {"uri": "u" * 100_000, "title": "t" * 100_000, "text": "x"}}
    result = replies.read("s", {"content": [long] * 60}, 1 << 20)
    assert len(result.passages) == replies.MAX_PASSAGES
    assert "60" in result.text
    assert {(len(each.path), len(each.title)) for each in result.passages} == {(300, 300)}
    assert len(replies.read("s", {"content": [long] * 60}, 1000).passages) == 1


async def test_why_a_server_is_away_is_told_to_operators_and_not_to_models(tmp_path: Path) -> None:
    async with running(tmp_path, "ends", delays_s=(60.0,)) as small:
        assert "no settings found" in str(small.problem)
        result = await small.call("echo", {"text": "Hello."})
    assert result.is_error
    assert "settings" not in result.text


async def test_a_server_that_leaves_its_input_unread_is_given_up_and_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, "deaf", delays_s=(60.0,), timeout_s=0.5) as small:
        monkeypatch.setattr(stdio, "WRITE_TIMEOUT_S", 1.0)
        results = await asyncio.gather(*(small.call("echo", {"text": "x" * 500_000}) for _ in range(2)))
        assert all("0.5 s" in result.text for result in results)
        await until(lambda: small.problem is not None)
        assert "input" in str(small.problem)


async def test_a_server_serves_before_it_has_answered_what_prompts_it_has(tmp_path: Path) -> None:
    async with running(tmp_path, "no_prompts") as small:
        assert (await small.call("echo", {"text": "Hello."})).text == "Hello."
        assert small.details.resources == 0


async def test_the_pages_of_a_list_have_a_limit_together(tmp_path: Path) -> None:
    async with running(tmp_path, "pages", delays_s=(60.0,)) as small:
        assert f"its list of tools has more than {session.MAX_LIST_BYTES >> 20} MiB" in str(small.problem)

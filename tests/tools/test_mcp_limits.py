"""Limits of what MCP servers list and say."""

from cappella.tools.mcp import listing


def test_a_schema_whose_references_double_is_left_out_and_told() -> None:
    parts = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": {"type": "object"}}
    doubling = {"type": "object", "allOf": [{"$ref": "#/$defs/d0"}], "$defs": parts}
    tree = {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#"}}}}
    tools, notes = listing.read("s", [{"name": "a", "inputSchema": doubling}, {"name": "b", "inputSchema": tree}])
    assert list(tools) == ["b"]
    assert "references" in notes[0]

"""The scripted model that plays the clever one: it calls the tools that it is given in a sensible order, then says so."""

import json
import re
from typing import Any

from support.fake_engines import ANALYSIS, last_message
from support.scripted_engine import Json, Script

READS = ("Read", "read", "read_file")
EDITS = ("Edit", "edit", "replace")
SHELLS = ("exec_command", "shell_command", "shell", "Bash", "bash")
OLD, NEW = "blue", "green"
ANY_OBJECT = {"city": "Paris", "answer": "Paris"}
DONE = "Done: the word is green now."
FILE = re.compile(r"Read the file (/\S+?notes\.txt)")


def play(body: Json) -> Script:
    """The reply to one call of an engine."""
    if "Now compare the answers" in last_message(body):
        return Script((json.dumps(ANALYSIS),))
    if choice := (body.get("structured_outputs") or {}).get("choice"):
        return Script((choice[0],))
    if call := _call(body):
        # Agents ignore a call whose id they have seen before.
        return Script((), calls=(call,), call_id=f"call_{_step(body)}", finish_reason="tool_calls")
    if schema := _schema(body):
        return Script((json.dumps(instance(schema, schema) or ANY_OBJECT),))
    if "SEARCH/REPLACE" in str(body["messages"]) or "*file listing*" in str(body["messages"]):
        return Script((f"notes.txt\n```\nThe sky is {NEW}.\n```\n",))
    return Script((DONE[:5], DONE[5:]))


def _schema(body: Json) -> Json | None:
    structured = body.get("structured_outputs") or {}
    form = (body.get("response_format") or {}).get("json_schema", {}).get("schema") or structured.get("json")
    return json.loads(form) if isinstance(form, str) else form


def _call(body: Json) -> tuple[str, str] | None:
    """The next tool's name and arguments; None if it is time to speak."""
    tools = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in body.get("tools") or ()}
    choice = body.get("tool_choice")
    if not tools or choice == "none":
        return None
    if isinstance(choice, dict):
        return _filled(choice["function"]["name"], tools)
    step = _step(body)
    if task := FILE.search(str(body["messages"])):
        return _edit_step(step, task[1], tools)
    names = list(tools)
    if step == 0 or choice == "required":
        return _filled(names[min(step, len(names) - 1)], tools)
    return None


def _step(body: Json) -> int:
    """How many results of tools the model has seen."""
    return sum(message["role"] == "tool" for message in body["messages"])


def _edit_step(step: int, path: str, tools: dict[str, Json]) -> tuple[str, str] | None:
    """Read, change, read again."""
    read, edit, shell = (next((name for name in names if name in tools), None) for names in (READS, EDITS, SHELLS))
    if step > 2:
        return None
    if read and edit:
        return _with_path(edit, path, tools, OLD, NEW) if step == 1 else _with_path(read, path, tools)
    if not shell:
        return None
    command = f"sed -i s/{OLD}/{NEW}/ {path}" if step == 1 else f"cat {path}"
    key = next(key for key in ("cmd", "command") if key in tools[shell]["properties"])
    is_list = tools[shell]["properties"][key].get("type") == "array"
    return shell, json.dumps({key: ["bash", "-lc", command] if is_list else command})


def _with_path(name: str, path: str, tools: dict[str, Json], *texts: str) -> tuple[str, str]:
    """The call with a path and, for a change, the old and the new text, under the words of this tool."""
    words: Any = tools[name]["properties"]
    wanted = (
        ("file_path", "filePath", "path", "absolute_path"),
        ("old_string", "oldString"),
        ("new_string", "newString"),
    )
    pairs = zip(wanted, (path, *texts), strict=False)
    return name, json.dumps({next(word for word in known if word in words): text for known, text in pairs})


def _filled(name: str, tools: dict[str, Json]) -> tuple[str, str]:
    return name, json.dumps(instance(tools[name], tools[name]))


def instance(schema: Json, root: Json) -> Any:
    """A small value that fits a schema."""
    if "$ref" in schema:
        return instance(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return instance(schema[word][0], root)
    if "enum" in schema or "const" in schema:
        return schema.get("const") or schema["enum"][0]
    match schema.get("type"):
        case "object" | None:
            return {name: instance(each, root) for name, each in (schema.get("properties") or {}).items()}
        case "array":
            return [instance(schema.get("items") or {"type": "string"}, root)]
        case "integer" | "number":
            return 7
        case "boolean":
            return True
        case "null":
            return None
    return "Paris"

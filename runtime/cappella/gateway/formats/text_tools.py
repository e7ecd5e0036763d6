"""Tools that take a text (`custom`), as function tools with one string, and the names of tools inside namespaces."""

import json

from cappella.types import Json

SEPARATOR = "__"
"""vLLM joins a namespace and a tool's name alike."""


def flat_name(namespace: str | None, name: str) -> str:
    """The name by which a model calls a tool of a namespace."""
    return f"{namespace}{SEPARATOR}{name}" if namespace else name


def function_of(name: str, description: str | None, grammar: Json | None) -> Json:
    """The function that stands for a tool that takes a text; the text's grammar, if it has one, is told in words."""
    text: Json = {"type": "string"}
    if grammar and grammar.get("definition"):
        text["description"] = f"Text by this {grammar.get('syntax', '')} grammar:\n{grammar['definition']}"
    described = {"description": description} if description else {}
    parameters = {"type": "object", "properties": {"input": text}, "required": ["input"], "additionalProperties": False}
    return {"name": name, **described, "parameters": parameters}


def arguments_of(text: str) -> str:
    """The arguments of such a function for this text."""
    return json.dumps({"input": text}, ensure_ascii=False)


def text_of(arguments: str) -> str:
    """The text in such arguments; what is not of their form is the text itself."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    text = value.get("input") if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments

"""The modules of the web page as one script: a browser asks once for it, and not once for each of them, level by level."""

import json
import re
from graphlib import TopologicalSorter
from pathlib import Path

_IMPORT = re.compile(r'^import (\{[^}]*\}|\* as \w+) from "\./([\w.]+)";$', re.MULTILINE)
_LATER = re.compile(r'\bimport\("\./([\w.]+)"\)')
_EXPORT = re.compile(r"^export (?=(?:async function|function|const|class) (\w+))", re.MULTILINE)
_UNREAD = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
# No module has these names.
_BEGIN = "const $made = {};\nconst $use = (name) => ($made[name] ??= $modules[name]());\nconst $modules = {\n"


def joined(folder: Path) -> bytes:
    """The modules of `folder` as one, which runs main.js; each of the others runs when it is first imported.

    Raises ValueError for modules that import each other, and for an import or export in a form that is not read here.
    """
    texts = {path.name: path.read_text() for path in folder.glob("*.js")}
    order = TopologicalSorter({name: {found[2] for found in _IMPORT.finditer(text)} for name, text in texts.items()})
    modules = "".join(_as_function(name, texts[name]) for name in order.static_order())
    return f'{_BEGIN}{modules}}};\n$use("main.js");\n'.encode()


def _as_function(name: str, text: str) -> str:
    """A module as a function that returns what it exports."""
    exports = ", ".join(found[1] for found in _EXPORT.finditer(text))
    text = _EXPORT.sub("", _LATER.sub(r'(async () => $use("\1"))()', _IMPORT.sub(_imported, text)))
    if found := _UNREAD.search(text):
        raise ValueError(f"{name}: this form of import or export is not read: {found[0]}")
    return f"{json.dumps(name)}: () => {{\n{text}\nreturn {{ {exports} }};\n}},\n"


def _imported(found: re.Match[str]) -> str:
    names = found[1].removeprefix("* as ").replace(" as ", ": ")
    return f'const {names} = $use("{found[2]}");'

"""Texts of the operator's own in the place of ours in the judge's prompts: each from a file, with checked placeholders."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from cappella.config import weights
from cappella.types import Frozen

MAX_TEXT_CHARS = 20_000
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_KNOWN = {"introduce": ("nonce",), "compare": ("criteria",), "write": ("criteria",), "choose": ("criteria",)}
_REQUIRED = {"introduce": ("nonce",)}


class OwnText(Frozen):
    """A text of the operator's own; a bundle has it without its file."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]


def _read(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    path = weights.below((info.context or {}).get("folder", Path()), value)
    try:
        return {"text": path.read_text().strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error


Text = Annotated[OwnText, BeforeValidator(_read, json_schema_input_type=str | OwnText)]


class OwnPrompts(Frozen):
    """A file for each text that is replaced. `introduce` has the placeholder `{nonce}`, those that ask for a reply may have `{criteria}`."""

    introduce: Text | None = None
    compare: Text | None = None
    write: Text | None = None
    cite: Text | None = None
    choose: Text | None = None
    agree: Text | None = None
    group: Text | None = None

    @model_validator(mode="after")
    def _placeholders_are_known(self) -> "OwnPrompts":
        for name, text in self.texts.items():
            found, known = _PLACEHOLDER.findall(text), _KNOWN.get(name, ())
            if unknown := [each for each in found if each not in known]:
                may = f"it may have {{{known[0]}}}" if known else "it has none"
                raise ValueError(f"{name}: there is no placeholder {{{unknown[0]}}}: {may}")
            if missing := [each for each in _REQUIRED.get(name, ()) if each not in found]:
                raise ValueError(
                    f"{name}: the placeholder {{{missing[0]}}} is missing: the marks around answers have it"
                )
        return self

    @property
    def texts(self) -> dict[str, str]:
        given: dict[str, Any] = {name: getattr(self, name) for name in OwnPrompts.model_fields}
        return {name: each.text for name, each in given.items() if each}

"""Malformed requests of careless or hostile clients, reproducible by seed."""

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from cappella.gateway.formats.policy_models import MODELS
from support.bad_http import SPOIL_BYTES, RawRequest
from support.request_samples import CATASTROPHES, HOSTILE, IMAGES, SCHEMAS, TOOL, Json, good, listed


def malformed(rng: Random, secret: str) -> RawRequest:
    """One malformed request, with the secret in it unless the malformation removed it."""
    path, body = good(rng, secret)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        body = rng.choice(_SPOIL_VALUES)(rng, body)
    raw = RawRequest(b"POST", path.encode(), _dumped(body))
    if rng.random() < 0.5:
        raw = rng.choice(SPOIL_BYTES)(rng, raw)
    return raw


def _dumped(body: Json) -> bytes:
    """Python's JSON, which may contain NaN and lone surrogates."""
    return json.dumps(body).encode()


def _places(value: Json, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in children:
        yield (*above, key)
        yield from _places(each, (*above, key))


def _changed(rng: Random, body: Json, change: Callable[[Any, Any], None]) -> Json:
    """The body with one random value changed."""
    places = list(_places(body))
    if not places:
        return body
    *above, key = rng.choice(places)
    top = holder = body.copy()
    for step in above:
        holder[step] = holder = holder[step].copy()
    change(holder, key)
    return top


def _swap(rng: Random, body: Json) -> Json:
    value = rng.choice(HOSTILE)
    return _changed(rng, body, lambda holder, key: holder.__setitem__(key, value))


def _drop(rng: Random, body: Json) -> Json:
    return _changed(rng, body, lambda holder, key: holder.pop(key))


def _add(rng: Random, body: Json) -> Json:
    known = {name for fields in MODELS.values() for name in fields.rules}
    name = rng.choice([*sorted(known), "fusion", "plugins", "", "\x00", "x" * 999])
    return {**body, name: rng.choice(HOSTILE)}


def _form(rng: Random, body: Json) -> Json:
    schema = rng.choice(SCHEMAS)
    named = {"name": "x", "schema": schema}
    forms: tuple[Json, ...] = (
        {"structured_outputs": {"regex": rng.choice(CATASTROPHES)}},
        {"structured_outputs": {"json": rng.choice((schema, json.dumps(schema), listed(3000), "{"))}},
        {"structured_outputs": {"choice": ["a"] * rng.choice((0, 1, 2000))}},
        {"structured_outputs": {"grammar": "root ::= root root | " + "x" * rng.choice((1, 5000))}},
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        {"response_format": {"type": "json_schema", "json_schema": named}},
        {"response_format": {"type": rng.choice(("json_object", "grammar", "", "json_schema"))}},
        {"text": {"format": {"type": "json_schema", **named}}},
        {"tools": [TOOL] * rng.choice((0, 1, 129, 600))},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]},
        {"tools": [{"name": "f", "input_schema": schema}]},
        {"n": rng.choice((0, -1, 17, 10**9, 10**30, 2.0, "3", True, [1]))},
        {"stop": ["x" * rng.choice((1, 300))] * rng.choice((5, 17, 2000))},
        {"prompt": [["a"], "b", 3] * rng.choice((1, 30, 3000))},
        {
            "model": rng.choice(
                (
                    "",
                    "ann\x00",
                    "cappella/",
                    "cappella/../ann",
                    "x" * 9000,
                    "ann ",
                    "ANN",
                    "judge\n",
                    "cappella/default\x00",
                )
            )
        },
        {"chat_template_kwargs": {"chat_template": "{{ range(10**9) | list }}"}},
        {
            "fusion": {
                "analysis_models": ["ann"] * 8,
                "samples": rng.choice((1, 16, 10**6)),
                "layers": rng.choice((1, 99)),
            }
        },
        {"fusion": {"analysis_models": ["cappella/default"], "model": rng.choice(("nobody", "judge", "\x00"))}},
    )
    return {**body, **rng.choice(forms)}


def _image(rng: Random, body: Json) -> Json:
    url = rng.choice(IMAGES)
    part = rng.choice(
        (
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "input_image", "image_url": url},
            {"type": "image", "source": {"type": "url", "url": url}},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "A" * rng.choice((1, 9999))},
            },
            {"type": "video_url", "video_url": {"url": url}},
        )
    )
    turn = {"role": rng.choice(("user", "assistant", "tool", "system")), "content": [part] * rng.choice((1, 1, 40))}
    field = "input" if "input" in body else "messages"
    return {**body, field: [turn]}


_SPOIL_VALUES: tuple[Callable[[Random, Json], Json], ...] = (_swap, _swap, _swap, _drop, _add, _form, _form, _image)

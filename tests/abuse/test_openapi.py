"""The OpenAPI document is complete and true: all routes and error codes, and no undocumented behaviour."""

import ast
import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

import cappella
from cappella.auth.keys import KeyStore
from cappella.config import Batch
from cappella.gateway import errors, openapi
from cappella.gateway.app import create_app
from cappella.gateway.endpoints import DOCUMENT_PATH
from cappella.gateway.formats.policy_models import MODELS
from support.fake_engines import FakeEngines, gateway_config, serving
from support.recorded_gateway import recording_config
from support.strict_gateway import make_strict, with_keys

Json = dict[str, Any]
EXAMPLES = settings().max_examples // 10
"""Of each operation, with valid values and with others."""
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(params=[False, True], ids=["unkeyed", "keyed"])
async def served(
    request: pytest.FixtureRequest, fake_engines: FakeEngines, tmp_path: Path
) -> AsyncIterator[tuple[str, str | None]]:
    """A gateway's URL, with a key for everything if it has keys; then it keeps responses and batches, too."""
    keys = tmp_path / "keys.sqlite"
    key = KeyStore(keys).create("root", ["run", "admin"]) if request.param else None
    config = gateway_config()
    if request.param:
        batch = Batch(folder=tmp_path / "batches")
        config = with_keys(recording_config(tmp_path, runs={"content": True}, batch=batch), keys)
    async with serving(make_strict(fake_engines), config) as url:
        yield url, key


async def read(url: str, key: str | None) -> Json:
    headers = {"x-api-key": key} if key else {}
    async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{url}{DOCUMENT_PATH}") as reply:
        assert reply.status == 200
        return dict(await reply.json())


async def test_every_schema_and_the_whole_document_are_valid(served: tuple[str, str | None]) -> None:
    written = await read(*served)
    schemathesis.openapi.from_dict(written).validate()
    for schema in written["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    assert ("security" in written) == (served[1] is not None)


async def test_the_document_needs_a_key(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with (
        serving(fake_engines, with_keys(gateway_config(), tmp_path / "keys.sqlite")) as url,
        aiohttp.ClientSession() as http,
        http.get(f"{url}{DOCUMENT_PATH}") as reply,
    ):
        assert reply.status == 401


async def test_the_document_is_made_when_it_is_read(fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    def document(keyed: bool) -> Json:
        made.append(keyed)
        return {}

    monkeypatch.setattr(openapi, "document", document)
    async with serving(fake_engines, gateway_config()) as url:
        assert made == []
        assert await read(url, None) == {}
        assert made == [False]


async def test_exactly_the_routes_are_documented(fake_engines: FakeEngines) -> None:
    fake_engines.serve(gateway_config())
    app = create_app(gateway_config(), fake_engines)  # type: ignore[arg-type]
    # The page's own files are no part of the API.
    api: list[Any] = [route for route in app.routes if route.include_in_schema]  # type: ignore[attr-defined]
    routes = {(route.path_format, method.lower()) for route in api for method in route.methods}
    written = openapi.document(keyed=True)
    assert {(path, method) for path, methods in written["paths"].items() for method in methods} == routes


def test_every_raised_code_is_documented() -> None:
    package = Path(cappella.__file__).parent
    known = {code for codes in errors.codes().values() for code in codes}
    raised = {code for path in package.rglob("*.py") for code in _codes_in(path)}
    assert {"unknown_field", "scope_missing", "body_too_large"} <= raised
    assert raised <= known


def _codes_in(path: Path) -> set[str]:
    """The error codes that a file raises."""
    codes = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            place = {"RequestError": 2, "Forbidden": 1}.get(name)
            given_codes = (
                [] if place is None else [*node.args[place:], *(k.value for k in node.keywords if k.arg == "code")]
            )
            codes |= {str(each.value) for each in given_codes if isinstance(each, ast.Constant)}
    return codes


def test_a_model_is_asked_with_the_fields_that_are_handed_on() -> None:
    schemas = openapi.document(keyed=False)["components"]["schemas"]
    assert set(schemas["ModelChatCompletionRequest"]["properties"]) == set(MODELS["/v1/chat/completions"].rules)
    assert schemas["ChatRequest"]["properties"]["model"]["pattern"] == "^cappella/"


async def test_the_gateway_does_what_the_document_says(served: tuple[str, str | None]) -> None:
    url, key = served
    written = await read(url, key)
    # Scripted engines cannot be replaced, so reload is left out.
    del written["paths"]["/api/reload"]
    # Existing names, so that most requests get further than a 404.
    schemas = written["components"]["schemas"]
    for name, schema in schemas.items():
        if "model" in schema.get("properties", {}) and name.endswith("Request"):
            ensemble = "pattern" in schema["properties"]["model"]
            names = ["cappella/default", "cappella/tools", "cappella/fixed"] if ensemble else ["ann", "judge"]
            schema["properties"]["model"] = {"enum": [*names, "cappella/nobody"]}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    statuses = await asyncio.to_thread(_put_to_the_test, written, url, headers)
    assert {200, 400, 404} <= statuses


def _put_to_the_test(written: Json, url: str, headers: dict[str, str]) -> set[int]:
    """Wrong forms only with a key: what refuses them comes behind it, and is the same."""
    schema = schemathesis.openapi.from_dict(written)
    schema.config.update(base_url=url)
    statuses: set[int] = set()
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        # Where nothing is sent, nothing can be sent wrong; nor is there a wrong form of bytes.
        has_form = any(body.media_type == "application/json" for body in operation.body)
        for mode in schemathesis.GenerationMode if has_form and headers else [schemathesis.GenerationMode.POSITIVE]:
            _try(operation.as_strategy(generation_mode=mode), headers, statuses)
    return statuses


def _try(strategy: Any, headers: dict[str, str], statuses: set[int]) -> None:
    quiet = settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )

    @quiet
    @given(case=strategy)
    def each(case: Any) -> None:
        response = case.call(headers=headers)
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    run: Callable[[], None] = each
    run()

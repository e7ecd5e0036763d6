"""What the hosted product's own client sends and reads: the fusion plugin, and the server tool `openrouter:fusion`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.auth.keys import KeyStore
from cappella.config import Config
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, gateway_config, judge_script, serving
from support.scripted_engine import Json, Script

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
HI: Json = {"messages": [{"role": "user", "content": "Please tell me the room of Gonil."}]}
INPUT: Json = {"input": "Please tell me the room of Gonil."}
TOOL: Json = {"type": "openrouter:fusion"}
FUNCTION: Json = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
WEB: Json = {"type": "openrouter:web_search", "parameters": {"max_results": 3}}
CHOSEN: Json = {"tool_choice": TOOL}
REQUIRED: Json = {"tool_choice": "required"}


def plugin(**options: Any) -> Json:
    return {"plugins": [{"id": "fusion", **options}]}


def tool(**parameters: Any) -> Json:
    return {"tools": [{**TOOL, "parameters": parameters}]}


async def send(url: str, path: str, body: Json, key: str = "") -> tuple[int, Any]:
    head = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=head) as http,
        http.post(url + path, json={"model": "cappella/default", **body}) as reply,
    ):
        return reply.status, await reply.json()


async def events(url: str, body: Json) -> list[Json]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(url + RESPONSES, json={"model": "cappella/default", **INPUT, "stream": True, **body}) as reply,
    ):
        lines = (await reply.text()).splitlines()
        return [json.loads(line[5:]) for line in lines if line.startswith("data:")]


def kinds(sent: Sequence[Json]) -> list[str]:
    return [event["type"].removeprefix("response.fusion_call.") for event in sent if "fusion_call" in event["type"]]


def deciding(*words: str) -> Any:
    """A model that says whether several models are needed, and otherwise writes."""
    return judge_script(Script(("By", " myself")), choice=lambda body: Script(words))


TAKEN: list[tuple[str, str, Json, list[str]]] = [
    ("plugin", CHAT, plugin(enabled=True, analysis_models=["ann", "bob"], model="judge", temperature=0.5), []),
    ("plugin, off", CHAT, plugin(enabled=False, preset="no-such"), []),
    ("plugin, off, and fusion", CHAT, {**plugin(enabled=False), "fusion": {"samples": 2}}, []),
    ("plugin, nulls", CHAT, plugin(enabled=None, preset=None, analysis_models=None, max_tool_calls=None), []),
    ("plugin, no web tools", CHAT, plugin(tools=[]), []),
    ("plugin, web tools", CHAT, plugin(tools=[WEB], max_tool_calls=4), ["plugins.tools", "plugins.max_tool_calls"]),
    ("plugin, budget", CHAT, plugin(reasoning={"max_tokens": 2000}), ["plugins.reasoning.max_tokens"]),
    ("plugin, effort", CHAT, plugin(reasoning={"effort": "max", "enabled": True}), []),
    ("plugin, tokens", CHAT, plugin(max_completion_tokens=64, cache_control={"type": "ephemeral"}), ["plugins.cache_control"]),
    ("plugin, two efforts", CHAT, {**plugin(reasoning={"effort": "low"}), "reasoning": {"effort": "high"}}, ["plugins.reasoning"]),
    ("tool, two efforts", RESPONSES, {**tool(reasoning={"effort": "low"}), "reasoning": {"effort": "high"}},
     ["tools.parameters.reasoning"]),
    ("other plugin", CHAT, {"plugins": [{"id": "web", "max_results": 3}]}, ["plugins.web"]),
    ("other plugin beside", CHAT, {"plugins": [{"id": "web"}, {"id": "fusion"}]}, ["plugins.web"]),
    ("plugin", RESPONSES, plugin(enabled=True, max_tool_calls=1), ["plugins.max_tool_calls"]),
    ("tool", CHAT, {"tools": [TOOL]}, []),
    ("tool, parameters", CHAT, tool(analysis_models=["ann", "cat"], model="judge", temperature=0.1), []),
    ("tool, hosted", CHAT, tool(tools=[WEB], max_tool_calls=2, reasoning={"effort": "low", "max_tokens": 9}),
     ["tools.parameters.tools", "tools.parameters.max_tool_calls", "tools.parameters.reasoning.max_tokens"]),
    ("tool, required", CHAT, {"tools": [TOOL], **REQUIRED}, []),
    ("tool, chosen", CHAT, {"tools": [TOOL], **CHOSEN}, []),
    ("tool, none", CHAT, {"tools": [TOOL], "tool_choice": "none"}, []),
    ("tool and web search", CHAT, {"tools": [TOOL, WEB]}, ["tools.openrouter:web_search"]),
    ("tool and plugin", CHAT, {"tools": [TOOL], **plugin(analysis_models=["ann"])}, []),
    ("tool and function", CHAT, {"model": "cappella/tools", "tools": [TOOL, FUNCTION], **REQUIRED}, []),
    ("tool", RESPONSES, {"tools": [TOOL], "tool_choice": "auto"}, []),
    ("tool, parameters", RESPONSES, {**tool(max_completion_tokens=64), **REQUIRED}, []),
    ("item of before", RESPONSES, {"input": [{"role": "user", "content": "a"},
        {"type": "openrouter:fusion", "id": "fc_1", "status": "completed", "responses": []}, {"role": "user", "content": "b"}]}, []),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "ignored"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
async def test_the_hosted_products_options_are_taken_and_what_is_not_done_is_told(
    gateway: str, path: str, body: Json, ignored: list[str]
) -> None:
    status, reply = await send(gateway, path, {**(HI if path == CHAT else INPUT), **body})
    assert status == 200, reply
    assert reply["fusion"].get("ignored", []) == ignored
    assert reply["model"] == body.get("model", "cappella/default")


REFUSED: list[tuple[str, str, Json, str, str]] = [
    ("typo", CHAT, plugin(analysis_modles=[]), "plugins.0.analysis_modles", "did you mean analysis_models"),
    ("typo in the tool", CHAT, {"tools": [FUNCTION, *tool(presett="a")["tools"]]}, "tools.1.parameters.presett", "did you mean preset"),
    ("no such preset", CHAT, plugin(preset="general-high"), "fusion.preset", "has no preset 'general-high'"),
    ("tool and fusion", CHAT, {**tool(model="judge"), "fusion": {"samples": 2}}, "", "mean the same"),
    ("tool and plugin", CHAT, {**tool(model="judge"), **plugin(model="judge")}, "", "mean the same"),
    ("two efforts", CHAT, {"fusion": {"reasoning": {"effort": "low"}}, "reasoning_effort": "low"}, "", "mean the same"),
    ("twice", RESPONSES, {"tools": [TOOL, TOOL]}, "", "send it once"),
    ("chosen without", CHAT, {"tools": [FUNCTION], **CHOSEN}, "", "not in tools"),
    ("in fusion", CHAT, {"fusion": {"max_tool_calls": 2}}, "fusion.max_tool_calls", "no such field"),
    ("no such model", CHAT, {**tool(model="gpt"), "model": "ann"}, "fusion.model", "gpt"),
    ("options of a model", CHAT, {"model": "ann", **plugin()}, "plugins", "for ensembles"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "param", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_what_is_wrong_in_the_hosted_products_options_is_refused_at_its_place(
    gateway: str, path: str, body: Json, param: str, words: str
) -> None:
    status, reply = await send(gateway, path, {**(HI if path == CHAT else INPUT), **body})
    assert (status in (400, 404), reply["error"]["param"] or "") == (True, param), reply
    assert words in reply["error"]["message"]


@pytest.mark.parametrize("name", ["general-high", "general-budget"])
async def test_the_hosted_presets_are_those_of_the_config(fake_engines: FakeEngines, name: str) -> None:
    config = gateway_config(presets={"general-high": {}, "general-budget": {"panel": ["cat"]}})
    async with serving(fake_engines, config) as url:
        for body in (plugin(preset=name), {**tool(preset=name), **REQUIRED, "model": "ann"}):
            status, reply = await send(url, CHAT, {**HI, **body})
            assert (status, reply["fusion"]["preset"]) == (200, name)


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_a_model_that_has_the_panel_as_its_tool_decides_by_itself(
    fake_engines: FakeEngines, gateway: str, path: str
) -> None:
    body = {**(HI if path == CHAT else INPUT), "model": "ann", "tools": [TOOL]}
    fake_engines.let("ann", deciding("no"))
    _, alone = await send(gateway, path, body)
    assert (alone["model"], alone["fusion"]["status"], alone["fusion"]["gate"]["model"]) == ("ann", "bypassed", "ann")
    assert "By myself" in json.dumps(alone)
    assert not fake_engines.servers["bob"].bodies
    fake_engines.let("ann", deciding("yes"))
    _, asked = await send(gateway, path, body)
    assert (asked["model"], asked["fusion"]["judge_model"]) == ("ann", "ann")
    assert asked["fusion"]["gate"]["bypass"] is False
    assert len(fake_engines.servers["bob"].bodies) == 1
    assert not fake_engines.servers["judge"].bodies


@pytest.mark.parametrize("choice", [REQUIRED, CHOSEN])
async def test_a_forced_panel_passes_no_gate(fake_engines: FakeEngines, choice: Json) -> None:
    for name in ("ann", "judge"):
        fake_engines.let(name, deciding("no"))
    async with serving(fake_engines, gateway_config(gate={"mode": "judge", "model": "ann"})) as url:
        for body in (tool(), {"model": "ann", **tool(model="judge")}):
            _, reply = await send(url, CHAT, {**HI, **body, **choice})
            assert ("gate" in reply["fusion"], reply["fusion"]["judge_model"]) == (False, "judge")
        _, reply = await send(url, CHAT, {**HI, **tool(), "tool_choice": "auto"})
        assert reply["fusion"]["status"] == "bypassed"


@pytest.mark.parametrize("choice", ["none", {"type": "function", "function": {"name": "f"}}])
async def test_a_choice_that_leaves_the_panel_out_is_the_models_own_call(
    fake_engines: FakeEngines, gateway: str, choice: Any
) -> None:
    body = {**HI, "model": "ann", "tools": [TOOL, FUNCTION], "tool_choice": choice}
    status, reply = await send(gateway, CHAT, body)
    assert (status, "fusion" in reply) == (200, False)
    assert fake_engines.servers["ann"].bodies[-1]["tools"] == [FUNCTION]


async def test_the_operators_rules_hold_for_the_tool(fake_engines: FakeEngines) -> None:
    async with serving(fake_engines, gateway_config(allow_overrides=False)) as url:
        for model, more, expected in (("ann", {}, 400), ("judge", {}, 200), ("judge", tool(temperature=0.1), 400)):
            status, reply = await send(url, CHAT, {**HI, "tools": [TOOL], **REQUIRED, "model": model, **more})
            assert status == expected, reply
    async with serving(
        fake_engines, gateway_config(allow_overrides=False, gate={"mode": "rules", "model": "ann"})
    ) as url:
        status, reply = await send(url, CHAT, {**HI, "tools": [TOOL], **REQUIRED})
        assert (status, reply["error"]["code"]) == (400, "overrides_forbidden")


@pytest.mark.parametrize(("names", "words"), [((), "has none"), (("fixed", "tools"), "none is named default")])
async def test_a_config_without_the_panel_says_so(fake_engines: FakeEngines, names: Sequence[str], words: str) -> None:
    config = gateway_config()
    kept = {name: config.ensembles[name] for name in names}
    async with serving(fake_engines, config.model_copy(update={"ensembles": kept})) as url:
        status, reply = await send(url, CHAT, {**HI, "model": "ann", "tools": [TOOL]})
        assert (status, reply["error"]["param"]) == (400, "tools")
        assert words in reply["error"]["message"]


@pytest.mark.parametrize(
    ("allowed", "status"), [(["ann"], 403), (["cappella/default"], 403), (["ann", "cappella/default"], 200)]
)
async def test_a_key_must_open_the_model_and_its_panel(
    fake_engines: FakeEngines, tmp_path: Path, allowed: list[str], status: int
) -> None:
    config: Config = gateway_config()
    server = config.server.model_copy(update={"keys": tmp_path / "keys.sqlite"})
    key = KeyStore(tmp_path / "keys.sqlite").create("ann", ["run"], models=allowed)
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        assert (await send(url, CHAT, {**HI, "model": "ann", "tools": [TOOL], **REQUIRED}, key))[0] == status


async def test_a_response_with_the_tool_has_the_panels_item_first(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("cat", Script(refuse=(500, {"error": {"message": "out of order"}})))
    _, reply = await send(gateway, RESPONSES, {**INPUT, "tools": [TOOL], **REQUIRED})
    item, message = reply["output"]
    assert {name: item[name] for name in ("type", "status")} == {"type": "openrouter:fusion", "status": "completed"}
    assert item["analysis"]["consensus"] == ANALYSIS["consensus"]
    assert item["responses"] == [{"model": name, "content": "Hello there"} for name in MEMBERS[:2]]
    assert [failed["model"] for failed in item["failed_models"]] == ["cat"]
    assert isinstance(item["failed_models"][0]["error"], str)
    assert message["type"] == "message"
    assert reply["tools"] == [TOOL]
    assert {"completed_at", "frequency_penalty", "presence_penalty"} <= set(reply)


async def test_the_tools_events_are_the_nine_of_the_hosted_product(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("ann", Script(reasoning="Hm."))
    fake_engines.let("cat", Script(refuse=(500, {"error": {"message": "out of order"}})))
    sent = await events(gateway, {"tools": [TOOL], **REQUIRED})
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    of_panel = [event for event in sent if "fusion_call" in event["type"]]
    assert {(event["output_index"], event["item_id"]) for event in of_panel} == {
        (0, sent[-1]["response"]["output"][0]["id"])
    }
    by_kind = dict(zip(kinds(sent), of_panel, strict=True))
    assert list(by_kind)[:2] == ["in_progress", "panel.added"]
    assert set(by_kind) == {
        "in_progress", "panel.added", "panel.delta", "panel.reasoning.delta", "panel.completed", "panel.failed",
        "analysis.in_progress", "analysis.completed", "completed",
    }  # fmt: skip
    assert by_kind["panel.completed"]["content"] == "Hello there"
    assert (by_kind["panel.failed"]["model"], type(by_kind["panel.failed"]["error"])) == ("cat", str)
    began = by_kind["analysis.in_progress"]
    assert (began["analyst_model"], began["judge_model"]) == ("judge", "judge")
    assert by_kind["analysis.completed"]["analysis"]["consensus"] == ANALYSIS["consensus"]
    done = [event["item"] for event in sent if event["type"] == "response.output_item.done"]
    assert sorted(item["id"] for item in done) == sorted(item["id"] for item in sent[-1]["response"]["output"])


async def test_a_model_that_answers_alone_has_no_item_of_a_panel(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("ann", deciding("no"))
    sent = await events(gateway, {"model": "ann", "tools": [TOOL]})
    assert kinds(sent) == []
    assert [item["type"] for item in sent[-1]["response"]["output"]] == ["message"]
    assert {event["output_index"] for event in sent if "output_index" in event} == {0}


async def test_the_stock_clients_of_others_get_no_event_with_an_error(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("cat", Script(refuse=(500, {"error": {"message": "out of order"}})))
    sent = await events(gateway, {"fusion": {"include_events": True}})
    failed = next(event for event in sent if event["type"].endswith("panel.failed"))
    assert ("error" in failed, failed["failed_model"]["model"]) == (False, "cat")
    assert "analysis.delta" in kinds(sent)


async def test_a_chat_reply_has_a_fingerprint_that_is_null_and_its_chunks_have_none(gateway: str) -> None:
    assert (await send(gateway, CHAT, HI))[1]["system_fingerprint"] is None
    async with (
        aiohttp.ClientSession() as http,
        http.post(gateway + CHAT, json={"model": "cappella/default", **HI, "stream": True}) as reply,
    ):
        lines = [line for line in (await reply.text()).splitlines() if line.startswith("data: {")]
    # OpenRouter's TypeScript client wants null there, and here a string or nothing.
    assert not [line for line in lines if "system_fingerprint" in line]

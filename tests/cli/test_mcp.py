"""`cappella mcp` over standard input and output, with the client of the official SDK."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cappella.auth.keys import KeyStore
from cappella.cli.client.http import Server
from support.command_line import cappella
from support.fake_engines import MEMBERS, FakeEngines, eventually, gateway_config, judge_script, serving
from support.real_deployment import ROOT
from support.scripted_engine import Script
from support.strict_gateway import with_keys


@asynccontextmanager
async def agent(url: str) -> AsyncIterator[Any]:
    """A client of the tools, in one process."""
    from mcp import Client

    from cappella.cli.mcp import Remote
    from cappella.gateway.mcp.tools import server_of

    remote = Remote(Server(url, None), "cappella/default")
    async with Client(server_of(lambda _: remote), read_timeout_seconds=60) as client:
        yield client


@asynccontextmanager
async def agent_of_command(*options: str, **environment: str) -> AsyncIterator[Any]:
    """A client whose server is the command, as an agent starts it; the start takes seconds of CPU time."""
    from mcp import Client, StdioServerParameters

    environment = {"PYTHONPATH": str(ROOT / "runtime"), **environment}
    command = StdioServerParameters(command=sys.executable, args=["-m", "cappella", "mcp", *options], env=environment)
    async with Client(command, read_timeout_seconds=60) as client:
        yield client


def text_of(result: Any) -> str:
    from mcp.types import TextContent

    return "\n".join(each.text for each in result.content if isinstance(each, TextContent))


async def test_it_has_three_tools_that_change_nothing(gateway: str) -> None:
    async with agent(gateway) as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == {"ask_panel", "compare", "list_models"}
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
    assert next(tool for tool in tools if tool.name == "ask_panel").input_schema["required"] == ["question"]


async def test_the_panel_answers_and_its_progress_is_told(gateway: str, fake_engines: FakeEngines) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async with agent(gateway) as client:
        asked = {"question": "Is it so?", "system": "Be short."}
        result = await client.call_tool("ask_panel", asked, progress_callback=note)
    assert not result.is_error
    assert text_of(result) == "The final answer"
    assert result.structured_content
    assert result.structured_content["status"] == "ok"
    sent = fake_engines.servers["ann"].bodies[0]["messages"]
    assert [message["content"] for message in sent] == ["Be short.", "Is it so?"]
    assert [progress for progress, _, _ in told] == sorted(progress for progress, _, _ in told)
    assert {total for _, total, _ in told} >= {len(MEMBERS) + 1.0}
    assert told[-1][2] == "the answer is being written"


async def test_a_comparison_has_each_answer_and_where_they_differ(gateway: str, fake_engines: FakeEngines) -> None:
    for name in MEMBERS[:2]:
        fake_engines.let(name, Script((f"I am {name}.",)))
    async with agent(gateway) as client:
        result = await client.call_tool("compare", {"question": "Who?", "models": list(MEMBERS[:2])})
    text = text_of(result)
    for part in (
        "## ann\nI am ann.",
        "## bob\nI am bob.",
        "contradictions",
        "## Answer of the judge\nThe final answer",
    ):
        assert part in text
    assert "cat" not in text
    assert result.structured_content
    assert {each["model"] for each in result.structured_content["responses"]} == set(MEMBERS[:2])
    assert result.structured_content["analysis"]["contradictions"][0]["topic"] == "tone"


async def test_one_model_can_be_asked_alone(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script(("Alone.",)))
    async with agent(gateway) as client:
        result = await client.call_tool("ask_panel", {"question": "Who?", "model": "bob"})
    assert text_of(result) == "Alone."
    assert not fake_engines.servers["judge"].bodies


async def test_the_list_has_the_ensembles_and_the_models(gateway: str) -> None:
    async with agent(gateway) as client:
        result = await client.call_tool("list_models", {})
    assert "cappella/default: panel ann, bob, cat; judge judge" in text_of(result)
    assert "ann: a single model" in text_of(result)


@pytest.mark.parametrize(
    ("tool", "arguments", "part"),
    [
        ("ask_panel", {"question": "Hi", "model": "cappella/nobody"}, "nobody"),
        ("ask_panel", {"question": "Hi", "preset": "nobody"}, "preset"),
        ("compare", {"question": "Hi", "models": ["nobody"]}, "nobody"),
        ("compare", {"question": "Hi", "model": "ann"}, "ensembles"),
        ("ask_panel", {"question": ""}, "question"),
        ("ask_panel", {}, "question"),
    ],
)
async def test_a_mistake_is_told_to_the_agent(gateway: str, tool: str, arguments: dict[str, Any], part: str) -> None:
    async with agent(gateway) as client:
        result = await client.call_tool(tool, arguments)
        assert result.is_error
        assert part in text_of(result)
        assert not (await client.call_tool("list_models", {})).is_error


async def test_a_panel_that_fails_is_an_error_with_its_reason(gateway: str, fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="break"))
    async with agent(gateway) as client:
        result = await client.call_tool("ask_panel", {"question": "Hi"})
    assert result.is_error
    assert "0 of 3 members answered" in text_of(result)


async def test_a_failed_member_is_named_in_a_comparison(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", Script(ending="break"))
    async with agent(gateway) as client:
        result = await client.call_tool("compare", {"question": "Hi"})
    assert not result.is_error
    assert "## cat failed" in text_of(result)


@pytest.mark.parametrize("tool", ["ask_panel", "list_models"])
async def test_a_server_that_is_not_there_is_an_error_that_says_what_to_start(tool: str) -> None:
    async with agent("http://127.0.0.1:9") as client:
        result = await client.call_tool(tool, {"question": "Hi"} if tool == "ask_panel" else {})
    assert result.is_error
    assert "`cappella serve`" in text_of(result)


async def test_the_key_comes_from_the_environment(fake_engines: FakeEngines, tmp_path: Path) -> None:
    config = with_keys(gateway_config(), tmp_path / "keys.sqlite")
    key = KeyStore(tmp_path / "keys.sqlite").create("ann", ["run"])
    async with serving(fake_engines, config) as url:
        async with agent(url) as client:
            refused = await client.call_tool("ask_panel", {"question": "Hi"})
        async with agent_of_command("--url", url, CAPPELLA_KEY=key) as client:
            answered = await client.call_tool("ask_panel", {"question": "Hi"})
    assert refused.is_error
    assert "CAPPELLA_KEY" in text_of(refused)
    assert key not in text_of(refused)
    assert text_of(answered) == "The final answer"


async def test_a_call_that_the_agent_cancels_frees_the_engines(gateway: str, fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="held"))
    async with agent(gateway) as client:
        call = asyncio.create_task(client.call_tool("ask_panel", {"question": "Hi"}))
        assert await eventually(lambda: fake_engines.running == len(MEMBERS))
        call.cancel()
        assert await eventually(lambda: fake_engines.running == 0)


async def test_several_calls_run_at_once(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(Script(("Right",), ending="held")))
    async with agent(gateway) as client:
        calls = [asyncio.create_task(client.call_tool("ask_panel", {"question": "Hi"})) for _ in range(2)]
        assert await eventually(lambda: fake_engines.servers["judge"].running == 2)
        fake_engines.release()
        assert [text_of(each) for each in await asyncio.gather(*calls)] == ["Right", "Right"]


def test_it_ends_with_its_input() -> None:
    done = cappella("mcp", given="")
    assert (done.returncode, done.stdout) == (0, "")

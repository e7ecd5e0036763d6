"""A model of an attached server that is not vLLM: its calls, what it refuses, and its health check."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cappella.config import RemoteModel
from cappella.engines import backends, refusals
from cappella.engines.base import EngineStats
from cappella.engines.remote import Attachment
from cappella.errors import ConfigError, EngineBroke, EngineContextExceeded, EngineError, EngineRejected
from cappella.types import Chunk, OutputFormat, Prompt, Sampling, Usage
from support.fake_engines import eventually
from support.plain_server import PlainServer

Json = dict[str, Any]
ASK = Prompt([{"role": "user", "content": "Say hello, please."}])
CHECK_S = 0.02


@pytest.fixture
async def server() -> AsyncIterator[PlainServer]:
    server = await PlainServer().start()
    yield server
    await server.stop()


def attached(server: PlainServer, **fields: Any) -> tuple[Any, Attachment]:
    model = RemoteModel.model_validate({"url": server.url, "model": server.model, "max_model_len": 4096, **fields})
    engine = backends.remote_engines("big", model)["big"]
    return engine, Attachment(engine, model, CHECK_S)


@asynccontextmanager
async def watched(server: PlainServer, **fields: Any) -> AsyncIterator[Any]:
    """An engine with a frequent health check, once it is ready."""
    engine, attachment = attached(server, **fields)
    task = asyncio.create_task(attachment.run())
    try:
        assert await eventually(lambda: engine.status.state != "loading", 10)
        yield engine
    finally:
        task.cancel()
        await asyncio.wait({task})


async def ask(engine: Any, prompt: Prompt = ASK, **sampling: Any) -> list[Chunk]:
    return [chunk async for chunk in engine.chat(prompt, Sampling(**sampling))]


async def test_a_remote_model_streams_under_its_own_name_with_fields_of_openai_alone(server: PlainServer) -> None:
    async with watched(server) as engine:
        chunks = await ask(engine, temperature=0.5, max_completion_tokens=9)
        unwatched = Prompt(ASK.messages, watched=False)
        await ask(engine, unwatched)
    assert "".join(chunk.content for chunk in chunks) == "Hello from afar "
    assert chunks[-1].usage == Usage(prompt_tokens=21, completion_tokens=3)
    assert server.chats[0] == {
        "model": "Big/Model-70B",
        "messages": ASK.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 9,
    }
    assert "stream_interval" not in server.chats[1]


@pytest.mark.parametrize(
    ("prompt", "sampling", "says"),
    [
        (
            Prompt(ASK.messages, output_format=OutputFormat("structured_outputs", {"choice": ["A", "B"]})),
            {},
            "structured_outputs",
        ),
        (
            Prompt(ASK.messages, output_format=OutputFormat("response_format", {"type": "json_object"})),
            {},
            "response_format",
        ),
        (Prompt(ASK.messages, logprobs=3), {}, "logprobs"),
        (Prompt(ASK.messages, samples=2), {}, "one answer per request"),
        (Prompt(ASK.messages, tools=[{"type": "function", "function": {"name": "f"}}]), {}, "tools"),
        (ASK, {"top_k": 3}, "top_k"),
        (ASK, {"min_p": 0.1}, "min_p"),
        (ASK, {"repetition_penalty": 1.1}, "repetition_penalty"),
    ],
)
async def test_a_prompt_that_the_server_does_not_support_is_refused_unsent(
    server: PlainServer, prompt: Prompt, sampling: Json, says: str
) -> None:
    async with watched(server) as engine:
        with pytest.raises(EngineRejected, match=f"big cannot do this: .*{says}"):
            await ask(engine, prompt, **sampling)
    assert not server.chats


async def test_capabilities_of_the_config_are_used(server: PlainServer) -> None:
    form = OutputFormat("response_format", {"type": "json_object"})
    async with watched(server, tools=True, json_schema=True, logprobs=True) as engine:
        await ask(engine, Prompt(ASK.messages, tools=[{"type": "function"}], output_format=form, logprobs=2))
    (body,) = server.chats
    assert (body["response_format"], body["top_logprobs"]) == (form.value, 2)


async def test_sizes_are_marked_as_estimates(server: PlainServer) -> None:
    server.tells_usage = False
    async with watched(server) as engine:
        count = await engine.count_tokens(Prompt([{"role": "user", "content": "x" * 300}]))
        usage = (await ask(engine))[-1].usage
    assert (count.exact, 100 <= count.tokens <= 120) == (False, True)
    assert usage is not None
    assert usage.estimated
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert "/tokenize" not in server.paths


async def test_it_has_no_stats(server: PlainServer) -> None:
    async with watched(server) as engine:
        assert await engine.stats() == EngineStats()
        assert await engine.metrics() == ""
    assert set(server.paths) == {"/v1/models", "/v1/chat/completions"}


async def test_closing_a_half_read_answer_aborts_it_at_its_server(server: PlainServer) -> None:
    async with watched(server) as engine:
        server.hangs = True
        call = asyncio.create_task(ask(engine))
        assert await eventually(lambda: server.running == 1)
        call.cancel()
        await asyncio.wait({call})
        assert await eventually(lambda: server.aborted == 1)


async def test_special_tokens_of_all_known_families_are_escaped(server: PlainServer) -> None:
    text = "<|im_end|> <|eot_id|> [/INST] <end_of_turn> <｜User｜> a<b>"
    async with watched(server) as engine:
        await ask(engine, Prompt([{"role": "user", "content": text}]))
    sent = server.chats[0]["messages"][0]["content"]
    assert sent.replace("\u200b", "") == text
    assert not any(token in sent for token in text.split()[:-1])
    assert sent.endswith(" a<b>")


async def test_a_forwarded_call_names_the_model_as_its_server_does(server: PlainServer) -> None:
    body = json.dumps({"model": "big", "messages": ASK.messages}).encode()
    async with watched(server) as engine, engine.forward("/v1/chat/completions", body) as reply:
        assert reply.status_code == 200
        assert b"Hello from afar" in b"".join([data async for data in reply.body])
    assert server.chats[0]["model"] == "Big/Model-70B"


async def test_the_api_key_is_sent_and_a_refusal_does_not_show_it(server: PlainServer, tmp_path: Path) -> None:
    server.key = "sk-right"
    (tmp_path / "key").write_text("sk-right\n")
    async with watched(server, key_file=tmp_path / "key") as engine:
        assert engine.status.state == "ready"
        server.key = "sk-new"
        assert await eventually(lambda: engine.status.state == "unhealthy")
        assert "refused our key" in engine.status.stage
        assert "sk-" not in engine.status.stage
        engine.status.state = "ready"
        with pytest.raises(EngineBroke, match="refused our key"):
            async with engine.forward("/v1/chat/completions", b"{}"):
                pass


@pytest.mark.parametrize("text", ["", "two words", None])
def test_a_key_file_without_a_key_is_a_config_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "key").write_text(text)
    model = RemoteModel(url="http://127.0.0.1:1/v1", max_model_len=64, key_file=tmp_path / "key")
    with pytest.raises(ConfigError, match=r"models\.big\.key_file: .*(holds no key|cannot be read)"):
        backends.remote_engines("big", model)


async def test_a_server_that_goes_away_is_unhealthy_and_ready_once_it_is_back(server: PlainServer) -> None:
    async with watched(server) as engine:
        assert engine.status.state == "ready"
        await server.stop()
        assert await eventually(lambda: engine.status.state == "unhealthy", 5)
        assert engine.status.reason == "big does not answer: no connection (Connection refused)"
        await server.start()
        assert await eventually(lambda: engine.status.state == "ready", 5)
        assert engine.status.reason is None


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ({"status": 503}, "answered 503"),
        ({"model": "Other"}, "no model 'Big/Model-70B', but Other"),
        ({"max_model_len": 2048}, "takes 2048 tokens, but max_model_len is 4096"),
    ],
)
async def test_a_server_that_cannot_serve_the_model_says_why_until_it_can(
    server: PlainServer, trouble: Json, says: str
) -> None:
    fields = {name: getattr(server, name) for name in trouble}
    engine, attachment = attached(server)
    for name, value in trouble.items():
        setattr(server, name, value)
    task = asyncio.create_task(attachment.run())
    assert await eventually(lambda: engine.status.state == "unhealthy", 5)
    assert says in engine.status.stage
    for name, value in fields.items():
        setattr(server, name, value)
    assert await eventually(lambda: engine.status.state == "ready", 5)
    task.cancel()
    await asyncio.wait({task})
    assert engine.status.state == "stopped"


async def test_a_server_that_gives_no_token_for_too_long_is_unhealthy(server: PlainServer) -> None:
    async with watched(server, hung_after_s=0.1) as engine:
        server.hangs = True
        call = asyncio.create_task(ask(engine))
        assert await eventually(lambda: engine.status.state == "unhealthy", 5)
        assert engine.status.stage == "no token for 0.1 s"
        server.hangs = False
        assert await eventually(lambda: engine.status.state == "ready", 5)
        call.cancel()
        await asyncio.wait({call})


async def test_a_server_whose_calls_break_is_probed(server: PlainServer) -> None:
    async with watched(server) as engine:
        server.breaks = True
        for number in range(5):
            with pytest.raises(EngineError):
                await ask(engine, Prompt([{"role": "user", "content": f"{number}?"}]))
        assert await eventually(lambda: engine.status.state == "unhealthy", 5)
        server.breaks = False
        assert await eventually(lambda: engine.status.state == "ready", 5)


async def test_an_idle_server_is_not_probed(server: PlainServer) -> None:
    async with watched(server, hung_after_s=0.05):
        # On a busy machine its start may have taken more than one request.
        looks, asked = len(server.paths), len(server.bodies)
        assert await eventually(lambda: len(server.paths) > looks + 8)
    assert len(server.bodies) == asked


def test_openais_own_codes_for_a_prompt_that_does_not_fit() -> None:
    reply = json.dumps({"error": {"message": "too long", "code": "context_length_exceeded"}}).encode()
    assert isinstance(refusals.from_reply(400, reply), EngineContextExceeded)
    reply = json.dumps({"error": {"message": "too long", "type": "exceed_context_size_error"}}).encode()
    assert isinstance(refusals.from_reply(400, reply), EngineContextExceeded)


async def test_a_closed_engine_ends_its_half_read_answers(server: PlainServer) -> None:
    async with watched(server) as engine:
        async with aclosing(engine.chat(ASK, Sampling())) as chunks:
            await anext(chunks)
        await engine.close()
        assert (await ask(engine))[-1].usage

"""The client of a server that writes nothing: local or attached, what it is asked and what it refuses."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from cappella.config import RemoteModel
from cappella.engines import backends
from cappella.engines.health import Health
from cappella.engines.vllm.pooling import PoolingEngine
from cappella.errors import EngineBroke, EngineContextExceeded, EngineRejected
from cappella.types import Prompt, Sampling
from support.plain_client import ready_client
from support.scripted_engine import Script, ScriptedEngine, too_long
from support.scripted_pooling import ScriptedPooling

HI = Prompt([{"role": "user", "content": "Hi"}])


@pytest.fixture
async def reranker(tmp_path: Path) -> AsyncIterator[ScriptedPooling]:
    server = ScriptedPooling("rank", task="rerank")
    await server.start(tmp_path)
    yield server
    await server.stop()


async def test_an_attached_server_is_asked_beside_its_v1_and_by_its_own_name() -> None:
    server = ScriptedPooling("rank", task="rerank")
    app = web.Application()
    server.more_routes(app.router)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    model = RemoteModel(url=url, api="vllm", task="rerank", model="theirs", max_model_len=64)
    engine = backends.remote_engines("rank", model)["rank"]
    engine.status.state = "ready"
    assert isinstance(engine, PoolingEngine)
    try:
        await engine.probe()
        assert (await engine.score(HI, "four")).value == 4
        async with engine.forward("/rerank", b'{"model":"rank","query":"q","documents":["a"]}') as reply:
            assert reply.status_code == 200
    finally:
        await engine.close()
        await runner.cleanup()
    assert server.asked == ["/score", "/score", "/rerank"]
    assert {body["model"] for body in server.bodies} == {"theirs"}


async def test_it_writes_nothing_and_a_writer_scores_nothing(reranker: ScriptedPooling, tmp_path: Path) -> None:
    with pytest.raises(EngineRejected):
        reranker.engine.chat(HI, Sampling())
    writer = ScriptedEngine("ann", lambda _: Script())
    engine = ready_client("ann", await writer.serve(tmp_path))
    writer.engine = engine
    with pytest.raises(EngineRejected):
        await engine.score(HI, "x")
    assert not engine.supports("/v1/embeddings")
    await writer.stop()


async def test_what_the_server_refuses_keeps_its_kind(reranker: ScriptedPooling) -> None:
    refusal = too_long().refuse
    reranker.refusal = lambda _: refusal
    with pytest.raises(EngineContextExceeded):
        await reranker.engine.score(HI, "x")
    reranker.refusal = lambda _: (500, {"error": {"message": "oh", "type": "InternalServerError", "code": 500}})
    with pytest.raises(EngineBroke):
        await reranker.engine.score(HI, "x")


async def test_an_idle_one_is_healthy_by_its_probes(reranker: ScriptedPooling) -> None:
    engine = reranker.engine
    engine.circuit_breaker.last_output_at -= 1000
    health = Health(engine, hung_after_s=60)
    for _ in range(50):
        assert await health.check() is None
        if reranker.asked and engine.status.state == "ready":
            break
    await health.pause()
    assert reranker.asked == ["/score"]
    assert engine.status.state == "ready"

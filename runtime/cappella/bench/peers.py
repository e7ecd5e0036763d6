"""A peer for comparison: optillm's mixture of agents, in its own Python, over a plain vLLM server."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from cappella.bench.servers import Child, free_port, until_healthy
from cappella.bench.systems import BenchError, Reply, Sizes, written
from cappella.engines.vllm import server_args

# By default optillm requests 4096 tokens. A model with a context of 2048 rejects that, and optillm then returns the
# text of the error as the answer.
LIMIT_TOKENS = 200


class Optillm:
    """Three samples of one model, a critique, a final answer. Not streamed, since optillm streams only finished texts."""

    def __init__(self, http: aiohttp.ClientSession, url: str, model: str) -> None:
        self.name = "optillm moa, plain vLLM"
        self._http = http
        self._url = url
        self._model = model

    async def ask(self, prompt: str, sizes: Sizes) -> Reply:
        """One answer; its first token arrives with the last."""
        began = time.monotonic()
        messages = [{"role": "system", "content": ""}, {"role": "user", "content": prompt}]
        body = {"model": self._model, "messages": messages, "max_tokens": sizes.answer_tokens or LIMIT_TOKENS}
        async with self._http.post(f"{self._url}/v1/chat/completions", json=body) as response:
            reply = await response.json()
            if response.status != 200:
                raise BenchError(f"{self.name}: {response.status} {str(reply)[:300]}")
        total_s = time.monotonic() - began
        if not written(reply["usage"]):
            raise BenchError(f"{self.name}: no model wrote {reply['choices'][0]['message']['content'][:300]!r}")
        return Reply(total_s, total_s, written(reply["usage"]))


@asynccontextmanager
async def optillm_server(python: Path, base_url: str, log_dir: Path) -> AsyncIterator[str]:
    """The peer's server over `base_url`, started with the Python that it is installed in; its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(python.parent / "optillm"), "--approach", "moa", "--base-url", f"{base_url}/v1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log", "warning"]
    env = {**server_args.environment(None), "OPENAI_API_KEY": "none"}
    del env["PYTHONPATH"], env["PYTHONSAFEPATH"]
    async with Child.running(command, env, log_dir / "optillm.log") as server, aiohttp.ClientSession() as http:
        await until_healthy(http, url, "optillm", server)
        yield url

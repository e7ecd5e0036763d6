"""The driver of one engine: connects to the cluster, has an actor start the server on a node, and passes on its output.

`python -m cappella.engines.ray.driver GATEWAY` has a socket to the process GATEWAY on standard input, with lines of JSON. It reads
the address and the `Order`; tells the living nodes, and is told which one takes the engine; tells where the server listens, and
at last its exit code. When the socket ends it stops the server. When this process is killed, Ray ends the actor, and so the server.
"""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from cappella.engines.process import guardian
from cappella.engines.ray import connection
from cappella.engines.ray.node import NodeEngine, Part
from cappella.engines.ray.order import Order

RETRY_S = 1.0
TELL_INTERVAL_S = 30.0
STOP_TIMEOUT_S = 20.0
MAX_LINE_BYTES = 16 << 20


class _Driver:
    def __init__(self, ray: Any, order: Order, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ray = ray
        self._order = order
        self._reader = reader
        self._writer = writer

    async def run(self) -> int | None:
        """Returns the exit code of the server."""
        name, node, gpus = await self._agree_on_node()
        engine = self._ray.remote(NodeEngine).options(**connection.on_node(self._ray, node["NodeID"])).remote()
        print(f"cappella: starting on node {name} at {node['NodeManagerAddress']}", flush=True)
        serving = asyncio.ensure_future(self._serve(engine, node["NodeManagerAddress"], gpus))
        closing = asyncio.ensure_future(self._reader.read())
        try:
            await asyncio.wait({serving, closing}, return_when=asyncio.FIRST_COMPLETED)
            return await serving if serving.done() else await _stop(engine, serving)
        finally:
            closing.cancel()
            self._ray.kill(engine)

    async def _agree_on_node(self) -> tuple[str, Mapping[str, Any], list[int]]:
        told = 0.0
        while True:
            alive = connection.alive(self._ray)
            self._tell({"alive": {name: node["NodeManagerAddress"] for name, node in alive.items()}})
            line = await self._reader.readline()
            if not line:
                raise SystemExit(0)
            place = json.loads(line)
            if place is not None:
                return place["node"], alive[place["node"]], place["gpus"]
            if told <= 0:
                print("cappella: no living node has room; waiting", flush=True)
                told = TELL_INTERVAL_S
            await asyncio.sleep(RETRY_S)
            told -= RETRY_S

    async def _serve(self, engine: Any, host: str, gpus: list[int]) -> int | None:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(_tell_of_wait())
            base = await engine.start.remote(self._order, host, gpus)
            waiting.cancel()
        print(f"cappella: the server listens at {base}", flush=True)
        self._tell({"base": base})
        while True:
            part: Part = await engine.follow.remote()
            sys.stdout.buffer.write(part.text)
            sys.stdout.flush()
            if part.ended:
                await engine.stop.remote()
                return part.exit_code

    def _tell(self, what: Mapping[str, Any]) -> None:
        self._writer.write(json.dumps(what).encode() + b"\n")


async def _tell_of_wait() -> None:
    """A start counts as hung when its log does not grow."""
    while True:
        await asyncio.sleep(TELL_INTERVAL_S)
        print("cappella: still checking the weights", flush=True)


async def _stop(engine: Any, serving: "asyncio.Future[int | None]") -> int | None:
    serving.cancel()
    async with asyncio.timeout(STOP_TIMEOUT_S):
        code: int | None = await engine.stop.remote()
    return code


async def _main() -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=0), limit=MAX_LINE_BYTES)
    address, order = json.loads(await reader.readline())
    ray = connection.connect(address)
    code: int | None = 1
    try:
        code = await _Driver(ray, Order(**order), reader, writer).run()
    except Exception as error:  # noqa: BLE001 - all that Ray and the node may raise is the reason for the end
        cause = getattr(_first(error), "cause", None) or _first(error)
        print(f"{type(cause).__name__}: {' '.join(str(cause).split())}", flush=True)
    finally:
        writer.write(json.dumps({"exit_code": code}).encode() + b"\n")
        ray.shutdown()
        writer.close()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


if __name__ == "__main__":
    guardian.end_with_parent(int(sys.argv[1]), signal.SIGKILL)
    asyncio.run(_main())

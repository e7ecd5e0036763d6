"""The queue is shared fairly: keys take turns in it, and none of them can fill it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from cappella.auth.keys import KeyStore
from cappella.errors import Overloaded
from cappella.gateway.admission import Admission
from support.fake_engines import FakeEngines, eventually, gateway_config, serving
from support.scripted_engine import Script

BODY = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}


class Queue:
    """Callers for the one sequence there is; `entered` has the keys of those who got it, in turn."""

    def __init__(self, max_waiting: int, max_waiting_per_key: int | None = None) -> None:
        self.entered = ""
        self.tasks: list[asyncio.Task[None]] = []
        self.found = Admission({"ann": 1}, max_waiting, max_waiting_per_key)

    @asynccontextmanager
    async def taken(self, key: str | None = None) -> AsyncIterator[None]:
        async with self.found.slot("e", {"ann": 1}, key=key):
            yield

    async def come(self, keys: str, name: str = "e", leaving: int | None = None) -> None:
        """One caller for each letter, which is its key; while they come, the caller number `leaving` goes away."""
        self.tasks += [asyncio.create_task(self._one(name, key)) for key in keys]
        if leaving is not None:
            self.tasks[leaving].cancel()
        for _ in range(5):
            await asyncio.sleep(0)

    async def _one(self, name: str, key: str) -> None:
        async with self.found.slot(name, {"ann": 1}, key=key):
            self.entered += key
            await asyncio.sleep(0)

    async def outcomes(self) -> str:
        """Of each caller in the order of coming: `.` for served, `!` for refused."""
        found = await asyncio.gather(*self.tasks, return_exceptions=True)
        return "".join("." if each is None else "!" for each in found)


async def test_keys_take_turns_however_many_one_of_them_sends() -> None:
    queue = Queue(max_waiting=9)
    async with queue.taken():
        await queue.come("aaaabbc")
    assert await queue.outcomes() == "......."
    assert queue.entered == "abcabaa"


async def test_a_key_that_was_just_served_is_behind_another_that_waits_for_something_else() -> None:
    queue = Queue(max_waiting=9)
    async with queue.taken(key="a"):
        await queue.come("aa")
        await queue.come("b", name="other")
    assert await queue.outcomes() == "..."
    assert queue.entered == "baa"


async def test_a_key_that_fills_the_queue_makes_room_for_others_until_their_shares_are_equal() -> None:
    queue = Queue(max_waiting=4)
    async with queue.taken():
        await queue.come("aaaa")
        await queue.come("bbb")
        await queue.come("a")
        assert queue.found.waiting == {"e": 4}
    assert await queue.outcomes() == "..!!" + "..!" + "!"
    with pytest.raises(Overloaded, match="other keys needed this key") as caught:
        queue.tasks[3].result()
    assert 1 <= caught.value.retry_after_s <= 60


async def test_a_key_may_not_have_more_waiting_than_the_config_says() -> None:
    queue = Queue(max_waiting=4, max_waiting_per_key=1)
    async with queue.taken():
        await queue.come("aab")
    assert await queue.outcomes() == ".!."
    with pytest.raises(Overloaded, match="1 requests of this key are waiting"):
        queue.tasks[1].result()


async def test_while_other_keys_wait_no_key_gets_more_than_its_share() -> None:
    found, entered, done = Admission({"ann": 8}, max_waiting=9), [], asyncio.Event()

    async def one(key: str, count: int) -> None:
        async with found.slot("ann", {"ann": count}, direct=True, key=key):
            entered.append(key)
            await done.wait()

    async def come(key: str, count: int) -> asyncio.Task[None]:
        task = asyncio.create_task(one(key, count))
        for _ in range(5):
            await asyncio.sleep(0)
        return task

    first = await come("a", 2)
    others = [await come("b", 6), await come("a", 3)]
    # There is room for it, and half of the sequences would be its own, if nobody else waited for them.
    assert entered == ["a"]
    others[0].cancel()
    await asyncio.wait({others[0]})
    last = await come("b", 1)
    assert entered == ["a", "a", "b"]
    done.set()
    await asyncio.gather(first, others[1], last)


async def test_a_request_that_is_evicted_and_leaves_at_once_is_counted_once() -> None:
    queue = Queue(max_waiting=2)
    async with queue.taken():
        await queue.come("aa")
        await queue.come("b", leaving=1)
        assert queue.found.waiting == {"e": 2}
    assert await queue.outcomes() == ".!."
    assert queue.tasks[1].cancelled()
    assert queue.found.waiting == {"e": 0}


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_a_full_queue_refuses_before_it_looks_at_what_is_asked(fake_engines: FakeEngines, model: str) -> None:
    for name in fake_engines.servers:
        fake_engines.let(name, Script(ending="held"))
    config = gateway_config(analysis="off")
    models = {name: each.model_copy(update={"max_num_seqs": 1}) for name, each in config.models.items()}
    server = config.server.model_copy(update={"max_waiting": 1})
    config = config.model_copy(update={"models": models, "server": server})

    async def ask(http: aiohttp.ClientSession, **fields: object) -> int:
        async with http.post(f"{url}/v1/chat/completions", json={**BODY, "model": model, **fields}) as reply:
            await reply.read()
            return reply.status

    async def waiting() -> bool:
        async with http.get(f"{url}/metrics") as reply:
            return f'cappella_waiting{{name="{model}"}} 1.0' in await reply.text()

    async with serving(fake_engines, config) as url, aiohttp.ClientSession() as http:
        assert await ask(http, fusion={"modle": "red"}) == 400
        held = [asyncio.create_task(ask(http)) for _ in range(2)]
        while not await waiting():
            await asyncio.sleep(0.01)
        assert await ask(http, fusion={"modle": "red"}) == 429
        fake_engines.release()
        assert await asyncio.gather(*held) == [200, 200]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_sends_all_it_can_does_not_keep_another_from_being_answered(
    fake_engines: FakeEngines, tmp_path: Path, stream: bool
) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    greedy, modest = store.create("greedy", ["run"]), store.create("modest", ["run"])
    for name in fake_engines.servers:
        fake_engines.let(name, Script(pause_s=0.02))
    config = gateway_config(analysis="off")
    models = {name: model.model_copy(update={"max_num_seqs": 2}) for name, model in config.models.items()}
    server = config.server.model_copy(update={"max_waiting": 4, "keys": tmp_path / "keys.sqlite"})
    config = config.model_copy(update={"models": models, "server": server})

    async def ask(http: aiohttp.ClientSession, key: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {key}"}
        async with http.post(f"{url}/v1/chat/completions", json={**BODY, "stream": stream}, headers=headers) as reply:
            return reply.status, await reply.text()

    connector = aiohttp.TCPConnector(limit=0)
    async with serving(fake_engines, config) as url, aiohttp.ClientSession(connector=connector) as http:
        flood = [asyncio.create_task(ask(http, greedy)) for _ in range(30)]
        assert await eventually(lambda: fake_engines.running > 0)
        answers = [await ask(http, modest) for _ in range(3)]
        assert [status for status, _ in answers] == [200, 200, 200]
        assert all("insufficient" not in text and "overloaded" not in text for _, text in answers)
        refused = [text for status, text in await asyncio.gather(*flood) if status == 429]
        assert refused
        assert all("this key" in text for text in refused)

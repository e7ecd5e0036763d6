"""Documents as a tool server: search, read, embedding and reranking engines that work, sleep or fail."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Documents
from cappella.engines.base import Engine
from cappella.tools.documents.index import Index
from cappella.tools.documents.ranking import fused
from cappella.tools.documents.reading import ReadingLimits
from cappella.tools.documents.scan import Scanner
from cappella.tools.documents.server import DocumentServer, index_path, open_documents
from support.fake_engines import eventually
from support.scripted_pooling import ScriptedPooling

NOTHING: Mapping[str, Engine] = {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "papers"
    made.mkdir()
    (made / "cat.txt").write_text("The feline sleeps on the sofa all day long.")
    (made / "car.txt").write_text("The vehicle is parked behind the house.")
    (made / "long.txt").write_text("\n\n".join(" ".join([f"p{number}"] * 45) for number in range(200)))
    return made


@asynccontextmanager
async def serving(
    folder: Path, engines: Mapping[str, Engine] = NOTHING, interval_s: float = 1000, **config: Any
) -> AsyncIterator[DocumentServer]:
    """A server whose first scan is over."""
    documents = Documents(folder=folder, index=folder.parent / "index", **config)
    server = open_documents("papers", documents, engines, interval_s)
    await server.start()
    try:
        assert await eventually(lambda: server.last_scan is not None)
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def scripted(tmp_path: Path, **script: Any) -> AsyncIterator[ScriptedPooling]:
    engine = ScriptedPooling("emb", **script)
    await engine.start(tmp_path)
    try:
        yield engine
    finally:
        await engine.engine.close()
        await engine.stop()


def about_animals(text: str) -> list[float]:
    """Near for all that means cats, and for all else."""
    return [1.0, 0.0] if {"feline", "kitten"} & set(text.split()) else [0.0, 1.0]


async def paths(server: DocumentServer, query: str, limit: int = 5) -> list[str]:
    result = await server.call("search", {"query": query, "limit": limit})
    assert not result.is_error, result.text
    return [each.path for each in result.passages]


async def test_a_search_gives_passages_with_their_places(folder: Path) -> None:
    async with serving(folder) as server:
        assert server.problem is None
        assert [tool.name for tool in server.tools] == ["search", "read"]
        result = await server.call("search", {"query": "Where is the vehicle parked?"})
        first = result.passages[0]
        assert (first.documents, first.path, first.place) == ("papers", "car.txt", "line 1")
        assert len((await server.call("search", {"query": "p3 p30 p90 p150", "limit": 2})).passages) == 2


async def test_a_call_after_the_stop_is_an_error_and_raises_nothing(folder: Path) -> None:
    async with serving(folder) as server:
        pass
    assert (await server.call("search", {"query": "vehicle"})).is_error
    assert "stopped" in (server.problem or "")


async def test_a_damaged_index_is_set_aside_and_made_anew(folder: Path) -> None:
    async with serving(folder):
        pass
    index = folder.parent / "index"
    for place in (4096, 100):
        given = index.read_bytes()
        index.write_bytes(given[:place] + b"\xff" * (len(given) - place))
        async with serving(folder, interval_s=0.01) as server:
            while (await server.call("search", {"query": "feline"})).is_error:
                pass
            assert await paths(server, "feline") == ["cat.txt"]
        assert index.with_name("index.damaged").exists()
        index.with_name("index.damaged").unlink()


def test_other_languages_have_an_index_of_their_own(folder: Path) -> None:
    one, other = (index_path("papers", Documents(folder=folder, languages=(each,))) for each in ("en", "de"))
    assert one != other


async def test_nothing_found_and_wrong_arguments_are_told(folder: Path) -> None:
    async with serving(folder) as server:
        found = await server.call("search", {"query": "quokka"})
        assert (found.is_error, found.passages) == (False, [])
        assert "Nothing found" in found.text
        for tool, arguments in (
            ("search", {}),
            ("search", {"query": " "}),
            ("search", {"query": "x", "limit": 11}),
            ("search", {"query": "x", "limit": True}),
            ("read", {"path": "../index"}),
            ("read", {"path": "cat.txt", "place": "here"}),
            ("read", {"path": "cat.txt", "place": "lines 90-99"}),
            ("write", {"path": "cat.txt"}),
        ):
            assert (await server.call(tool, arguments)).is_error, arguments


async def test_read_goes_on_where_it_stopped_without_repeating(folder: Path) -> None:
    async with serving(folder) as server:
        result = await server.call("read", {"path": "long.txt"})
        text = "".join(each.text for each in result.passages)
        assert text.startswith("p0 p0")
        assert len(text) < 13_000
        assert "goes on: read lines" in result.text
        assert [text.count(f"p{number} ") for number in (0, 7, 13)] == [44, 44, 44]
        middle = await server.call("read", {"path": "long.txt", "place": "lines 200-201"})
        assert any("p100" in each.text for each in middle.passages)
        end = await server.call("read", {"path": "long.txt", "place": "line 399"})
        assert "ends here" in end.text


async def test_new_changed_and_deleted_files_are_noticed(folder: Path) -> None:
    async with serving(folder, interval_s=0.01) as server:
        (folder / "new.txt").write_text("A wombat digs.")
        while await paths(server, "wombat") != ["new.txt"]:
            pass
        (folder / "new.txt").unlink()
        while await paths(server, "wombat"):
            pass


async def test_an_index_outlives_a_folder_that_is_away_for_a_while(folder: Path) -> None:
    async with serving(folder):
        pass
    folder.rename(folder.parent / "away")
    server = open_documents("papers", Documents(folder=folder, index=folder.parent / "index"), {}, 0.01)
    await server.start()
    try:
        assert await eventually(lambda: "papers" in (server.problem or ""))
        (folder.parent / "away").rename(folder)
        assert await eventually(lambda: server.problem is None)
        assert await paths(server, "feline") == ["cat.txt"]
    finally:
        await server.stop()


async def test_a_server_that_stops_at_once_leaves_an_index_that_the_next_one_completes(folder: Path) -> None:
    for number in range(100):
        (folder / f"{number}.html").write_text(f"<p>animal{number}</p>")
    server = open_documents("papers", Documents(folder=folder, index=folder.parent / "index"))
    await server.start()
    assert await eventually((folder.parent / "index.lock").exists)
    await server.stop()
    for number in range(2, 100):
        (folder / f"{number}.html").unlink()
    async with serving(folder) as again:
        assert await paths(again, "animal0 animal1 animal50") == ["0.html", "1.html"]


async def test_two_servers_of_one_index_both_search_it(folder: Path) -> None:
    async with serving(folder) as first:
        with closing(Index(folder.parent / "index", ("en",))) as index, index.writing(folder):
            second = open_documents("papers", Documents(folder=folder, index=folder.parent / "index"))
            await second.start()
            try:
                assert await eventually(lambda: second.problem is None)
                assert await paths(second, "feline") == await paths(first, "feline") == ["cat.txt"]
            finally:
                await second.stop()


async def test_passages_are_found_by_meaning_and_ranked_with_those_by_words(folder: Path, tmp_path: Path) -> None:
    async with (
        scripted(tmp_path, vector=about_animals) as emb,
        serving(folder, {"emb": emb.engine}, embedder="emb") as server,
    ):
        embedded = eventually(lambda: sum(len(body["input"]) for body in emb.bodies) >= 3)
        assert await embedded
        while not await paths(server, "kitten"):
            pass
        assert (await paths(server, "kitten"))[0] == "cat.txt"
        asked = len(emb.bodies)
        await paths(server, "kitten")
        assert len(emb.bodies) == asked + 1


async def test_a_failed_embedder_leaves_the_words_and_is_told(folder: Path, tmp_path: Path) -> None:
    async with (
        scripted(tmp_path, vector=about_animals) as emb,
        serving(folder, {"emb": emb.engine}, embedder="emb") as server,
    ):
        while not await paths(server, "kitten"):
            pass
        emb.refusal = lambda _: (500, {"error": {"message": "broken"}})
        result = await server.call("search", {"query": "vehicle"})
        assert result.passages[0].path == "car.txt"
        assert "words alone" in result.text
        emb.refusal = lambda _: None
        emb.engine.status.state = "asleep"
        result = await server.call("search", {"query": "vehicle"})
        assert (result.passages[0].path, "emb is asleep" in result.text) == ("car.txt", True)


async def test_a_text_that_the_embedder_refuses_costs_no_other_its_vector(folder: Path, tmp_path: Path) -> None:
    def refusal(body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        return (400, {"error": {"message": "too long"}}) if any("vehicle" in text for text in texts) else None

    async with (
        scripted(tmp_path, vector=about_animals, refusal=refusal) as emb,
        serving(folder, {"emb": emb.engine}, embedder="emb") as server,
    ):
        while not await paths(server, "kitten"):
            pass
        assert (await paths(server, "kitten"))[0] == "cat.txt"


async def test_a_reranker_puts_the_best_first_and_its_failure_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / "two.txt").write_text("A vehicle, a vehicle, a vehicle!")
    async with (
        scripted(tmp_path, task="rerank", worth=lambda text: float("parked" in text)) as rank,
        serving(folder, {"rank": rank.engine}, reranker="rank") as server,
    ):
        assert await paths(server, "vehicle") == ["car.txt", "two.txt"]
        rank.refusal = lambda _: (500, {"error": {"message": "broken"}})
        result = await server.call("search", {"query": "vehicle"})
        assert (len(result.passages), "not reranked" in result.text) == (2, True)


def test_what_two_rankings_agree_on_comes_first() -> None:
    assert fused([1, 2, 3], [4, 2, 5]) == [2, 1, 4, 3, 5]
    assert fused([], [7]) == [7]


async def test_a_file_of_which_a_part_is_read_is_not_said_to_end_there(folder: Path) -> None:
    Scanner(folder, folder.parent / "index", ("en",), ReadingLimits(chars=2000)).scan()
    async with serving(folder) as server:
        last = await server.call("read", {"path": "long.txt"})
        beyond = await server.call("read", {"path": "long.txt", "place": "line 399"})
        whole = await server.call("read", {"path": "cat.txt"})
    assert "has more text" in last.text
    assert beyond.is_error
    assert "what follows cannot" in beyond.text
    assert "ends here" in whole.text

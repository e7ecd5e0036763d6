"""What a run found and what its answer cites, as clients of each API get it."""

import json
from typing import Any

import aiohttp
import pytest
from openai.types.responses import ResponseOutputMessage, ResponseOutputTextAnnotationAddedEvent

from cappella.telemetry.found_sources import MAX_TEXT_CHARS
from support.fake_engines import FakeEngines, gateway_config, judge_script, serving
from support.found_passages import FAQ, LONG, RATES, find
from support.scripted_engine import Json, Script

WRITTEN = ("28 EUR [S1", ", S9], or 24", " [S2].")
ANSWER = "28 EUR [S1], or 24 [S2]."
ANNOTATIONS = [
    {"type": "file_citation", "index": 7, "file_id": "S1", "filename": "travel/rates.md"},
    {"type": "file_citation", "index": 19, "file_id": "S2", "filename": "hr/faq.md"},
]


async def post(fake_engines: FakeEngines, path: str, **body: Any) -> str:
    messages: Json = {"messages": [{"role": "user", "content": "How much?"}], "max_tokens": 50}
    asked: Json = {"input": "How much?"} if path == "responses" else messages
    async with (
        serving(fake_engines, gateway_config()) as url,
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/{path}", json={"model": "cappella/default", **asked, **body}) as reply,
    ):
        text = await reply.text()
    assert reply.status == 200, text
    return text


def events_of(text: str) -> list[Json]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


@pytest.fixture
def found(fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    find(monkeypatch, RATES, FAQ, LONG)
    fake_engines.let("ann", Script(("28 [S1]",)))
    fake_engines.let("judge", judge_script(Script(WRITTEN)))


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
@pytest.mark.parametrize("stream", [False, True])
async def test_each_api_tells_what_was_found_and_cited(fake_engines: FakeEngines, path: str, stream: bool) -> None:
    text = await post(fake_engines, path, stream=stream, fusion={"include_intermediate_responses": True})
    told = [event.get("response", event) for event in events_of(text)] if stream else [json.loads(text)]
    (fusion,) = [each["fusion"] for each in told if "fusion" in each]
    assert fusion["sources"][0] == {
        "handle": "S1",
        "documents": "handbook",
        "path": "travel/rates.md",
        "place": "page 2",
        "title": "Rates 2024",
        "text": RATES.text,
        "found_by": ["ann", "bob"],
        "cited": True,
        "cited_by": ["ann"],
    }
    assert [(each["handle"], each["cited"], each["cited_by"]) for each in fusion["sources"]][1:] == [
        ("S2", True, []),
        ("S3", False, []),
    ]
    long = fusion["sources"][2]
    assert (len(long["text"]), long["text_chars"]) == (MAX_TEXT_CHARS, len(LONG.text))
    assert fusion["source_counts"] == {"found": 3, "cited": 2}
    assert fusion["removed_citations"] == ["S9"]


@pytest.mark.usefixtures("found")
async def test_without_intermediate_responses_only_cited_sources_are_told(fake_engines: FakeEngines) -> None:
    fusion = json.loads(await post(fake_engines, "chat/completions"))["fusion"]
    assert [each["handle"] for each in fusion["sources"]] == ["S1", "S2"]
    assert fusion["source_counts"] == {"found": 3, "cited": 2}


async def test_a_run_that_found_nothing_tells_no_sources(fake_engines: FakeEngines) -> None:
    reply = json.loads(await post(fake_engines, "chat/completions"))
    assert not {"sources", "source_counts", "removed_citations"} & set(reply["fusion"])
    annotations = json.loads(await post(fake_engines, "responses"))["output"][-1]["content"][0]["annotations"]
    assert annotations == []


@pytest.mark.usefixtures("found")
async def test_a_removed_citation_is_an_event_of_the_stream(fake_engines: FakeEngines) -> None:
    chunks = events_of(await post(fake_engines, "chat/completions", stream=True, fusion={"include_events": True}))
    told = [chunk["fusion_event"] for chunk in chunks if "fusion_event" in chunk]
    assert {"type": "citations.removed", "handles": ["S9"]} in told
    content = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert content == ANSWER


@pytest.mark.usefixtures("found")
async def test_a_response_has_annotations_as_openais_client_reads_them(fake_engines: FakeEngines) -> None:
    reply = json.loads(await post(fake_engines, "responses"))
    part = ResponseOutputMessage.model_validate(reply["output"][-1]).content[0]
    assert part.type == "output_text"
    assert (part.text, [each.model_dump() for each in part.annotations]) == (ANSWER, ANNOTATIONS)


@pytest.mark.usefixtures("found")
async def test_a_streamed_response_adds_each_annotation_behind_its_text(fake_engines: FakeEngines) -> None:
    events = events_of(await post(fake_engines, "responses", stream=True))
    text, added = "", list[Any]()
    for event in events:
        if event["type"] == "response.output_text.delta":
            text += event["delta"]
        if event["type"] == "response.output_text.annotation.added":
            assert text[event["annotation"]["index"] :].startswith("[S")
            added.append(ResponseOutputTextAnnotationAddedEvent.model_validate(event))
    assert [each.annotation.model_dump() for each in added] == ANNOTATIONS
    assert [each.annotation_index for each in added] == [0, 1]
    (done,) = [event for event in events if event["type"] == "response.content_part.done"]
    assert done["part"]["annotations"] == ANNOTATIONS
    assert events[-1]["response"]["output"][-1]["content"][0]["annotations"] == ANNOTATIONS

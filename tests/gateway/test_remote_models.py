"""Configs with models of servers that run elsewhere: a gateway over them alone, and every command that reads a config."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cappella.bundle import contents
from cappella.config import load
from cappella.doctor.checks import checks
from cappella.errors import ConfigError
from cappella.placement import machine, report
from cappella.placement.report import as_dict
from support.attached_house import House, house
from support.fake_engines import eventually
from support.plain_server import PlainServer

Json = dict[str, Any]


@pytest.fixture
async def server() -> AsyncIterator[PlainServer]:
    server = await PlainServer().start()
    yield server
    await server.stop()


def config(tmp_path: Path, servers: dict[str, PlainServer], **more: Any) -> Path:
    models = {
        name: {"url": server.url, "model": server.model, "max_model_len": 4096} for name, server in servers.items()
    }
    ensemble = {"panel": list(servers), "judge": next(iter(servers)), "analysis": "off", **more}
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({"models": models, "ensembles": {"default": ensemble}}))
    return path


@pytest.fixture
async def other() -> AsyncIterator[PlainServer]:
    server = await PlainServer(model="Other", says="Good day").start()
    yield server
    await server.stop()


@pytest.fixture
async def two(server: PlainServer, other: PlainServer, tmp_path: Path) -> AsyncIterator[House]:
    async with house(config(tmp_path, {"big": server, "other": other})) as found:
        yield found


async def test_an_ensemble_of_remote_models_alone_answers_and_is_counted(two: House) -> None:
    status, reply = await two.ask(fusion={"include_intermediate_responses": True})
    assert status == 200
    assert reply["fusion"]["status"] == "ok"
    assert sorted(each["content"].strip() for each in reply["fusion"]["responses"]) == ["Good day", "Hello from afar"]
    assert {each["prompt_tokens"] for each in reply["usage"]["fusion_details"] if each["role"] == "panel"} == {21}
    assert (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]) == (21, 3)  # no estimate


async def test_a_remote_model_has_no_place_in_the_plan_and_nothing_to_operate(two: House) -> None:
    assert as_dict(two.supervisor.plan)["models"] == []
    assert two.supervisor.process_groups() == {}
    big = (await two.get("/api/machine"))["engines"]["big"]
    assert (big["state"], big["planned"], big["actions"]) == ("ready", None, [])
    assert big["url"].startswith("http://127.0.0.1:")
    status, reply = await two.ask("/api/engines/big/restart")
    assert (status, reply["error"]["code"]) == (409, "action_refused")
    assert "runs on a remote server" in reply["error"]["message"]


async def test_it_answers_by_its_own_name_through_the_apis_that_its_server_has(two: House) -> None:
    status, reply = await two.ask(model="big")
    assert (status, reply["choices"][0]["message"]["content"]) == (200, "Hello from afar")
    status, reply = await two.ask("/v1/responses", model="big", input="Hi", messages=None)
    assert status == 400
    assert "does not support /v1/responses" in reply["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"fusion": {"strategy": "select"}}, "strategy select has the judge choose"),
        ({"fusion": {"strategy": "vote"}}, "strategy vote has the judge choose"),
        ({"fusion": {"analysis": "before"}}, "json_schema"),
        ({"fusion": {"early_exit": "judge"}}, "early_exit: judge"),
        ({"response_format": {"type": "json_object"}}, "does not support response_format"),
        ({"logprobs": True}, "does not report logprobs"),
        ({"top_k": 4}, "no top_k"),
    ],
)
async def test_a_request_for_what_the_judge_cannot_do_is_refused_by_its_name(
    two: House, fields: Json, says: str
) -> None:
    status, reply = await two.ask(**fields)
    assert (status, reply["error"]["type"]) == (400, "invalid_request_error")
    assert says in reply["error"]["message"]


async def test_a_run_goes_on_without_a_member_whose_server_is_gone(two: House, other: PlainServer) -> None:
    await other.stop()
    status, reply = await two.ask(fusion={"min_successful_responses": 1})
    assert status == 200
    assert [each["model"] for each in reply["fusion"]["failed_models"]] == ["other"]
    assert await eventually(lambda: two.supervisor.statuses["other"].state == "unhealthy", 10)
    status, reply = await two.ask(fusion={"min_successful_responses": 1})
    assert status == 200
    assert [each["reason"] for each in reply["fusion"]["failed_models"]] == ["not_ready"]
    assert (await two.get("/ready"))["ensembles"] == {"default": False}


async def test_a_reload_adds_keeps_and_ends_remote_models(two: House, server: PlainServer) -> None:
    third = await PlainServer(model="Third").start()
    raw = json.loads(two.path.read_text())
    kept = two.supervisor.engines["big"]
    raw["models"]["third"] = {"url": third.url, "model": "Third", "max_model_len": 64}
    del raw["models"]["other"]
    raw["ensembles"]["default"]["panel"] = ["big", "third"]
    two.path.write_text(json.dumps(raw))
    told = await two.app.state.reloader.reload()
    assert (told["started"], told["ended"], told["kept"]) == (["third"], ["other"], ["big"])
    assert two.supervisor.engines["big"] is kept
    assert (await two.ask())[0] == 200
    await third.stop()


async def test_doctor_says_whether_the_server_has_the_model(server: PlainServer, tmp_path: Path) -> None:
    loaded = load.load(config(tmp_path, {"big": server}))

    async def found() -> tuple[str, str]:
        each = next(each for each in await asyncio.to_thread(lambda: list(checks(loaded))) if "big" in each.name)
        return each.level, each.found

    assert await found() == ("ok", f"{server.url} has Big/Model-70B")
    server.model = "Other"
    level, text = await found()
    assert level == "warn"
    assert "no model 'Big/Model-70B'" in text


@pytest.mark.parametrize(
    ("model", "ensemble", "says"),
    [
        (
            {"url": "http://10.0.0.7:8000/v1"},
            {},
            r"models\.big\.url: 10\.0\.0\.7 is neither on this machine.*may_reach",
        ),
        ({"url": "http://big.lan:8000/v1"}, {}, r"models\.big\.url: big\.lan is neither on this machine.*IP address"),
        ({"url": "http://127.0.0.1:8000"}, {}, r"models\.big\.url: .*not the URL of an API"),
        ({"url": "ftp://127.0.0.1/v1"}, {}, r"models\.big\.url: .*not the URL of an API"),
        ({"url": "http://me:pw@127.0.0.1/v1"}, {}, r"models\.big\.url: .*not the URL of an API"),
        ({"weights": "w"}, {}, r"models\.big: weights and url exclude each other"),
        ({"kv_cache_bytes": "1MiB"}, {}, r"models\.big: kv_cache_bytes can be set only for a model with weights"),
        ({"urll": "x"}, {}, r"models\.big\.urll: unknown key\. Did you mean url\?"),
        ({"max_model_len": 3}, {}, r"models\.big\.max_model_len"),
        ({}, {"analysis": "before"}, r"default\.judge: big cannot judge here: .*json_schema.*Set analysis: off"),
        ({}, {"strategy": "select"}, r"default\.judge: big cannot judge here: .*logprobs.*synthesize"),
        ({"json_schema": True}, {"presets": {"q": {"strategy": "vote"}}}, r"presets\.q\.judge: big cannot judge"),
        ({}, {"early_exit": "judge"}, r"default\.judge: .*early_exit: judge has it choose"),
        ({}, {"gate": {"mode": "judge", "model": "big"}}, r"default\.judge: .*gate: judge has it choose"),
        ({}, {"panel": [{"model": "big", "top_k": 4}]}, r"panel\.0: big cannot have this seat: .*top_k"),
        (
            {},
            {"panel": [{"model": "big", "samples": 2}]},
            r"panel\.0: big cannot have this seat: .*list the model several",
        ),
        ({}, {"tools": True}, r"the ensemble has tools: true, and big has no tools\. Set models\.big\.tools"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, model: Json, ensemble: Json, says: str) -> None:
    big = {"url": "http://127.0.0.1:8000/v1", "max_model_len": 4096, **model}
    default = {"panel": ["big"], "judge": "big", "analysis": "off", **ensemble}
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({"models": {"big": big}, "ensembles": {"default": default}}))
    with pytest.raises(ConfigError, match=says):
        load.load(path)


def test_a_listed_address_and_an_api_of_vllm_are_taken(tmp_path: Path) -> None:
    big = {"url": "https://10.0.0.7/llm/v1/", "max_model_len": 64, "api": "vllm", "key_file": "big.key"}
    default = {"panel": ["big"], "judge": "big", "strategy": "select"}
    path = tmp_path / "c.yaml"
    raw = {"models": {"big": big}, "ensembles": {"default": default}, "server": {"may_reach": ["10.0.0.7"]}}
    path.write_text(json.dumps(raw))
    found = load.load(path).remote["big"]
    assert (found.url, found.key_file) == ("https://10.0.0.7/llm/v1", tmp_path / "big.key")
    assert found.capabilities.extensions


def test_a_plan_names_it_and_gives_it_no_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, {"big": PlainServer(port=9)})
    report.show(load.load(path), machine.described("1x24GiB"), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["models"], told["remote"]) == ([], [{"model": "big", "url": "http://127.0.0.1:9/v1"}])
    report.show(load.load(path), machine.described("1x24GiB"), as_json=False)
    assert "big: remote, at http://127.0.0.1:9/v1" in capsys.readouterr().out


def test_a_bundle_has_its_address_and_not_its_key(tmp_path: Path) -> None:
    path = config(tmp_path, {"big": PlainServer(port=9)})
    raw = json.loads(path.read_text())
    raw["models"]["big"]["key_file"] = "big.key"
    path.write_text(json.dumps(raw))
    (tmp_path / "big.key").write_text("sk-1")
    loaded = load.load(path)
    items = [*contents.configs(path, loaded), *contents.weights(loaded)]
    assert {item.role for item in items} == {"config"}
    served = next(item.content for item in items if isinstance(item.content, bytes))
    assert yaml.safe_load(served)["models"]["big"] == raw["models"]["big"]
    assert contents.left_behind(loaded) == ["models.big.key_file"]

"""Engines that refuse invalid conversations as vLLM does, and a config with keys."""

from pathlib import Path

from cappella.config import Config
from support.fake_engines import MEMBERS, FakeEngines, judge_script
from support.scripted_engine import Json, Script

_NO_CONVERSATION = {"error": {"message": "no conversation", "type": "BadRequestError", "param": None, "code": 400}}


def make_strict(fake_engines: FakeEngines) -> FakeEngines:
    """Make every engine refuse invalid conversations instead of failing on them."""
    for name in (*MEMBERS, "judge"):
        fake_engines.let(name, _strictly)
    return fake_engines


def with_keys(config: Config, path: Path) -> Config:
    """The config with a key file at `path`."""
    return config.model_copy(update={"server": config.server.model_copy(update={"keys": path})})


def _strictly(body: Json) -> Script:
    if "messages" not in body and {"prompt", "input"} & set(body):
        return Script()
    messages = body.get("messages")
    if isinstance(messages, list) and messages and all(isinstance(m, dict) and "content" in m for m in messages):
        return judge_script()(body)
    return Script(refuse=(400, _NO_CONVERSATION))

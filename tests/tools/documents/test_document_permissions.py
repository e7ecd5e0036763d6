"""Which documents the runs of a key may search."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.auth.keys import KeyStore
from cappella.config import Config, Documents
from cappella.config.options import Settings
from cappella.ensemble.pipeline import Pipeline
from support.fake_engines import FakeEngines, gateway_config, judge_script, serving
from support.strict_gateway import with_keys


def with_documents(config: Config, folder: Path) -> Config:
    return config.model_copy(update={"documents": {name: Documents(folder=folder) for name in ("handbook", "wages")}})


async def test_of_two_keys_one_may_search_what_the_other_may_not(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    withheld: list[frozenset[str]] = []
    run = Pipeline.run

    async def noted(self: Pipeline, prompt: Any, settings: Settings, *rest: Any, **more: Any) -> Any:
        withheld.append(settings.withheld_tools)
        return await run(self, prompt, settings, *rest, **more)

    monkeypatch.setattr(Pipeline, "run", noted)
    fake_engines.let("judge", judge_script())
    store = KeyStore(tmp_path / "keys")
    keys = [store.create("ann", ["run"]), store.create("bob", ["run"], documents=["handbook"])]
    config = with_documents(with_keys(gateway_config(), tmp_path / "keys"), tmp_path)
    async with serving(fake_engines, config) as url, aiohttp.ClientSession() as http:
        for key in keys:
            body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}
            headers = {"Authorization": f"Bearer {key}"}
            async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as reply:
                assert reply.status == 200, await reply.text()
    assert withheld == [frozenset(), {"wages"}]

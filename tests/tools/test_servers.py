"""The tool servers of a config as a set: made, counted, exchanged."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config, load
from cappella.errors import ConfigError
from cappella.tools.base import STOPPED
from cappella.tools.servers import ToolServers, require_installed
from support.fake_engines import gateway_config
from support.tool_server import command, serves


def with_tools(**tools: Any) -> Config:
    return Config.model_validate({**gateway_config().model_dump(exclude_unset=True), "tools": tools})


async def test_calls_and_failures_are_counted(tmp_path: Path) -> None:
    async with ToolServers(with_tools(small={"command": command()}), tmp_path, {}).running() as servers:
        small = servers["small"]
        await serves(small)
        await small.call("echo", {"text": "Hello."})
        await small.call("echo", {})
        assert (small.calls, small.failed) == (2, 1)


async def test_of_another_config_servers_with_the_same_settings_live_on(tmp_path: Path) -> None:
    small, ends = {"command": command()}, {"command": command("prints")}
    async with ToolServers(with_tools(small=small, other=small), tmp_path, {}).running() as old:
        await serves(old["small"])
        new = old.for_config(with_tools(small=small, other=ends), {})
        await new.start()
        await serves(new["other"])
        assert new["small"] is old["small"]
        assert new["other"] is not old["other"]
        await new.stop_others()
        assert old["other"].problem == STOPPED
        assert new["small"].problem is None
    assert {server.problem for server in new.values()} == {STOPPED}


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ConfigError, match=r"tools.small: mcp is not installed. pip install 'cappella\[mcp\]'"):
        require_installed(with_tools(small={"command": command()}))


def test_a_config_without_tools_does_not_import_their_libraries() -> None:
    source = (
        "import cappella.gateway.app, cappella.tools.servers, sys;"
        " assert not {'mcp', 'pint', 'numpy', 'duckdb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", source], check=True)


def written(folder: Path, tools: str, may_reach: str = "[]") -> Path:
    path = folder / "c.yaml"
    path.write_text(
        f"""models: {{ann: {{url: 'http://127.0.0.1:1/v1', max_model_len: 1000}}}}
ensembles: {{default: {{panel: [ann], judge: ann, analysis: 'off'}}}}
server: {{may_reach: {may_reach}}}
tools:
{tools}
"""
    )
    return path


@pytest.mark.parametrize(
    ("tools", "place"),
    [
        ("  far: {url: 'http://10.0.0.9/mcp'}", "tools.far.url: 10.0.0.9 is neither on this machine nor in"),
        ("  far: {url: 'http://wiki.example/mcp'}", "tools.far.url: wiki.example is neither on this machine nor in"),
        ("  git: {command: [git-server], may_reach: [10.0.0.9]}", "tools.git.may_reach: 10.0.0.9 is not in"),
    ],
)
def test_an_address_elsewhere_is_an_error_with_its_line(tmp_path: Path, tools: str, place: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load.load(written(tmp_path, tools))
    assert f"c.yaml:5: {place} server.may_reach" in str(raised.value)


def test_an_address_of_may_reach_is_no_error(tmp_path: Path) -> None:
    tools = "  far: {url: 'http://10.0.0.9/mcp'}\n  git: {command: [git-server], may_reach: [10.0.0.9]}"
    assert list(load.load(written(tmp_path, tools, "[10.0.0.9]")).tools) == ["far", "git"]


def test_paths_are_relative_to_the_config(tmp_path: Path) -> None:
    tools = "  git: {command: [./serve, --fast]}\n  far: {url: 'http://127.0.0.1:9/mcp', key_file: key}"
    config = load.load(written(tmp_path, tools)).tools
    assert config["git"].command == (str(tmp_path / "serve"), "--fast")  # type: ignore[union-attr]
    assert config["git"].folder == tmp_path  # type: ignore[union-attr]
    assert config["far"].key_file == tmp_path / "key"  # type: ignore[union-attr]

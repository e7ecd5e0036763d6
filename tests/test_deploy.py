"""What scripts/deploy has: systemd knows every word of the unit, and unit, container and page say the same."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from cappella.config import Server
from cappella.gateway.http_server import CANCEL_GRACE_S, ENGINES_STOP_S
from support.real_deployment import ROOT

DEPLOY = ROOT / "scripts" / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
PAGE = (ROOT / "runtime" / "cappella" / "docs" / "operations.md").read_text()
MAX_EXPOSURE = "20"
"""Of 100, by systemd's own reckoning: 17 when this was written."""
NEEDED_S = Server().drain_s + CANCEL_GRACE_S + ENGINES_STOP_S

analyze = shutil.which("systemd-analyze") or ""
needs_systemd = pytest.mark.skipif(not analyze, reason="systemd-analyze is not here")


def unit() -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "cappella.service")
    return parser


def compose() -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return whole


def healthcheck() -> list[str]:
    """The container's command, by this Python."""
    found = re.search(r"^HEALTHCHECK .*?CMD (\[.*?\])$", CONTAINERFILE.replace("\\\n", ""), re.MULTILINE)
    assert found
    return [sys.executable, *json.loads(found[1])[1:]]


@needs_systemd
def test_systemd_knows_every_word_of_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "cappella.service").read_text()
    copy = tmp_path / "cappella.service"
    copy.write_text(text.replace("/opt/cappella/current/venv/bin/cappella", sys.executable))
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_unit_is_as_closed_as_systemd_can_reckon() -> None:
    command = [analyze, "security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", str(DEPLOY / "cappella.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_unit_and_container_write_to_the_same_folders() -> None:
    service = unit()["Service"]
    kinds = {"StateDirectory": "/var/lib", "LogsDirectory": "/var/log", "CacheDirectory": "/var/cache"}
    folders = {f"{parent}/{service[kind]}" for kind, parent in kinds.items()}
    container = compose()["services"]["cappella"]
    assert {volume.split(":")[1] for volume in container["volumes"]} == folders
    made = re.search(r"^RUN install -d .* -m 0700 (.*)$", CONTAINERFILE, re.MULTILINE)
    assert made
    assert set(made[1].split()) == folders
    assert re.findall(r"^ENV (\S+)$", CONTAINERFILE, re.MULTILINE) == [service["Environment"]]
    assert all(folder in PAGE for folder in folders)


def test_whoever_stops_it_waits_until_it_has_drained_and_its_engines_have_ended() -> None:
    assert float(unit()["Service"]["TimeoutStopSec"]) > NEEDED_S
    assert float(compose()["services"]["cappella"]["stop_grace_period"].removesuffix("s")) > NEEDED_S


def test_the_container_is_not_root_has_no_way_out_and_nothing_to_gain() -> None:
    container, networks = compose()["services"]["cappella"], compose()["networks"]
    assert (container["read_only"], container["cap_drop"]) == (True, ["ALL"])
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in container
    assert all(networks[name]["internal"] for name in container["networks"])
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", CONTAINERFILE, re.MULTILINE)


async def test_the_health_check_hears_a_gateway_and_its_silence(gateway: str) -> None:
    command = [part.replace("http://127.0.0.1:8000", gateway) for part in healthcheck()]
    assert command != healthcheck()
    alive = await asyncio.create_subprocess_exec(*command)
    assert await alive.wait() == 0
    nowhere = [part.replace(gateway, "http://127.0.0.1:9") for part in command]
    silent = await asyncio.create_subprocess_exec(*nowhere, stderr=subprocess.DEVNULL)
    assert await silent.wait() != 0


@pytest.mark.parametrize("block", re.findall(r"```yaml\nserver:\n(.*?)```", PAGE, re.DOTALL))
def test_a_config_that_the_page_shows_is_one(block: str) -> None:
    Server.model_validate(yaml.safe_load(block))

"""`cappella doctor --sealed` over real vLLM: the demo passes, and a plugin that connects outside is found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.network_namespace import NATIVE_VIOLATOR, PYTHON_VIOLATOR, needs_namespaces
from support.python_overlay import doctor, overlay
from support.real_deployment import ROOT
from support.stub_engine import environment

pytestmark = [pytest.mark.vllm, pytest.mark.long]

DEMO = ROOT / "model_configs" / "demo-adapters.yaml"
# Gloo would look up the machine's name, which /etc/hosts has here, but elsewhere a server would be asked.
UNKNOWN_NAME = 'set -- unshare --user --map-root-user --uts sh -c \'hostname llm-box.example; exec "$@"\' sh "$@"'


@needs_namespaces
def test_the_demo_reaches_nothing_outside_not_even_for_its_own_name() -> None:
    done = doctor(sys.executable, str(DEMO), "--sealed", "--json", before=UNKNOWN_NAME)
    report = json.loads(done.stdout)
    assert (report["attempts"], report["listening"], report["unseen"]) == ([], [], 0)
    asked = ["cappella/default", "conductor", "second", "soprano", "third"]
    assert sorted(each["model"] for each in report["asked"]) == asked
    assert [each["error"] for each in report["asked"]] == [None] * 5
    assert done.returncode == 0


@needs_namespaces
def test_every_attempt_of_a_vllm_plugin_that_phones_home_is_found(tmp_path: Path) -> None:
    config = tmp_path / "solo.yaml"
    weights = str(ROOT / "model_configs" / "demo" / "soprano")
    model = {"weights": weights, "max_model_len": 512, "kv_cache_bytes": "16MiB", "enforce_eager": True}
    ensemble = {"panel": ["soprano"], "judge": "soprano", "analysis": "off"}
    config.write_text(json.dumps({"models": {"soprano": model}, "ensembles": {"default": ensemble}}))
    both = f"{PYTHON_VIOLATOR.replace('register', 'in_python')}{NATIVE_VIOLATOR.replace('register', 'natively')}"
    plugin = f"{both}\ndef register():\n    in_python()\n    natively()\n"
    done = doctor(overlay(tmp_path / "python", False, plugin), str(config), "--sealed", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 3
    assert {(each["seen_by"], each["what"], each["to"]) for each in report["attempts"]} == {
        ("guard", "connect", "192.0.2.7:8125"),
        ("guard", "getaddrinfo", "telemetry.example"),
        ("kernel", "connect", "198.51.100.9:443"),
    }
    assert report["listening"] == ["0.0.0.0 port 4444"]


@needs_namespaces
def test_the_vocabulary_of_gpt_oss_is_here() -> None:
    code = (
        "from cappella.sealing import namespace, packets; namespace.enter(); watch = packets.PacketWatch()\n"
        "from openai_harmony import HarmonyEncodingName, load_harmony_encoding\n"
        "print(load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS).encode('hello world'))\n"
        "watch.close(); print(list(watch.sent))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(Path()), capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[24912, 2375]", "[]"], done.stderr

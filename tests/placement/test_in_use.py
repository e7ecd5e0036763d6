"""`cappella plan` while other processes, such as the same config's engines, hold the GPUs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cappella.config import Config
from cappella.errors import DoesNotFit
from cappella.placement import gpus, machine, report
from cappella.placement.machine import Machine

CARD = "Qwen/Qwen3-8B"


def config() -> Config:
    card = Path(str(machine.__file__)).parents[1] / "config" / "model_cards" / "qwen3-8b.yaml"
    models = {"ann": {"weights": "/nowhere", "card": str(card), "max_model_len": 8192}}
    return Config.model_validate({"models": models, "ensembles": {"default": {"panel": ["ann"], "judge": "ann"}}})


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """An H100 with 10 GiB free."""
    whole = machine.described("H100")
    found = replace(whole, devices=[replace(each, free_bytes=10 << 30) for each in whole.devices])
    monkeypatch.setattr(machine, "own", lambda: found)
    monkeypatch.setattr(gpus, "used_bytes", lambda: {1: 60 << 30, 2: 0})
    return found


def test_the_plan_is_for_the_whole_gpu_and_says_what_holds_it(
    busy: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    report.show(config(), None, as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out)["devices"][0]["free_bytes"] == busy.devices[0].total_bytes
    assert "GPU 0: 69.2 of 79.2 GiB are in use, on all GPUs together by " in err
    assert "(process 1) 60.0." in err


def test_a_described_machine_and_a_serve_are_still_refused(busy: Machine) -> None:
    with pytest.raises(DoesNotFit):
        report.show(config(), machine.described("10GiB"), as_json=True)


def test_what_does_not_fit_the_whole_gpu_either_is_refused(busy: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    small = machine.described("12GiB")
    held = replace(small, devices=[replace(each, free_bytes=2 << 30) for each in small.devices])
    monkeypatch.setattr(machine, "own", lambda: held)
    with pytest.raises(DoesNotFit, match=r"11\.6 GiB are available"):
        report.show(config(), None, as_json=True)

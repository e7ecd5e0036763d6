"""The wheel of Cappella itself, as a bundle carries it: the page is in it, whole, and so are the cards."""

import shutil
import zipfile
from pathlib import Path

import pytest

from cappella.bundle import wheels
from cappella.config import cards
from support.real_deployment import ROOT


def test_the_page_and_the_cards_are_in_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "runtime", tree / "runtime", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    web = tree / "runtime" / "cappella" / "gateway" / "web"
    (web / "assets" / "vendor").mkdir(parents=True, exist_ok=True)
    (web / "index.html").write_text("<!doctype html>")
    (web / "assets" / "vendor" / "marks.js").write_text("export {};")
    monkeypatch.setattr(wheels, "SOURCE", tree)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with zipfile.ZipFile(wheels._own()) as wheel:
        inside = set(wheel.namelist())
    files = {path.relative_to(tree / "runtime").as_posix() for path in web.rglob("*") if path.is_file()}
    assert files <= inside
    assert {"cappella/gateway/web/index.html", "cappella/gateway/web/assets/vendor/marks.js"} <= files
    assert {f"cappella/config/model_cards/{path.name}" for path in cards.SHIPPED.iterdir()} <= inside

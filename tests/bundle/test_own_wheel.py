"""The wheel of Cappella itself: from its source tree or from where it is installed, with the page, cards and lists in it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cappella.bundle import locks, own_wheel
from cappella.config import cards
from cappella.errors import ConfigError
from support.real_deployment import ROOT


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the source tree, whose page has two files of its own."""
    folder = tmp_path_factory.mktemp("own")
    tree = folder / "tree"
    shutil.copytree(ROOT / "runtime", tree / "runtime", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    web = tree / "runtime" / "cappella" / "gateway" / "web"
    (web / "assets" / "vendor").mkdir(parents=True, exist_ok=True)
    (web / "index.html").write_text("<!doctype html>")
    (web / "assets" / "vendor" / "marks.js").write_text("export {};")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_wheel, "SOURCE", tree)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return own_wheel.made()


@pytest.fixture
def installed(built: Path, tmp_path: Path) -> Path:
    """The folder in which pip installed that wheel."""
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(site)]
    subprocess.run([*pip, str(built)], check=True)
    return site


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}


def recorded(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("RECORD"))
        return set(archive.read(record).decode().split())


def packed(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel that the installed package makes of itself."""
    monkeypatch.setattr(own_wheel, "SOURCE", site.parent)
    monkeypatch.setattr(sys, "path", [str(site)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return own_wheel.made()


def test_the_page_the_cards_and_the_lists_are_in_the_wheel(built: Path) -> None:
    inside = set(content(built))
    web = ROOT / "runtime" / "cappella" / "gateway" / "web"
    files = {f"cappella/gateway/web/{path.relative_to(web).as_posix()}" for path in web.rglob("*") if path.is_file()}
    assert files <= inside
    assert {"cappella/gateway/web/index.html", "cappella/gateway/web/assets/vendor/marks.js"} <= inside
    assert {f"cappella/config/model_cards/{path.name}" for path in cards.SHIPPED.iterdir()} <= inside
    assert {f"cappella/bundle/locks/{name}.txt" for name in locks.NAMES} <= inside


def test_an_installed_package_makes_the_wheel_that_it_came_from(
    built: Path, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = packed(installed, tmp_path, monkeypatch)
    assert again != built
    assert content(again) == content(built)
    assert recorded(again) == recorded(built)


def test_a_changed_installed_file_is_named_and_no_wheel_is_made_of_it(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = installed / "cappella" / "version.py"
    changed.write_text('__version__ = "9.9.9"\n')
    with pytest.raises(ConfigError, match=r"version\.py: was changed since it was installed"):
        packed(installed, tmp_path, monkeypatch)
    assert not list(tmp_path.rglob("*.whl"))

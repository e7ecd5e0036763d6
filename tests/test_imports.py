"""What may import what. This table is the architecture."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stub_engine import environment

PACKAGE = Path(__file__).parents[1] / "runtime" / "cappella"
MAY_IMPORT = {
    "__main__": "cli",
    "__init__": "runtime",
    "cli": "access audit exits serving terminal reloading remote config bench doctor bundle planning placement reading errors",
    "bench": "pace reading config ensemble engines placement errors types",
    "bundle": "pace reading cards config placement errors vocabulary",
    "reloading": "remote",
    "remote": "errors vocabulary",
    "serving": "app announcing logs tracing api generations planning config engines sealing errors types systemd",
    "systemd": "",
    "announcing": "logs sealing types",
    "doctor": "serving reading config engines placement sealing exits errors types",
    "planning": "placement config",
    "terminal": "pace remote exits errors vocabulary",
    "app": "generations draining access admission api watching metrics ensemble engines placement config errors",
    "watching": "api logs tracing metrics config",
    "logs": "api",
    "tracing": "api sealing config errors runs options types",
    "runtime": "ensemble engines reading events errors runs options types",
    "generations": "api admission draining engines ensemble config errors types",
    "api": "access admission audit draining metrics standing ensemble engines placement config events errors runs options vocabulary types",
    "admission": "config errors options",
    "draining": "errors",
    "access": "exits errors",
    "audit": "bundle config exits errors",
    "exits": "errors",
    "metrics": "standing ensemble runs",
    "standing": "engines placement errors types",
    "ensemble": "engines config events errors runs options vocabulary types",
    "engines": "placement sealing config errors types",
    "placement": "config cards errors",
    "reading": "config cards places errors",
    "config": "places options vocabulary types",
    "cards": "places errors types",
    "places": "errors",
    "events": "runs types",
    "errors": "runs",
    "runs": "options vocabulary types",
    "options": "vocabulary types",
    "vocabulary": "",
    "sealing": "",
    "types": "vocabulary",
    "pace": "",
}


def layers_imported_by(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)]
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        yield from (name.split(".")[1] for name in names if name.startswith("cappella."))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_table(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    imported = set(layers_imported_by(path)) - {"__version__"}
    assert imported <= {layer, *MAY_IMPORT[layer].split()}


def test_the_gateway_imports_neither_torch_nor_vllm() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"torch", "vllm", "transformers"}, path


def test_a_gateway_that_runs_has_imported_neither() -> None:
    code = "import sys, cappella.gateway.serve, cappella.runtime; assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=environment(PACKAGE.parent), check=True)

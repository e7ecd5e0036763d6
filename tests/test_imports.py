"""What may import what. This table is the architecture."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.stub_engine import environment

PACKAGE = Path(__file__).parents[1] / "runtime" / "cappella"
VLLM = "cappella.engines.vllm"
MAY_IMPORT = {
    "__main__": "cli",
    "__init__": "runtime version",
    "cli": "docs tools gateway evaluation bench doctor telemetry bundle engines placement auth config errors vocabulary sse version run_view",
    "doctor": "gateway tools engines placement sealing config errors types",
    "bench": "gateway ensemble engines placement config errors types sse background version",
    "evaluation": "bench tools engines extraction config errors types vocabulary version",
    "gateway": "docs telemetry batch ensemble tools engines placement auth sealing config errors types vocabulary sse background database lenient_json version threads run_view",
    "telemetry": "ensemble tools extraction engines bundle placement auth sealing config errors types vocabulary sse background database version",
    "batch": "ensemble tools engines auth config errors types vocabulary background threads database lenient_json",
    "runtime": "ensemble tools engines config errors types",
    "ensemble": "tools extraction engines config errors types vocabulary background threads",
    "tools": "engines sealing config errors types vocabulary background threads database version",
    "engines": "placement sealing config errors types vocabulary sse background threads version",
    "bundle": "placement config errors vocabulary",
    "placement": "config errors vocabulary",
    "extraction": "vocabulary",
    "config": "extraction errors types vocabulary database",
    "auth": "errors",
    "sealing": "",
    "errors": "",
    "types": "vocabulary",
    "vocabulary": "",
    "docs": "",
    "sse": "",
    "background": "",
    "database": "",
    "lenient_json": "",
    "threads": "",
    "version": "",
    "run_view": "vocabulary",
}


def names_imported_by(path: Path) -> Iterator[str]:
    """The dotted names of all that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)]
        yield from (f"{node.module}.{name}" for name in names) if isinstance(node, ast.ImportFrom) else names


def layers_imported_by(path: Path) -> Iterator[str]:
    yield from (name.split(".")[1] for name in names_imported_by(path) if name.startswith("cappella."))


def packages_imported_by(path: Path) -> Iterator[str]:
    yield from (name.split(".")[0] for name in names_imported_by(path))


def modules() -> Iterator[tuple[str, str, Path]]:
    """Every module's name, its layer and its file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE)
        yield str(name), name.parts[0].removesuffix(".py"), path


def test_imports_follow_the_table() -> None:
    offenders = [
        f"{name} imports {imported}"
        for name, layer, path in modules()
        for imported in sorted(set(layers_imported_by(path)) - {layer, *MAY_IMPORT[layer].split()})
    ]
    assert not offenders, "\n".join(offenders)


def test_the_gateway_imports_neither_torch_nor_vllm() -> None:
    heavy = {"torch", "vllm", "transformers"}
    offenders = [name for name, _, path in modules() if heavy & set(packages_imported_by(path))]
    assert not offenders, "\n".join(offenders)


def test_a_gateway_that_runs_has_imported_neither() -> None:
    code = "import sys, cappella.gateway.serve, cappella.runtime; assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=environment(PACKAGE.parent), check=True)


def test_only_the_factory_and_the_benchmarks_plain_servers_import_the_vllm_backend() -> None:
    importers = {
        name for name, _, path in modules() if any(f"{n}.".startswith(f"{VLLM}.") for n in names_imported_by(path))
    }
    allowed = {"engines/backends.py", "bench/peers.py", "bench/servers.py"}
    assert {name for name in importers if not name.startswith("engines/vllm/")} == allowed
    assert {name for name in files_with(VLLM) if not name.startswith("engines/vllm/")} == allowed


def test_only_their_own_files_and_the_factory_name_the_client_of_vllm_and_the_fork_server() -> None:
    assert files_with("ForkServer") == ["engines/backends.py", "engines/process/process.py"]
    assert files_with("VllmEngine") == [
        "engines/backends.py",
        "engines/vllm/client.py",
        "engines/vllm/pooling.py",
    ]
    assert files_with("vllm:") == ["engines/vllm/metrics.py"]


def files_with(text: str) -> list[str]:
    return [name for name, _, path in modules() if text in path.read_text()]

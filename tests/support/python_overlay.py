"""A Python environment on top of the tests' own, with extra modules that look installed."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from support.real_deployment import ROOT

SITE = Path(sysconfig.get_path("purelib"))

# What launcher.py imports of vLLM, and the loading of plugins; the engine says what its script says.
STUB = {
    "vllm/__init__.py": "",
    "vllm/platforms.py": "class current_platform:\n    is_cpu = staticmethod(lambda: True)",
    "vllm/envs.py": "environment_variables = {}",
    "vllm/entrypoints/launchers/cli_args.py": "",
    "vllm/v1/engine/async_llm.py": "",
    "vllm/v1/engine/core.py": "",
    "vllm/v1/worker/cpu_worker.py": "",
    "vllm/v1/worker/gpu_model_runner.py": "CachedRequestState = None",
    "vllm/v1/executor/uniproc_executor.py": "",
    "vllm/v1/sample/rejection_sampler.py": "",
    "vllm/tool_parsers/utils.py": "def _get_json_schema_from_tools(): pass",
    "setproctitle.py": "def setproctitle(title): pass",
    "vllm/entrypoints/launchers/api_server/entry.py": f"""
import asyncio, sys
from importlib.metadata import entry_points
from pathlib import Path
sys.path.append({str(ROOT / "tests")!r})
from support.scripted_engine import Script, ScriptedEngine

def engine():
    if "--runner" not in sys.argv:
        return ScriptedEngine("engine", lambda body: Script())
    from support.scripted_pooling import ScriptedPooling
    return ScriptedPooling("engine")

async def serve(folder):
    await engine().serve(folder)
    await asyncio.sleep(3600)

def main():
    for plugin in entry_points(group="vllm.general_plugins", name="phone_home"):
        plugin.load()()
    asyncio.run(serve(Path(sys.argv[sys.argv.index("--uds") + 1]).parent))
""",
}


def overlay(folder: Path, stub_vllm: bool, plugin: str | None = None) -> Path:
    """Create the environment and return its interpreter. `plugin` is the source of a vLLM plugin with `register()`."""
    venv.EnvBuilder(symlinks=True).create(folder)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "own.pth").write_text(f"import site; site.addsitedir({str(SITE)!r})\n{ROOT / 'runtime'}\n")
    for name, source in (STUB if stub_vllm else {}).items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    if plugin:
        (site / "phone_home.py").write_text(plugin)
        about = site / "phone_home-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: phone-home\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[vllm.general_plugins]\nphone_home = phone_home:register\n")
    return folder / "bin" / "python"


def doctor(python: Path | str, *arguments: str, before: str = "") -> "subprocess.CompletedProcess[str]":
    """Run `cappella doctor` in that environment, in a shell after the command `before`."""
    command = ["sh", "-c", f'{before}\nexec "$@"', "sh", str(python), "-m", "cappella", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

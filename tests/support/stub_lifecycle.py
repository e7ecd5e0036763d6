"""The lifecycle of one engine over a stub server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from cappella.engines.gpu_memory import GpuMemory, Sleep
from cappella.engines.idleness import Idleness
from cappella.engines.lifecycle import Lifecycle
from cappella.engines.spec import Backoff, EngineSpec
from cappella.engines.start_times import StartTimes
from cappella.engines.status import EngineStatus
from cappella.engines.vllm.client import VllmEngine
from support.fake_engines import eventually
from support.real_deployment import ROOT
from support.stub_engine import fork_server

HEALTH_INTERVAL_S = 0.05

# A server that prints what vLLM prints, answers one token, and has a child of its own, as vLLM has.
STUB = f"""
import asyncio, os, subprocess, sys
from pathlib import Path
sys.path.append({str(ROOT / "tests")!r})
from support import tiny_http
"""
STUB += """
state = {"health": 200, "broken": False}
async def answer(path):
    mode, free = sys.argv[2], Path(sys.argv[1] + ".free")
    if path == "/health": return state["health"], ""
    if path == "/die": state["health"] = 503
    if path == "/close": os.unlink(sys.argv[1])
    if path == "/sleep?level=1" and mode != "holds on": free.write_text("100")
    if path == "/wake_up":
        free.write_text("10")
        state["broken"] = mode == "wakes broken"
    return await chat(mode) if path == "/v1/chat/completions" else (200 if path in PATHS else 404, "")
PATHS = ("/die", "/close", "/sleep?level=1", "/wake_up")
async def chat(mode):
    if state["broken"]: return 500, ""
    if mode == "holds calls": await asyncio.sleep(600)
    done = '{"choices":[{"delta":{"content":"x"},"finish_reason":"length"}]}'
    return 200, "data: " + done + "\\n\\ndata: [DONE]\\n\\n"
def main():
    socket, mode = sys.argv[1:3]
    print("x non-default args", flush=True)
    if mode == "refused":
        print("pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig", flush=True)
        print("  Value error, User-specified max_model_len (9) is greater than 8 [type=value_error, x=y]", flush=True)
        sys.exit(1)
    if mode in ("crash", "mistake"):
        if mode == "crash": print("Starting to load model", flush=True)
        print("(pid=1) ERROR 01-01 [core.py:1] ValueError: the weights are cursed", flush=True)
        sys.exit(1)
    if mode == "silent death": sys.exit(1)
    if mode == "chatters":
        import time
        while True: print("waiting for 1 engine core", flush=True); time.sleep(0.01)
    if mode == "never up": asyncio.run(asyncio.sleep(600))
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    tiny_http.run(socket, answer)
"""


class Stub:
    def __init__(
        self,
        folder: Path,
        mode: str,
        delays_s: tuple[float, ...],
        sleep_mode: bool,
        needs: int = 10,
        start_times: StartTimes | None = None,
        slots: asyncio.Semaphore | None = None,
        stalled_after_s: float = 60.0,
        before_import: str = "",
        sleep_after_s: float | None = None,
    ) -> None:
        self.folder = folder / "run" / "ann"
        status = EngineStatus("ann")
        idle = Idleness(sleep_after_s, status, lambda: self.lifecycle.wake("idle")) if sleep_after_s else None
        self.engine = VllmEngine(
            self.folder / "engine.sock",
            status,
            hold_awake=idle.hold_awake if idle else None,
            keep_awake=idle.keep_awake if idle else nullcontext,
        )
        self.fork_server = fork_server(folder / "modules", before_import + STUB)
        arguments = [str(self.folder / "engine.sock"), mode]
        log = folder / "logs" / "ann.log"
        slots = slots or asyncio.Semaphore(1)
        memory = GpuMemory(self.free_bytes, needs, Sleep(90)) if sleep_mode else None
        spec = EngineSpec(
            arguments,
            self.folder,
            log,
            memory,
            start_times,
            Backoff(delays_s),
            stalled_after_s=stalled_after_s,
            health_interval_s=HEALTH_INTERVAL_S,
        )
        self.lifecycle = Lifecycle(self.engine, self.fork_server, spec, slots, idle)

    def free_bytes(self) -> int:
        """Free memory of the stub's GPU."""
        path = self.folder / "engine.sock.free"
        return int(path.read_text()) if path.exists() else 10

    @property
    def group(self) -> int:
        """The process group of the current launch, which its guardian leads."""
        assert self.lifecycle.process_group
        return self.lifecycle.process_group

    @property
    def state(self) -> str:
        return self.engine.status.state

    async def ready(self) -> bool:
        return await eventually(lambda: self.engine.status.state == "ready", 30)


@asynccontextmanager
async def running_stub(
    folder: Path,
    mode: str = "ok",
    delays_s: tuple[float, ...] = (0.1, 0.1),
    sleep_mode: bool = False,
    needs: int = 10,
    start_times: StartTimes | None = None,
    slots: asyncio.Semaphore | None = None,
    stalled_after_s: float = 60.0,
    before_import: str = "",
    sleep_after_s: float | None = None,
) -> AsyncIterator[Stub]:
    stub = Stub(
        folder, mode, delays_s, sleep_mode, needs, start_times, slots, stalled_after_s, before_import, sleep_after_s
    )
    task = asyncio.create_task(stub.lifecycle.run())
    try:
        yield stub
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stub.fork_server.close()


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def gone(group: int) -> bool:
    """Whether no process of the group is alive."""
    return not members(group)


def members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for pid in _pids():
        try:
            state, _, pgid = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:3]
        except OSError:
            continue
        if int(pgid) == group and state != "Z":
            found.append(pid)
    return sorted(found)


def server_of(group: int) -> int:
    """The guardian leads the group, and the server is the first process that it forked."""
    return members(group)[1]

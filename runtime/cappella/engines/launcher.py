"""vLLM's server as our engines run it. Importing this imports all of vLLM: only the fork server does.

The modules are imported by name so that neither the gateway nor its type checker ever reads them.
"""

import os
import signal
import time
from importlib import import_module
from typing import Any

_ENTRY = "vllm.entrypoints.launchers.api_server.entry"
# What a server, its engine core and its worker import later than at their start.
_LATER = ("vllm.entrypoints.launchers.cli_args", "vllm.v1.engine.async_llm", "vllm.v1.engine.core", "setproctitle")
_LATER_ON_CPU = ("vllm.v1.worker.cpu_worker", "vllm.v1.executor.multiproc_executor")

# A notification can be lost while nobody polls: no poll is longer than this.
POLL_MS = 1

_entry = import_module(_ENTRY)
_on_cpu = import_module("vllm.platforms").current_platform.is_cpu()
for _module in _LATER + _LATER_ON_CPU * _on_cpu:
    import_module(_module)


def main() -> None:
    """Serve as the command line says."""
    if _on_cpu:
        _fork_inner_processes()
        sleep_between_messages(import_module("vllm.distributed.device_communicators.shm_broadcast").SpinCondition)
        spread_settings_over_tokens(import_module("vllm.v1.sample.rejection_sampler"))
    _entry.main()


def _fork_inner_processes() -> None:
    """Engine core and worker are forked, too: vLLM would have each import everything anew.

    It asks for that on a CPU so that a preloaded allocator reaches the worker. The CPU build brings none.
    """
    import_module("vllm.envs").environment_variables["VLLM_WORKER_MULTIPROC_METHOD"] = lambda: "fork"
    # Else a signal to a child would wake the parent's event loop as if it were the parent's own.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


def sleep_between_messages(condition: Any) -> None:
    """Engine core and worker wait for each other's messages asleep.

    vLLM's own readers spin for a second after each message: on a few cores, several engines take from each other what
    they compute with.
    """
    idle = condition.wait

    def wait(self: Any, timeout_ms: int | None = None) -> None:
        if time.monotonic() > self.last_read + self.busy_loop_s:
            idle(self, timeout_ms)
        elif self.local_notify_socket in dict(self.poller.poll(POLL_MS)):
            self.local_notify_socket.recv()

    condition.wait = wait


def spread_settings_over_tokens(sampler: Any) -> None:
    """Each guessed token is drawn at the temperature of its request.

    The CPU kernel of vLLM 0.32 leaves that unset: with guesses, and at a temperature above 0, a model wrote noise.
    """

    def expand(values: Any, ends: Any, num_tokens: int, replace_from: float = 0, replace_to: float = 0) -> Any:
        counts = ends.diff(prepend=ends.new_zeros(1))
        return values.masked_fill(values == replace_from, replace_to).repeat_interleave(counts, output_size=num_tokens)

    sampler.expand_batch_to_tokens = expand

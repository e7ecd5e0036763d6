"""vLLM's server as our engines run it. Importing this imports all of vLLM: only the fork server does.

The modules are imported by name so that neither the gateway nor its type checker ever reads them.
"""

import os
import signal
import sys
from importlib import import_module
from typing import Any

_ENTRY = "vllm.entrypoints.launchers.api_server.entry"
# What a server and its engine core import later than at their start.
_LATER = ("vllm.entrypoints.launchers.cli_args", "vllm.v1.engine.async_llm", "vllm.v1.engine.core", "setproctitle")
_LATER_ON_CPU = ("vllm.v1.worker.cpu_worker", "vllm.v1.executor.uniproc_executor")

_PUNICA_CPU = "vllm.lora.punica_wrapper.punica_cpu"

NICENESS = 5

_entry = import_module(_ENTRY)
_on_cpu = import_module("vllm.platforms").current_platform.is_cpu()
for _module in _LATER + _LATER_ON_CPU * _on_cpu:
    import_module(_module)


def main() -> None:
    """Serve as the command line says."""
    if _on_cpu:
        _fork_inner_processes()
        _compute_in_engine_core()
        spread_settings_over_tokens(import_module("vllm.v1.sample.rejection_sampler"))
        if "--enable-lora" in sys.argv:
            leave_base_alone(import_module("vllm.lora.ops.torch_ops.lora_ops"), import_module(_PUNICA_CPU))
    _entry.main()


def _fork_inner_processes() -> None:
    """The engine core is forked, too: vLLM would have it import everything anew.

    It asks for that on a CPU so that a preloaded allocator reaches the worker. The CPU build brings none.
    """
    import_module("vllm.envs").environment_variables["VLLM_WORKER_MULTIPROC_METHOD"] = lambda: "fork"
    os.register_at_fork(after_in_child=_begin_inner_process)


def _begin_inner_process() -> None:
    # Else a signal to a child would wake the parent's event loop as if it were the parent's own.
    signal.set_wakeup_fd(-1)
    # Whoever computes leaves the cores first to those who only hand on: on two full cores they waited 40 ms, now 30.
    os.nice(NICENESS)


def _compute_in_engine_core() -> None:
    """A model that is not split computes in its engine core, as on a GPU: answers come in half the time.

    On a CPU vLLM starts a worker process for it, to bind OpenMP's threads, which ours leave free. The two spin for a
    second after each message, and so engines take from each other what they compute with. This switch is read there;
    the server runs its engine core in a process of its own whatever it says.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def leave_base_alone(operations: Any, wrapper: Any) -> None:
    """In a batch with adapters, what is for the base gets none.

    Its index is -1, and the CPU's operations of vLLM 0.32 take that for the last adapter: asked together with two
    adapters, the base gave the second one's answers. Every way of an adapter ends in one of these two.
    """
    for name in ("bgmv_expand", "bgmv_expand_slice"):
        masked = _for_adapters_alone(getattr(operations, name))
        # One is called by its neighbours in the module, the other by the name it was imported under.
        setattr(operations, name, masked)
        setattr(wrapper, name, masked)


def _for_adapters_alone(expand: Any) -> Any:
    def masked(inputs: Any, weights: Any, output: Any, indices: Any, *rest: Any, **how: Any) -> None:
        expand(inputs.masked_fill((indices < 0).unsqueeze(1), 0), weights, output, indices, *rest, **how)

    return masked


def spread_settings_over_tokens(sampler: Any) -> None:
    """Each guessed token is drawn at the temperature of its request.

    The CPU kernel of vLLM 0.32 leaves that unset: with guesses, and at a temperature above 0, a model wrote noise.
    """

    def expand(values: Any, ends: Any, num_tokens: int, replace_from: float = 0, replace_to: float = 0) -> Any:
        counts = ends.diff(prepend=ends.new_zeros(1))
        return values.masked_fill(values == replace_from, replace_to).repeat_interleave(counts, output_size=num_tokens)

    sampler.expand_batch_to_tokens = expand

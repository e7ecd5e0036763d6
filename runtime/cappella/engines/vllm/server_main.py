"""vLLM's server with the patches that Cappella's engines need. Only the fork server imports it, since it imports vLLM.

The modules are imported by name so that neither the gateway nor its type checker reads them.
"""

import os
import signal
import sys
from functools import cache
from importlib import import_module
from typing import Any

_ENTRY = "vllm.entrypoints.launchers.api_server.entry"
# Modules that the server and its engine core import later than at their start.
_LATER = ("vllm.entrypoints.launchers.cli_args", "vllm.v1.engine.async_llm", "vllm.v1.engine.core", "setproctitle")
_LATER_ON_CPU = ("vllm.v1.worker.cpu_worker", "vllm.v1.executor.uniproc_executor")

_PUNICA_CPU = "vllm.lora.punica_wrapper.punica_cpu"

NICENESS = 5
MAX_FORCED_CALLS = 8
"""The calls that `tool_choice: required` may bring. Without a bound a small model writes call after call to its token limit."""

_entry = import_module(_ENTRY)
_on_cpu = import_module("vllm.platforms").current_platform.is_cpu()
for _module in _LATER + _LATER_ON_CPU * _on_cpu:
    import_module(_module)


def main() -> None:
    """Run the server with the command line in `sys.argv`."""
    limit_forced_calls(import_module("vllm.tool_parsers.utils"))
    if _on_cpu:
        _fork_inner_processes()
        _compute_in_engine_core()
        expand_settings_to_tokens(import_module("vllm.v1.sample.rejection_sampler"))
        rewind_seeded_streams(import_module("vllm.v1.worker.gpu_model_runner"))
        if "--enable-lora" in sys.argv:
            skip_adapters_for_base(import_module("vllm.lora.ops.torch_ops.lora_ops"), import_module(_PUNICA_CPU))
    _entry.main()


def _fork_inner_processes() -> None:
    """Fork the engine core, too, which vLLM on a CPU would spawn, so that it imported everything again.

    vLLM spawns it so that a preloaded allocator reaches the worker; the CPU build brings no allocator.
    """
    import_module("vllm.envs").environment_variables["VLLM_WORKER_MULTIPROC_METHOD"] = lambda: "fork"
    os.register_at_fork(after_in_child=_begin_inner_process)


def _begin_inner_process() -> None:
    # Otherwise a signal to a child would wake the parent's event loop, too.
    signal.set_wakeup_fd(-1)
    # Compute processes yield to the gateway and servers: on two busy cores these waited 40 ms, with this 30 ms.
    os.nice(NICENESS)


def _compute_in_engine_core() -> None:
    """Compute in the engine core, as on a GPU, unless the model is split: this halves the time of an answer.

    On a CPU vLLM starts a worker process, to bind OpenMP's threads to cores, which Cappella does not do. Core and worker
    spin for a second after each message, which takes the cores from other engines. The switch only removes the worker;
    the engine core still has a process of its own.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def limit_forced_calls(utils: Any) -> None:
    """Give the list of calls that a model is forced to write an end, where the request does not ask for one call alone."""
    schema_of = utils._get_json_schema_from_tools

    def limited(*args: Any, **how: Any) -> dict[str, Any]:
        return {"maxItems": MAX_FORCED_CALLS, **schema_of(*args, **how)}

    utils._get_json_schema_from_tools = limited


def skip_adapters_for_base(operations: Any, wrapper: Any) -> None:
    """Apply no adapter to the base model's rows of a batch.

    Their index is -1, which the CPU operations of vLLM 0.32 take for the last adapter: in a batch with two adapters the
    base model gave the second one's answers. All adapter code ends in one of these two operations.
    """
    for name in ("bgmv_expand", "bgmv_expand_slice"):
        masked = _masking_base(getattr(operations, name))
        # The first name is used inside the module, the second is an import of it in the wrapper.
        setattr(operations, name, masked)
        setattr(wrapper, name, masked)


def _masking_base(expand: Any) -> Any:
    def masked(inputs: Any, weights: Any, output: Any, indices: Any, *rest: Any, **how: Any) -> None:
        expand(inputs.masked_fill((indices < 0).unsqueeze(1), 0), weights, output, indices, *rest, **how)

    return masked


def expand_settings_to_tokens(sampler: Any) -> None:
    """Sample each draft token with the settings of its request.

    The CPU kernel of vLLM 0.32 leaves them unset: with speculative decoding and a temperature above 0 a model wrote noise.
    """

    def expand(values: Any, ends: Any, num_tokens: int, replace_from: float = 0, replace_to: float = 0) -> Any:
        counts = ends.diff(prepend=ends.new_zeros(1))
        return values.masked_fill(values == replace_from, replace_to).repeat_interleave(counts, output_size=num_tokens)

    sampler.expand_batch_to_tokens = expand


def rewind_seeded_streams(runner: Any) -> None:
    """Let a prompt with a `seed` be read in parts.

    vLLM takes back the number that it drew for a part by the generator's offset, which generators on a CPU lack: the
    engine core of 0.32 ended. Before a first token that number is all that was drawn.
    """

    state_of = runner.CachedRequestState

    def rewindable(*, generator: Any, **state: Any) -> Any:
        if generator is not None:
            generator = _rewindable()(device="cpu").manual_seed(generator.initial_seed())
        return state_of(generator=generator, **state)

    runner.CachedRequestState = rewindable


@cache
def _rewindable() -> Any:
    class Rewindable(import_module("torch").Generator):  # type: ignore[misc]
        def get_offset(self) -> int:
            return 0

        def set_offset(self, offset: int) -> None:
            self.manual_seed(self.initial_seed())

    return Rewindable

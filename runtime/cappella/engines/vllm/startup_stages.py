"""The stages of a vLLM server's start, and the marks of each in its log."""

import re

from cappella.engines.startup_log import Stage, StartupStages

STAGES = StartupStages(
    stages=(
        Stage("importing vLLM", 0.05, reads_config=True),
        Stage("reading the model's config", 0.5, ("non-default args",), reads_config=True),
        Stage("starting the engine core", 0.6, ("Initializing a V1 LLM engine",)),
        # The runner of GPUs says the latter.
        Stage("loading weights", 0.65, ("Starting to load model", "Loading model from scratch")),
        Stage("making the KV cache", 0.7, ("Loading weights took",)),
        Stage("compiling the model", 0.72, ("Starting torch.compile",)),
        # On a GPU only: at the first start on a machine the kernels of the sampler take half a minute, later a few seconds.
        Stage("compiling kernels", 0.8, ("JIT kernel warmup starting",)),
        Stage("capturing CUDA graphs", 0.87, ("Capturing CUDA graphs",)),
        Stage("starting the server", 0.9, ("init engine",)),
        Stage("answering a first token", 0.95, ("Starting vLLM server",)),
    ),
    # A hung engine logs such a line once a minute.
    idle_line=re.compile(rb"waiting for|No available shared memory", re.IGNORECASE),
)

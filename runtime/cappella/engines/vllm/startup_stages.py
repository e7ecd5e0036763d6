"""The stages of a vLLM server's start, and the marks of each in its log."""

import re

from cappella.engines.startup_log import Stage, StartupStages

STAGES = StartupStages(
    stages=(
        Stage("importing vLLM", 0.05, reads_config=True),
        Stage("reading the model's config", 0.6, "non-default args", reads_config=True),
        Stage("starting the engine core", 0.7, "Initializing a V1 LLM engine"),
        Stage("loading weights", 0.75, "Starting to load model"),
        Stage("making the KV cache", 0.8, "Loading weights took"),
        Stage("starting the server", 0.85, "init engine"),
        Stage("answering a first token", 0.95, "Starting vLLM server"),
    ),
    # A hung engine logs such a line once a minute.
    idle_line=re.compile(rb"waiting for|No available shared memory", re.IGNORECASE),
)

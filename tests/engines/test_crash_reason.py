"""Which of an engine's last lines is the reason for its end."""

from pathlib import Path

import pytest

from cappella.engines import crash_reason

PYDANTIC = """
(APIServer pid=5) Traceback (most recent call last):
(APIServer pid=5)   File "arg_utils.py", line 1, in create_model_config
(APIServer pid=5) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
(APIServer pid=5)   Value error, User-specified max_model_len (100000) is greater than the derived max_model_len (max_position_embeddings=1024). [type=value_error, input_value=ArgsKwargs((), {}), input_type=ArgsKwargs]
(APIServer pid=5)     For further information visit https://errors.pydantic.dev/2.12/v/value_error
"""
FIELD = """
pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig
cache_dtype
  Input should be 'auto' or 'fp8' [type=literal_error, input_value='fp9', input_type=str]
    For further information visit https://errors.pydantic.dev/2.12/v/literal_error
"""
CORE = """
(EngineCore pid=9) ERROR 11-26 22:00:00 [core.py:700] Traceback (most recent call last):
(EngineCore pid=9) ERROR 11-26 22:00:00 [core.py:700] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB
(APIServer pid=5) Traceback (most recent call last):
(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
CHAIN = """
Traceback (most recent call last):
FileNotFoundError: [Errno 2] No such file or directory: '/w/model.safetensors'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
RuntimeError: the weights cannot be loaded
"""
SURVIVED = "ERROR 11-01 [serving.py:1] ValueError: a bad request\nINFO 11-01 [loggers.py:1] 10 tokens/s\n" + CORE
DEAD_CORE = (
    CORE
    + "ERROR [async_llm.py:1] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)\n"
)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            PYDANTIC,
            (
                "User-specified max_model_len (100000) is greater than the derived max_model_len"
                " (max_position_embeddings=1024)."
            ),
        ),
        (FIELD, "cache_dtype: Input should be 'auto' or 'fp8'"),
        (CORE, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
        (CHAIN, "FileNotFoundError: [Errno 2] No such file or directory: '/w/model.safetensors'"),
        (SURVIVED, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
        (DEAD_CORE, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
        (
            "usage: x\napi_server.py: error: unrecognized arguments: --max-modl-len 9",
            "api_server.py: error: unrecognized arguments: --max-modl-len 9",
        ),
        ("Fatal Python error: Segmentation fault\n\nThread 0x1:", "Fatal Python error: Segmentation fault"),
        (
            "terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: an illegal access",
            "terminate called after throwing an instance of 'c10::Error': CUDA error: an illegal access",
        ),
        ("Traceback (most recent call last):\nAssertionError", "AssertionError"),
    ],
    ids=["pydantic", "field", "core", "chain", "survived", "dead core", "argparse", "fatal", "c++", "bare"],
)
def test_the_deepest_cause_is_the_reason(log: str, reason: str) -> None:
    found = crash_reason.find_error([line for line in log.splitlines() if line])
    assert found
    assert found.reason == reason


def test_the_lines_that_belong_to_an_error_are_shown_with_it() -> None:
    found = crash_reason.find_error(PYDANTIC.strip().splitlines())
    assert found
    assert "User-specified max_model_len (100000)" in found.lines[-1]
    assert "Traceback" in found.lines[0]


def test_a_long_reason_is_seen_to_be_cut() -> None:
    found = crash_reason.find_error(["ValueError: " + "many words " * 99])
    assert found
    assert found.reason.endswith((" many …", " words …"))
    assert len(found.reason) <= crash_reason.MAX_REASON_CHARACTERS


def test_figures_are_no_error() -> None:
    assert (
        crash_reason.find_error(["INFO 11-26 [loggers.py:9] Engine 000: Avg prompt throughput: 1.1 tokens/s"]) is None
    )


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "ann.log"
    log.write_text("ValueError: long ago\n" + "x" * 99 + "\nfine\n" * (crash_reason.MAX_TAIL_BYTES // 6))
    lines = crash_reason.read_tail(log)
    assert sum(len(line) + 1 for line in lines) <= crash_reason.MAX_TAIL_BYTES
    assert lines[-1] == "fine"
    assert crash_reason.read_tail(log, log.stat().st_size - 5) == ["fine"]
    assert crash_reason.read_tail(log, 10 * log.stat().st_size) == []


def test_a_reason_that_is_transient_is_no_mistake() -> None:
    assert crash_reason.is_transient("OSError: [Errno 28] No space left on device")
    assert not crash_reason.is_transient("User-specified max_model_len (100000) is greater")

"""vLLM's own server on a TCP port of this machine, as somebody else runs one."""

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cappella.engines.address import Address
from cappella.engines.vllm import server_args


@contextmanager
def vllm_server(
    log: Path, weights: Path, name: str, max_model_len: int, *options: str
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The address of a server that calls its model `name`, in a process group of its own. It may not be up yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Its inner processes are forked: to import vLLM anew in each of them takes minutes on a busy machine.
    start = "from cappella.engines.vllm.server_main import main; main()"
    command = [sys.executable, "-c", start, "--model", str(weights), "--load-format", "safetensors"]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port), *options]
    command += ["--max-model-len", str(max_model_len), "--enforce-eager", "--max-num-seqs", "8"]
    environment = {**server_args.environment(threads=1, eager=True), "VLLM_CPU_KVCACHE_SPACE": "1"}
    with (
        log.open("wb") as sink,
        subprocess.Popen(command, stdout=sink, stderr=sink, env=environment, start_new_session=True) as server,
    ):
        try:
            yield f"http://127.0.0.1:{port}/v1", server
        finally:
            server.terminate()


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(Address(url).url("/health"), timeout=5):
            return True
    except OSError:
        return False

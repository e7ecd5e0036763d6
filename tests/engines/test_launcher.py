"""What the launcher changes in vLLM, on vLLM itself."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.vllm

# One process answers another's messages, each after a while, as a worker does; the waiting one tells what it cost.
WAITS = """
import json, os, pickle, signal, sys, time
from cappella.engines.keeper import end_with_parent
from vllm.distributed.device_communicators import shm_broadcast
if sys.argv[1] == "asleep":
    from cappella.engines.launcher import sleep_between_messages
    sleep_between_messages(shm_broadcast.SpinCondition)
heard_from, tell = os.pipe()
parent = os.getpid()
if os.fork() == 0:
    end_with_parent(parent, signal.SIGKILL)
    queue = shm_broadcast.MessageQueue(1, 1)
    os.write(tell, pickle.dumps(queue.export_handle()))
    queue.wait_until_ready()
    for number in range(20):
        time.sleep(0.05)
        queue.enqueue(number)
    time.sleep(1)
    os._exit(0)
reader = shm_broadcast.MessageQueue.create_from_handle(pickle.loads(os.read(heard_from, 1 << 16)), 0)
reader.wait_until_ready()
began, cpu = time.monotonic(), time.process_time()
heard = [reader.dequeue() for _ in range(20)]
print(json.dumps({"heard": heard, "busy": (time.process_time() - cpu) / (time.monotonic() - began)}))
os._exit(0)
"""


def waiting(how: str) -> dict[str, object]:
    command = [sys.executable, "-c", WAITS, how]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_inner_processes_hear_every_message_and_sleep_in_between() -> None:
    asleep, spinning = waiting("asleep"), waiting("spinning")
    assert asleep["heard"] == spinning["heard"] == list(range(20))
    assert float(str(asleep["busy"])) < float(str(spinning["busy"])) / 4

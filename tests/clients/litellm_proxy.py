"""LiteLLM's proxy in front: its clients see the ensemble through it over three APIs, tools and streams included."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
from checks import ASK, FUNCTION, HI, WEATHER, check
from openai import OpenAI

url, model = sys.argv[1:]
START_S = 400
KEY = "sk-local-proxy"
CONFIG = {
    "model_list": [
        {"model_name": "local", "litellm_params": {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "none"}},
        {"model_name": "claude", "litellm_params": {"model": f"anthropic/{model}", "api_base": url, "api_key": "none"}},
    ],
    "litellm_settings": {"num_retries": 0, "request_timeout": 200},
    "general_settings": {"master_key": KEY},
}  # fmt: skip
Path("config.yaml").write_text(json.dumps(CONFIG))
with closing(socket.create_server(("127.0.0.1", 0))) as free:
    port = free.getsockname()[1]
HEADERS = {"Authorization": f"Bearer {KEY}"}
base = f"http://127.0.0.1:{port}"
TOOL = {"name": WEATHER["name"], "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}
chat = OpenAI(base_url=f"{base}/v1", api_key=KEY, max_retries=0).chat.completions


def ready() -> bool:
    give_up_at = time.monotonic() + START_S
    while time.monotonic() < give_up_at:
        try:
            return httpx.get(f"{base}/health/liveliness").status_code == 200
        except httpx.TransportError:
            time.sleep(1)
    return False


def post(path: str, **body: object) -> httpx.Response:
    return httpx.post(f"{base}{path}", json=body, headers=HEADERS, timeout=200).raise_for_status()


def streamed() -> bool:
    chunks = list(chat.create(model="local", messages=HI, stream=True, stream_options={"include_usage": True}))
    return bool("".join(c.choices[0].delta.content or "" for c in chunks if c.choices)) and bool(chunks[-1].usage)


def forced(name: str) -> bool:
    reply = chat.create(model=name, messages=ASK, tools=[FUNCTION], tool_choice="required")
    call = reply.choices[0].message.tool_calls[0]
    return call.function.name == "get_weather" and "city" in json.loads(call.function.arguments)


def tool_loop() -> bool:
    first = chat.create(model="local", messages=ASK, tools=[FUNCTION]).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "Sunny"}
    return bool(chat.create(model="local", messages=[*ASK, first, result], tools=[FUNCTION]).choices[0].message.content)


def messages(name: str, **more: object) -> dict[str, object]:
    return post("/v1/messages", model=name, max_tokens=100, messages=HI, **more).json()


def messages_streamed(name: str) -> bool:
    text = post("/v1/messages", model=name, max_tokens=100, messages=HI, stream=True).text
    return "event: content_block_delta" in text and "event: message_stop" in text


def messages_tool() -> bool:
    reply = messages("local", tools=[TOOL], tool_choice={"type": "any"})
    return reply["content"][-1]["type"] == "tool_use" and reply["stop_reason"] == "tool_use"


program = str(Path(sys.executable).with_name("litellm"))
settings = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DISABLE_ADMIN_UI": "True"}
with Path("proxy.log").open("w") as log:
    proxy = subprocess.Popen(
        [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"],
        env=settings, stdout=log, stderr=log,
    )  # fmt: skip
try:
    check("starts", ready)
    check("chat", lambda: chat.create(model="local", messages=HI).choices[0].message.content)
    check("chat stream", streamed)
    check("chat tool loop", tool_loop, clever=True)
    check("chat tool_choice required", lambda: forced("local"))
    check("chat over messages", lambda: chat.create(model="claude", messages=HI).choices[0].message.content)
    check("chat over messages, required", lambda: forced("claude"))
    check("messages", lambda: messages("local")["content"])
    check("messages stream", lambda: messages_streamed("local"))
    check("messages tool any", messages_tool)
    check("messages over messages", lambda: messages("claude")["content"])
    check("messages over messages, stream", lambda: messages_streamed("claude"))
    check("responses", lambda: post("/v1/responses", model="local", input="Hi").json()["output"])
    check(
        "responses stream",
        lambda: "response.completed" in post("/v1/responses", model="local", input="Hi", stream=True).text,
    )
    check("health", lambda: httpx.get(f"{base}/health", headers=HEADERS, timeout=200).json()["unhealthy_count"] == 0)
finally:
    proxy.terminate()
    proxy.wait()

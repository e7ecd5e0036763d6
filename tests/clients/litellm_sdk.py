"""LiteLLM's SDK: chat, streams, tools, formats, the Responses and the Messages API."""

import asyncio
import sys

import litellm
from checks import ASK, FUNCTION, HI, check

url, model = sys.argv[1:]
where = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "none", "num_retries": 0}
vllm = {**where, "model": f"hosted_vllm/{model}"}
claude = {**where, "model": f"anthropic/{model}", "api_base": url}


def streamed() -> bool:
    return bool(
        "".join(c.choices[0].delta.content or "" for c in litellm.completion(messages=HI, stream=True, **where))
    )


def forced(**how: object) -> bool:
    reply = litellm.completion(messages=ASK, tools=[FUNCTION], tool_choice="required", **how)
    return reply.choices[0].message.tool_calls[0].function.name == "get_weather"


check("completion", lambda: litellm.completion(messages=HI, **where).choices[0].message.content)
check("stream", streamed)
check("async", lambda: asyncio.run(litellm.acompletion(messages=HI, **where)).choices[0].message.content)
check(
    "tools",
    lambda: litellm.completion(messages=ASK, tools=[FUNCTION], **where).choices[0].message.tool_calls,
    clever=True,
)
check("tool_choice required", lambda: forced(**where))
check("hosted_vllm", lambda: forced(**vllm))
check("anthropic", lambda: forced(**claude, max_tokens=100))
check("reasoning_effort none", lambda: litellm.completion(messages=HI, reasoning_effort="none", **vllm))
check("responses", lambda: litellm.responses(input="Hi", **where).output)

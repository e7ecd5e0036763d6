"""The client of Ollama's API: chat and generate, whole and streamed, tools, and what is served."""

import sys

from checks import ASK, FUNCTION, HI, check
from ollama import Client

url, model = sys.argv[1:]
client = Client(host=url)
check("list", lambda: model in {each.model for each in client.list().models})
check("show", lambda: client.show(model))
check("ps", lambda: client.ps() is not None)
check("chat", lambda: client.chat(model, messages=HI).message.content)
check(
    "chat stream", lambda: "".join(part.message.content or "" for part in client.chat(model, messages=HI, stream=True))
)
check("generate", lambda: client.generate(model, prompt="Hi").response)
check("tools", lambda: client.chat(model, messages=ASK, tools=[FUNCTION]).message.tool_calls, clever=True)

"""OpenRouter's Python client with another address: chat, stream, the fusion plugin."""

import sys

from checks import HI, check
from openrouter import OpenRouter

url, model = sys.argv[1:]
client = OpenRouter(api_key="none", server_url=f"{url}/v1")


def streamed() -> bool:
    chunks = client.chat.send(model=model, messages=HI, stream=True)
    return bool("".join(str(each.choices[0].delta.content or "") for each in chunks if each.choices))


check("chat", lambda: client.chat.send(model=model, messages=HI).choices[0].message.content)
check("stream", streamed)
check("plugin", lambda: client.chat.send(model=model, messages=HI, plugins=[{"id": "fusion", "enabled": True}]))
check("responses", lambda: client.beta.responses.send(model=model, input="Hi"))

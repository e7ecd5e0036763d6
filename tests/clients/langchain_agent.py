"""An agent loop of LangChain's over a running server: it asks, calls the tool that is asked for, and prints the end."""

import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def look_up(attribute: str, name: str) -> str:
    """One value of the handbook."""
    return {("price", "Tunagox"): "61"}[attribute, name]


model = ChatOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", model="cappella/default", max_retries=0)
agent = model.bind_tools([look_up])
messages = [HumanMessage("What is the price of Tunagox?")]
while (reply := agent.invoke(messages)).tool_calls:
    messages.append(reply)
    messages += [ToolMessage(look_up.invoke(call["args"]), tool_call_id=call["id"]) for call in reply.tool_calls]
messages.append(reply)
streamed = "".join(str(chunk.content) for chunk in agent.stream(messages[:-1]))
assert streamed == reply.content, (streamed, reply.content)
print(reply.content)

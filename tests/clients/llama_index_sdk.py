"""LlamaIndex's OpenAILike: chat, streams, tools."""

import sys

from checks import check
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

url, model = sys.argv[1:]
common = {"model": model, "api_base": f"{url}/v1", "api_key": "none", "max_retries": 0}
llm = OpenAILike(is_chat_model=True, is_function_calling_model=True, **common)
turns = [ChatMessage(role="user", content="What is the weather in Paris?")]


def get_weather(city: str) -> str:
    """The weather of a city."""
    return "Sunny"


tools = [FunctionTool.from_defaults(get_weather)]
check("chat", lambda: llm.chat(turns).message.content)
check("stream", lambda: [piece.delta for piece in llm.stream_chat(turns)])
check("complete", lambda: llm.complete("Hi").text)
check("tools", lambda: llm.get_tool_calls_from_response(llm.chat_with_tools(tools, chat_history=turns)), clever=True)
check("predict and call", lambda: llm.predict_and_call(tools, chat_history=turns).response == "Sunny", clever=True)

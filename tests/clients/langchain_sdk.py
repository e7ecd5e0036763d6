"""LangChain: chat, streams, tools bound and forced, structured output, both of its packages."""

import sys

from checks import check
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

url, model = sys.argv[1:]


class Place(BaseModel):
    """A place."""

    city: str


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return "Sunny"


def loop(llm: ChatOpenAI | ChatAnthropic) -> bool:
    turns = [HumanMessage("What is the weather in Paris?")]
    bound = llm.bind_tools([get_weather])
    first = bound.invoke(turns)
    (call,) = first.tool_calls
    turns += [first, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])]
    return bool("".join(str(chunk.content) for chunk in bound.stream(turns)))


chat = ChatOpenAI(base_url=f"{url}/v1", api_key="none", model=model, max_retries=0)
responses = ChatOpenAI(base_url=f"{url}/v1", api_key="none", model=model, max_retries=0, use_responses_api=True)
claude = ChatAnthropic(base_url=url, api_key="none", model=model, max_retries=0)
for name, llm in {"chat": chat, "responses": responses, "anthropic": claude}.items():
    check(f"{name} invoke", lambda llm=llm: llm.invoke("Hi").content)
    check(f"{name} stream", lambda llm=llm: list(llm.stream("Hi")))
    check(f"{name} tool loop", lambda llm=llm: loop(llm), clever=True)
    check(f"{name} structured", lambda llm=llm: isinstance(llm.with_structured_output(Place).invoke("Hi"), Place))
functions = chat.with_structured_output(Place, method="function_calling")
check("chat function_calling", lambda: isinstance(functions.invoke("Hi"), Place))
check("chat tool_choice any", lambda: chat.bind_tools([get_weather], tool_choice="any").invoke("Hi").tool_calls)

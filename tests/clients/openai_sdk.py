"""The official Python client, as it is: both APIs, tools that are free, forced and strict, formats, histories."""

import json
import sys

from checks import ASK, FUNCTION, HI, WEATHER, check
from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel, Field

url, model = sys.argv[1:]
client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
chat, responses = client.chat.completions, client.responses


class Place(BaseModel):
    city: str = Field(description="A city")
    people: int


def streamed() -> bool:
    chunks = list(chat.create(model=model, messages=HI, stream=True, stream_options={"include_usage": True}))
    return bool("".join(c.choices[0].delta.content or "" for c in chunks if c.choices)) and bool(chunks[-1].usage)


def history() -> bool:
    """What the client itself dumps goes back as it is."""
    first = chat.create(model=model, messages=HI).choices[0].message
    return bool(chat.create(model=model, messages=[*HI, first.model_dump(), *HI]).choices[0].message.content)


def tool_loop() -> bool:
    first = chat.create(model=model, messages=ASK, tools=[FUNCTION]).choices[0]
    (call,) = first.message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny"}
    second = chat.create(model=model, messages=[*ASK, first.message, result], tools=[FUNCTION])
    return first.finish_reason == "tool_calls" and bool(second.choices[0].message.content)


def forced(choice: object) -> bool:
    message = chat.create(model=model, messages=ASK, tools=[FUNCTION], tool_choice=choice).choices[0].message
    return message.tool_calls[0].function.name == "get_weather"


def strict() -> bool:
    tools = [pydantic_function_tool(Place)]
    parsed = chat.parse(model=model, messages=ASK, tools=tools, tool_choice="required", parallel_tool_calls=False)
    return isinstance(parsed.choices[0].message.tool_calls[0].function.parsed_arguments, Place)


def responses_stream() -> bool:
    with responses.stream(model=model, input="Hi") as stream:
        kinds = [event.type for event in stream]
    return kinds[-1] == "response.completed" and all(kind.startswith("response.") for kind in kinds)


def responses_forced() -> bool:
    tool = {"type": "function", **WEATHER}
    items = responses.create(model=model, input=ASK, tools=[tool], tool_choice="required").output
    call = next(item for item in items if item.type == "function_call")
    return "city" in json.loads(call.arguments)


def responses_tools() -> bool:
    tool = {"type": "function", **WEATHER}
    first = responses.create(model=model, input=ASK, tools=[tool], tool_choice="required", store=False)
    (call,) = (item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}
    return bool(responses.create(model=model, input=[*ASK, *first.output, result], tools=[tool]).output_text)


check("chat", lambda: chat.create(model=model, messages=HI).choices[0].message.content)
check("chat stream", streamed)
check("chat.parse", lambda: chat.parse(model=model, messages=HI, response_format=Place).choices[0].message.parsed)
check("history as dumped", history)
check("tool loop", tool_loop, clever=True)
check("tool_choice required", lambda: forced("required"))
check("tool_choice named", lambda: forced({"type": "function", "function": {"name": "get_weather"}}))
check("strict tool", strict)
check("hints", lambda: chat.create(model=model, messages=HI, store=False, metadata={"a": "b"}, n=1, user="u", tools=[]))
check("responses", lambda: responses.create(model=model, input="Hi").output_text)
check("responses.parse", lambda: responses.parse(model=model, input="Hi", text_format=Place).output_parsed)
check("responses.stream", responses_stream)
check(
    "responses only messages", lambda: {i.type for i in responses.create(model=model, input="Hi").output} == {"message"}
)
check("responses tool loop", responses_tools, clever=True)
check("responses forced call", responses_forced)
check("models.list", lambda: model in {each.id for each in client.models.list()})
check("models.retrieve", lambda: client.models.retrieve(model).id == model)

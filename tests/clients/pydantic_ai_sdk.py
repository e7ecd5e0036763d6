"""pydantic-ai: agents with tools and typed outputs over all three APIs."""

import asyncio
import sys

from checks import check
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

url, model = sys.argv[1:]
openai = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
anthropic = AnthropicProvider(api_key="none", base_url=url)


class Place(BaseModel):
    city: str


def get_weather(city: str) -> str:
    """The weather of a city."""
    return "Sunny"


async def streamed(llm: object) -> bool:
    async with Agent(llm).run_stream("Hi") as result:
        return bool(await result.get_output())


models = {
    "chat": OpenAIChatModel(model, provider=openai),
    "responses": OpenAIResponsesModel(model, provider=openai),
    "messages": AnthropicModel(model, provider=anthropic),
}
for name, llm in models.items():
    check(f"{name} run", lambda llm=llm: Agent(llm).run_sync("Hi").output)
    check(f"{name} run_stream", lambda llm=llm: asyncio.run(streamed(llm)))
    check(f"{name} tools", lambda llm=llm: Agent(llm, tools=[get_weather]).run_sync("The weather in Paris?").output)
    check(f"{name} output by tool", lambda llm=llm: Agent(llm, output_type=Place).run_sync("Hi").output.city)
native = Agent(models["chat"], output_type=NativeOutput(Place))
check("chat native output", lambda: native.run_sync("Hi").output.city)
first = Agent(models["chat"]).run_sync("Hi")
check("chat history", lambda: Agent(models["chat"]).run_sync("Hi", message_history=first.all_messages()).output)

"""inspect-ai: a scored task, and one with a tool, over the chat and the Responses API."""

import os
import sys

from checks import check
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import Tool, tool

url, model = sys.argv[1:]
os.environ |= {"LOCAL_API_KEY": "none", "LOCAL_BASE_URL": f"{url}/v1"}


@tool
def get_weather() -> Tool:
    async def execute(city: str) -> str:
        """The weather of a city.

        Args:
            city: A city.
        """
        return "Sunny"

    return execute


def ran(*solvers: object, stream: bool = False, responses: bool = False) -> EvalLog:
    """The log of a task of two samples, all of whose calls succeeded."""
    samples = [Sample("What is the weather in Paris?", target="green"), Sample("Say hello.", target="green")]
    task = Task(dataset=samples, solver=[*solvers, generate()], scorer=includes())
    how = {"stream": stream, "responses_api": responses}
    (log,) = eval(
        task, model=f"openai-api/local/{model}", model_args=how, display="none", max_retries=0, log_dir="logs"
    )
    assert log.status == "success", log.error
    assert all(not sample.error for sample in log.samples)
    return log


def answered(**how: bool) -> bool:
    log = ran(**how)
    (usage,) = log.stats.model_usage.values()
    return all(sample.output.completion for sample in log.samples) and usage.input_tokens > 0 < usage.output_tokens


def scored() -> bool:
    return ran().results.scores[0].metrics["accuracy"].value == 1


def tooled(**how: bool) -> bool:
    """A tool was called, it ran, and the task was scored after its result."""
    turns = [message.role for message in ran(use_tools(get_weather()), **how).samples[0].messages]
    return turns == ["user", "assistant", "tool", "assistant"]


check("task", answered)
check("task, streamed", lambda: answered(stream=True))
check("task, responses", lambda: answered(responses=True))
check("accuracy", scored, clever=True)
check("tools", tooled, clever=True)
check("tools, streamed", lambda: tooled(stream=True), clever=True)
check("tools, responses", lambda: tooled(responses=True), clever=True)

"""`llm`, as it is typed: prompts, conversations, schemas and tools, over the chat and the Responses API."""

import json
import os
import sys
from pathlib import Path

from checks import check
from click.testing import CliRunner

url, model = sys.argv[1:]
HOME = Path.home() / "llm"
HOME.mkdir()
os.environ |= {"LLM_USER_PATH": str(HOME), "OPENAI_API_KEY": "none"}
ABLE = f"model_name: {model}\n  api_base: {url}/v1\n  supports_schema: true\n  supports_tools: true\n"
(HOME / "extra-openai-models.yaml").write_text(
    f"- model_id: chat\n  {ABLE}- model_id: responses\n  responses: true\n  {ABLE}"
)
WEATHER = "def get_weather(city: str) -> str:\n    'The weather of a city.'\n    return 'Sunny in ' + city\n"

from llm.cli import cli


def llm(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    if done.exit_code:
        raise RuntimeError(done.output)
    return done.stdout.strip()


def conversation(name: str) -> bool:
    """The second turn brings the first one back, and the log has both with their tokens."""
    llm("-m", name, "Say hello.")
    llm("-c", "And once more.")
    last, *_ = json.loads(llm("logs", "--json", "-n", "1"))
    before = json.loads(llm("logs", "--json", "-n", "2"))
    return len({each["conversation_id"] for each in before}) == 1 and last["input_tokens"] > 0 < last["output_tokens"]


def tool(name: str) -> bool:
    """The function ran, and the answer came after it."""
    said = llm("-m", name, "--functions", WEATHER, "--tools-debug", "What is the weather in Paris?")
    result = llm("logs", "-n", "2", "--json")
    return "Sunny in Paris" in result and bool(said)


for name in ("chat", "responses"):
    check(f"{name} stream", lambda name=name: llm("-m", name, "Say hello."))
    check(f"{name} no stream", lambda name=name: llm("-m", name, "--no-stream", "Say hello."))
    check(f"{name} conversation", lambda name=name: conversation(name))
    check(f"{name} schema", lambda name=name: "city" in json.loads(llm("-m", name, "--schema", "city str", "A city.")))
    check(f"{name} tool", lambda name=name: tool(name), clever=True)

"""DSPy: its language model, over both APIs of OpenAI's."""

import sys

import dspy
from checks import check

url, model = sys.argv[1:]
where = {"api_base": f"{url}/v1", "api_key": "none", "cache": False, "num_retries": 0}
lm = dspy.LM(f"openai/{model}", **where)
check("lm", lambda: lm("Hi"))
check("two answers", lambda: len(lm("Hi", n=2, temperature=0.9)) == 2)
check("json_object", lambda: lm("Hi", response_format={"type": "json_object"})[0].startswith("{"))
check("responses", lambda: dspy.LM(f"openai/{model}", model_type="responses", **where)("Hi"))

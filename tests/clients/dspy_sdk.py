"""DSPy: its language model, and a typed prediction by JSON."""

import sys

import dspy
from checks import check

url, model = sys.argv[1:]
lm = dspy.LM(f"openai/{model}", api_base=f"{url}/v1", api_key="none", cache=False, num_retries=0)
dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
check("lm", lambda: lm("Hi"))
check("two answers", lambda: len(lm("Hi", n=2, temperature=0.9)) == 2)
check("predict", lambda: dspy.Predict("question -> answer: str")(question="Which city?").answer)

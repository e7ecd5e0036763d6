"""instructor: one typed answer in each of its modes."""

import sys

import instructor
from checks import HI, check
from openai import OpenAI
from pydantic import BaseModel

url, model = sys.argv[1:]


class Place(BaseModel):
    city: str


for mode in ("TOOLS", "TOOLS_STRICT", "JSON", "JSON_SCHEMA", "RESPONSES_TOOLS"):
    openai = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    client = instructor.from_openai(openai, mode=getattr(instructor.Mode, mode))
    # Of JSON's mode only the prompt says which fields there are.
    typed = {"model": model, "messages": HI, "response_model": Place, "max_retries": 0}
    check(mode, lambda client=client, typed=typed: client.create(**typed).city, clever=mode == "JSON")

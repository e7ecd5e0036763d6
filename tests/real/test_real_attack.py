"""The short form of `scripts/attack`: one ordinary key against the demo, while another key uses it."""

import subprocess
import sys

import pytest

from support.real_deployment import ROOT

pytestmark = [pytest.mark.vllm, pytest.mark.long]

CASES = (
    "schemas_of_many_items",
    "integers_beyond_64_bits",
    "texts_of_special_tokens",
    "more_tokens_than_the_limit",
    "what_another_asked",
    "more_answers_than_letters",
    "deadlines_in_the_queue",
    "forms_of_many_parts",
    "things_of_another",
    "documents_of_others",
    "responses_of_another",
)


def test_one_key_cannot_take_the_demo_from_another() -> None:
    chosen = [option for name in CASES for option in ("--only", name)]
    command = [sys.executable, str(ROOT / "scripts" / "attack"), *chosen]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

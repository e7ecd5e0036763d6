"""lm-eval: a task of generated answers over the chat API, one request at a time and several at once."""

import json
import os
import sys
from pathlib import Path

os.environ |= {"OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

from checks import check
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

url, model = sys.argv[1:]
ROWS = [{"question": f"What colour is word {number}?", "answer": "Done: the word is green now."} for number in range(3)]
Path("rows.json").write_text("\n".join(map(json.dumps, ROWS)))
Path("generated.yaml").write_text(f"""task: generated
dataset_path: json
dataset_kwargs: {{data_files: {{test: {Path("rows.json").resolve()}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 20, temperature: 0}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
""")


def evaluated(**more: object) -> dict[str, object]:
    """The results of the task. Raises if a request failed."""
    where = {"base_url": f"{url}/v1/chat/completions", "model": model, "max_retries": 1, **more}
    return simple_evaluate(
        "local-chat-completions",
        where,
        tasks=["generated"],
        task_manager=TaskManager(include_path=str(Path.cwd()), include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
    )


def answered(**more: object) -> bool:
    """Every question has a text for its answer."""
    samples = evaluated(**more)["samples"]["generated"]
    return len(samples) == len(ROWS) and all(sample["resps"][0][0] for sample in samples)


check("task", answered)
check("several at once", lambda: answered(num_concurrent=3))
check("score", lambda: evaluated()["results"]["generated"]["exact_match,none"] == 1, clever=True)

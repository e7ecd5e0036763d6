"""Answers of real size: three members of 800 words with tables, code and formulas, their comparison, the judge's answer."""

import json
from collections.abc import Callable

from support.fake_engines import FakeEngines, last_message
from support.scripted_engine import Json, Script

QUESTION = "How do I move a PostgreSQL 13 database of 2.4 TB to version 17, with as little downtime as possible?"
NAMES = ("qwen3-8b-instruct", "llama-3.1-8b-instruct", "gemma-3-12b-it")
CODE = """```{language}
# {name}: copy the roles, then the schema, then subscribe.
def upgrade(source: str, target: str, jobs: int = 8) -> None:
    for table in tables(source):
        print(f"copying {{table}} with {{jobs}} jobs, which may take an hour for the largest of them, until it is done")
```"""
TABLE = """| Approach | Downtime | Extra disk | Old cluster untouched | Difficulty |
|---|---|--:|---|---|
| Logical replication | under two minutes | 2.4 TB | yes | high |
| `pg_upgrade --link` | about 30 minutes | none | no | moderate |
| Dump and restore | more than 14 hours | 1.1 TB | yes | low |"""
FORMULA = r"""The time of a copy is about $t \approx \frac{2.4\,\text{TB}}{r}$, where $r$ is the rate:

$$
t_{\text{copy}} = \sum_{i=1}^{n} \frac{s_i}{r_i} + \sqrt{\vec{v} \cdot n}
$$"""
SHARED = (
    "The write-ahead log must be set to logical before anything is copied.",
    "A table without a primary key needs a replica identity of its own.",
    "Sequences are not replicated, so their values are copied at the very end.",
)
FILLER = (
    "{name} would first measure how many megabytes the {thing} writes in a busy hour, and keep that figure for the plan.",
    "After that the {thing} is checked against the release notes, as some of its options have changed their names by now.",
    "A rehearsal of the {thing} on a copy of last night shows which step takes longest, and whether it can be run earlier.",
    "Nobody should touch the {thing} while the final switch is made, which is why the application is stopped in that minute.",
)
THINGS = ("publication", "subscription", "extension", "connection pool", "backup", "largest table", "monitoring")
TASKS = "- [x] read the release notes\n- [ ] rehearse the switch\n- [ ] tell the users"
LAST = {
    NAMES[0]: "The downtime is under two minutes with logical replication.",
    NAMES[1]: "The downtime is about 30 minutes with the link mode of the upgrade tool.",
    NAMES[2]: "Old data pages keep their checksums, which only matter if the disk is not trusted.",
}
INVENTED = "Zanzibar cloves are harvested twice yearly by 417 licensed pickers."


def member_answer(name: str) -> str:
    """An answer of about 800 words with headings, a table, code, formulas and tasks."""
    sections = [f"## 1. Approaches\n\n{SHARED[0]} {LAST[name]}\n\n{TABLE}", f"## 2. Formula\n\n{FORMULA}"]
    for number, thing in enumerate(THINGS, start=3):
        text = " ".join(line.format(name=name, thing=thing) for line in FILLER)
        shared = SHARED[number % len(SHARED)]
        sections.append(f"## {number}. The {thing}\n\n{text}\n\n{shared}")
    code = CODE.format(language="python", name=name)
    return "\n\n".join([*sections, f"### Steps\n\n{code}\n\n{TASKS}\n\nMore below[^1].\n\n[^1]: A note by {name}."])


def judge_answer() -> str:
    """The judge's answer: of what all, some and none of the members say."""
    return "\n\n".join(
        [
            f"## 1. The way to go\n\n{SHARED[0]} {SHARED[1]} {LAST[NAMES[0]]}",
            f"## 2. Prerequisites and `wal_level`\n\n{TABLE}\n\n{FORMULA}",
            *(
                f"### {number}. The {thing}\n\n" + " ".join(line.format(name=NAMES[0], thing=thing) for line in FILLER)
                for number, thing in enumerate(THINGS, start=3)
            ),
            CODE.format(language="python", name="judge"),
            f"{TASKS}\n\n{LAST[NAMES[2]]} {INVENTED}",
        ]
    )


def analysis() -> Json:
    """Ten points."""
    return {
        "contradictions": [
            {
                "topic": "The downtime that is to be expected",
                "stances": [
                    {"model": "A", "stance": "under two minutes with logical replication"},
                    {"model": "B", "stance": "about 30 minutes with `pg_upgrade --link`"},
                ],
            },
            {
                "topic": "Whether checksums matter",
                "stances": [
                    {"model": "C", "stance": "only if the disk is not trusted"},
                    {"model": "A", "stance": "yes"},
                ],
            },
        ],
        "consensus": ["`wal_level = logical` must be set in the write-ahead log", *SHARED[1:]],
        "partial_coverage": [{"models": ["A", "B"], "point": "a rehearsal of the backup on a copy of last night"}],
        "unique_insights": [{"model": name, "insight": f"insight {name} on the connection pool"} for name in "ABC"],
        "blind_spots": ["the licence of extensions"],
    }


def answer_at_length(engines: FakeEngines, pieces: Callable[[str], tuple[str, ...]] = lambda text: (text,)) -> None:
    """Let the members and the judge answer so; `pieces` cuts a text into what the engine streams."""
    for member, name in zip(("ann", "bob", "cat"), NAMES, strict=True):
        engines.let(member, Script(pieces(member_answer(name))))

    def judge(body: Json) -> Script:
        compares = "Now compare the answers" in last_message(body)
        return Script((json.dumps(analysis()),)) if compares else Script(pieces(judge_answer()))

    engines.let("judge", judge)


def words_of(text: str, per_piece: int = 8) -> tuple[str, ...]:
    """A text in pieces of a few words, with all its spaces."""
    words = text.split(" ")
    cuts = [" ".join(words[at : at + per_piece]) for at in range(0, len(words), per_piece)]
    return tuple(f"{cut} " if at < len(cuts) - 1 else cut for at, cut in enumerate(cuts))

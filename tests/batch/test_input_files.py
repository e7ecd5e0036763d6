"""Input files of batches: what is wrong with a line is told with its number, and rows that begin alike come together."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from cappella.errors import Forbidden, RequestError
from cappella.gateway import batch_input
from cappella.gateway.batch_input import Rows, order_of, read_rows
from cappella.types import Json
from support.stored_batches import CHAT, body, lines_of

GOOD = lines_of([body("one"), body("two")])


def read(tmp_path: Path, content: bytes, max_rows: int = 9, max_line_bytes: int = 500) -> Rows:
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    return read_rows(path, CHAT, _check, max_rows, max_line_bytes)


def _check(wanted: Json) -> None:
    if wanted["model"] == "none":
        raise RequestError("There is no such model.", "model", "model_not_found")
    if wanted["model"] == "secret":
        raise Forbidden("Not yours.", "model_not_allowed")


def line(**changed: Any) -> bytes:
    (text,) = lines_of([body()])
    return orjson.dumps({name: value for name, value in {**orjson.loads(text), **changed}.items() if value is not None})


def test_each_row_is_found_where_it_lies(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + GOOD[0].replace(b"\n", b"\r\n") + b"\n  \n" + GOOD[1].strip()
    found = read(tmp_path, content)
    assert found.problems == []
    assert [(row.number, row.custom_id) for row in found.rows] == [(1, "r1"), (4, "r2")]
    for row, text in zip(found.rows, GOOD, strict=True):
        assert orjson.loads(content[row.offset : row.offset + row.size_bytes]) == orjson.loads(text)


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"\xff\xfe{}", "invalid_json_line", None),
        (b"[" * 5000, "line_too_large", None),
        (b"[" * 400, "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (line(custom_id=None), "missing_custom_id", "custom_id"),
        (line(custom_id=7), "invalid_custom_id", "custom_id"),
        (line(custom_id=""), "invalid_custom_id", "custom_id"),
        (line(custom_id="x" * 600), "line_too_large", None),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/embeddings"), "invalid_url", "url"),
        (line(body=[1]), "invalid_body", "body"),
        (line(body=body(stream=True)), "stream_unsupported", "body.stream"),
        (line(body=body(model="none")), "model_not_found", "body.model"),
        (line(body=body(model="secret")), "model_not_allowed", "body.model"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(tmp_path: Path, wrong: bytes, code: str, param: str | None) -> None:
    found = read(tmp_path, GOOD[1] + wrong + b"\n" + GOOD[0].replace(b'"r1"', b'"r3"'))
    (problem,) = found.problems
    assert (problem["line"], problem["code"], problem["param"]) == (2, code, param)
    assert problem["message"]
    assert [row.number for row in found.rows] == [1, 3]


def test_a_custom_id_is_used_once(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD[0] + GOOD[1] + GOOD[0])
    assert [(each["line"], each["code"]) for each in found.problems] == [(3, "duplicate_custom_id")]


def test_a_line_without_end_is_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        file.write(b'{"custom_id": "')
        file.truncate(200 << 20)
    sizes: list[int] = []
    real = batch_input._skip_line

    def skip(file: Any) -> int:
        skipped = real(file)
        sizes.append(skipped)
        return skipped

    monkeypatch.setattr(batch_input, "_skip_line", skip)
    found = read_rows(path, CHAT, _check, 9, 1000)
    assert [(each["line"], each["code"]) for each in found.problems] == [(1, "line_too_large")]
    assert sizes == [(200 << 20) - 1001]


def test_too_many_rows_no_rows_and_too_many_mistakes(tmp_path: Path) -> None:
    found = read(tmp_path, b"".join(lines_of([body()] * 4)), max_rows=3)
    assert [(each["line"], each["code"]) for each in found.problems] == [(4, "too_many_rows")]
    assert [each["code"] for each in read(tmp_path, b"\n \n").problems] == ["empty_file"]
    assert len(read(tmp_path, b"{\n" * 1000).problems) == batch_input.MAX_PROBLEMS


def test_halves_of_characters_are_no_mistake(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD[0].replace(b"one", rb"\ud83d")).problems == []


def test_rows_that_begin_alike_come_together() -> None:
    manual, law = "Read the manual. " * 30, "Read the law. " * 2000
    texts = [manual + "a", law + "a", manual + "b", law + "b", law[:400] + "c"]
    order = sorted(range(len(texts)), key=lambda at: order_of(body(texts[at])))
    places = [order.index(at) for at in range(len(texts))]
    assert abs(places[0] - places[2]) == abs(places[1] - places[3]) == 1
    assert abs(places[4] - places[1]) <= 2
    others = [order_of(body(manual, model=model)) for model in ("ann", "bob")]
    assert others[0][:8] != others[1][:8]

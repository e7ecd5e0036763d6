"""A list of requests that comes in pieces: each entry is read once, and what is no such list is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.errors import RequestError
from cappella.gateway.formats.request_list import RequestList

ENTRIES = [{"custom_id": "a", "params": {"x": 'q"}]{[\\'}}, {"custom_id": "é€😀", "params": {"n": [1, {"y": None}]}}]


def entries_of(data: bytes, size: int, most: int = 1000, values: int = 1_000_000) -> list[Any]:
    reader = RequestList(most, values)
    found = [each for at in range(0, len(data), size) for each in reader.read(data[at : at + size])]
    return found + reader.read(b"", is_last=True)


@given(st.integers(1, 200), st.sampled_from([None, 1]), st.booleans())
def test_the_pieces_do_not_matter(size: int, indent: int | None, ascii_only: bool) -> None:
    data = json.dumps({"requests": ENTRIES}, indent=indent, ensure_ascii=ascii_only).encode()
    assert entries_of(data + b"\n", size) == ENTRIES


def test_an_empty_list_is_one() -> None:
    assert entries_of(b' { "requests" : [ ] } ', 3) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"requests": {}}',
        b'{"requests": [{"a": 1}',
        b'{"requests": [{"a": 1}, ]}',
        b'{"requests": [{"a": 1} {"b": 1}]}',
        b'{"requests": [{"a": NaN}]}',
        b'{"requests": [{"a": 1]}',
        b'{"requests": [{"a": tru}]}',
        b'{"requests": [{"a": "\\x"}]}',
        b'{"requests": [1]}',
        b'{"requests": [], "more": 1}',
        b'{"requests": []} {}',
        b'{"requests": [{"a": "\xff"}]}',
        b'{"requests": [{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    ],
)
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError, match="The body must be") as raised:
        entries_of(data, 7 if len(data) < 1000 else 50_000, most=1_000_000)
    assert (raised.value.code, raised.value.param) == ("invalid_json", "requests")


def test_one_entry_has_a_limit_and_the_list_has_none() -> None:
    assert len(entries_of(json.dumps({"requests": [{"a": "x" * 80}] * 500}).encode(), 64, most=100)) == 500
    with pytest.raises(RequestError, match="max_body_bytes"):
        entries_of(json.dumps({"requests": [{"a": "x" * 400}]}).encode(), 64, most=100)


@pytest.mark.parametrize("value", [[[]] * 1000, ["x"] * 3000, {f"a{number}": {} for number in range(1000)}])
def test_an_entry_of_too_many_values_is_refused_before_it_is_parsed(value: Any) -> None:
    """To parse four megabytes of empty lists takes a tenth of a second, in which no other thread runs."""
    unfinished = json.dumps({"requests": [{"a": 1}, {"a": value}]}).encode()[:-3]
    with pytest.raises(RequestError, match=r"server\.limits\.values") as raised:
        RequestList(1_000_000, 1000).read(unfinished)
    assert raised.value.code == "too_large"

"""Server-sent events come out the same however the network cuts them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella import sse

TEXT = b': keep-alive\n\nevent: x\r\ndata: {"a": 1}\r\n\r\ndata:{"b": "\xc3\xa4"}\n\nid: 7\ndata: [DONE]\n\n'
DATA = [b'{"a": 1}', b'{"b": "\xc3\xa4"}', sse.DONE]


@given(st.lists(st.integers(0, len(TEXT))))
def test_events_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(TEXT)]
    pieces = [TEXT[begin:end] for begin, end in pairwise(ends)]
    reader = sse.Reader()
    assert [data for piece in pieces for data in reader.feed(piece)] == DATA
    assert sse.events(TEXT) == DATA


def test_an_event_has_a_largest_size_and_those_after_it_are_read() -> None:
    reader = sse.Reader(max_bytes=10)
    with pytest.raises(sse.EventTooLarge):
        reader.feed(b"data: 12345678")
    assert reader.feed(b"rest\ndata: x\n") == [b"x"]

"""The names of models in replies that are forwarded."""

import pytest

from cappella.gateway.renaming import MAX_HEAD_BYTES, RenamedHead

REPLY = (
    b'{"id":"x","object":"list","model":"a.b","data":[{"embedding":[1.0]},{"text":"\\"model\\":\\"a.b\\""}],"usage":{}}'
)


@pytest.mark.parametrize("size", [1, 7, len(REPLY)])
def test_the_first_name_in_a_long_reply_is_replaced_wherever_it_is_cut(size: int) -> None:
    renamed = RenamedHead("the alias", "a.b")
    pieces = [renamed.feed(REPLY[at : at + size]) for at in range(0, len(REPLY), size)]
    assert b"".join(pieces) + renamed.rest() == REPLY.replace(b'"model":"a.b"', b'"model":"the alias"', 1)


def test_a_reply_without_a_name_is_not_held_back() -> None:
    renamed = RenamedHead("alias", "a")
    assert renamed.feed(b"x" * MAX_HEAD_BYTES) == b""
    assert renamed.feed(b"y") == b"x" * MAX_HEAD_BYTES + b"y"
    assert renamed.feed(b"z") == b"z"
    short = RenamedHead("alias", "a")
    assert short.feed(b"{}") + short.rest() == b"{}"

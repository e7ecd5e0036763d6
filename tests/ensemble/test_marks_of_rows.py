"""Nonces: random in a run, and the same each time where a run is made again from a secret."""

from cappella.ensemble.candidates import Candidates, fresh_nonce, marks_from
from cappella.ensemble.run import Answer, Call
from cappella.types import Usage


def answers(*texts: str) -> list[Answer]:
    call = Call("panel", "ann", Usage(), 0.0, None, 0.0, 1.0)
    return [Answer(f"m{number}", text, "stop", call) for number, text in enumerate(texts)]


def test_without_a_secret_no_two_are_alike() -> None:
    assert len({fresh_nonce() for _ in range(100)}) == 100


def test_with_a_secret_they_follow_from_it_and_from_what_they_mark() -> None:
    def drawn(secret: bytes, *texts: str) -> str:
        with marks_from(secret):
            return Candidates.shuffled(answers(*texts), seed=1).nonce

    assert drawn(b"one", "a", "b") == drawn(b"one", "a", "b")
    nonces = [drawn(b"one", "a", "b"), drawn(b"two", "a", "b"), drawn(b"one", "a", "c"), drawn(b"one", "ab", "")]
    assert len({*nonces}) == 4
    assert {len(nonce) for nonce in nonces} == {8}
    assert fresh_nonce() != fresh_nonce()

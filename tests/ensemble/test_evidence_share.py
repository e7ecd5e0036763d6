"""How many tokens the passages behind the answers may take."""

from cappella.ensemble.candidates import Candidates
from cappella.ensemble.evidence import Backing
from cappella.ensemble.evidence_share import share, with_less_evidence
from cappella.ensemble.sources import Source
from support.small_tools import LEAVE


def test_passages_that_have_no_bytes_left_do_not_get_some_back() -> None:
    backing = Backing(Source("S1", LEAVE), frozenset({"ann"}), frozenset())
    assert with_less_evidence(Candidates([], "n", backings=[backing], passage_bytes=0)).passage_bytes == 0


def test_a_run_that_has_overspent_leaves_passages_nothing() -> None:
    assert share(4096, -100) == 0

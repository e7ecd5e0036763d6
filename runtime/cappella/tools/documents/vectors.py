"""Passages by meaning: all vectors of an index in memory, compared one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_VECTORS = 100_000
"""More are not compared: of 384 numbers each, these take 150 MB."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of passages, each of length 1, as a matrix of numpy's."""

    ids: Sequence[int]
    matrix: Any

    def nearest(self, question: Sequence[float], limit: int) -> list[int]:
        """The passages whose vectors have the smallest angle to the question's, the best first; none of another size."""
        import numpy

        vector = unit(question)
        if not self.ids or vector is None or vector.shape[0] != self.matrix.shape[1]:
            return []
        scores = self.matrix @ vector
        best = numpy.argsort(-scores, kind="stable")[:limit]
        return [self.ids[at] for at in best]


def unit(vector: Sequence[float]) -> Any:
    """The vector with length 1, as 32-bit numbers; None for one of no or endless length."""
    import numpy

    array = numpy.asarray(vector, dtype=numpy.float32)
    length = numpy.linalg.norm(array)
    return array / length if numpy.isfinite(length) and length > 0 else None


def vectors_of(rows: Sequence[tuple[int, bytes]]) -> Vectors:
    """The vectors that are stored; those of another size than the first are left out."""
    import numpy

    rows = [row for row in rows if len(row[1]) == len(rows[0][1])]
    joined = b"".join(blob for _, blob in rows)
    matrix = numpy.frombuffer(joined, dtype="<f4").reshape(len(rows), -1) if rows else None
    return Vectors([row[0] for row in rows], matrix)

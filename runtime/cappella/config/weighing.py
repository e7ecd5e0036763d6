"""Run options that are objects: samples that stop, by what `select` weighs answers, and by what answers say the same."""

from typing import Annotated

from pydantic import Field, model_validator

from cappella.types import Frozen
from cappella.vocabulary import AgreementMode, Evidence

MAX_SAMPLES = 16


class Adaptive(Frozen):
    """Samples of each seat that stop, at `most` so many, once the leading value is `until` so sure to stay ahead."""

    most: Annotated[int, Field(ge=2, le=MAX_SAMPLES)] = MAX_SAMPLES
    until: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class Selection(Frozen):
    """How `select` weighs answers: what counts (`by`), whose `reward` model scores them, and the `margin`.

    All evidence is in log-odds, so that it adds up. Where the best answer leads by less than the margin, the prior decides:
    the members' weights, or else the agreement; the run says `confidence: low`.
    """

    by: Annotated[tuple[Evidence, ...], Field(min_length=1)] = ("judge", "agreement", "weights")
    margin: Annotated[float, Field(ge=0, le=10)] = 0.1
    reward: str | None = None


class Agreement(Frozen):
    """Which answers in free text say the same, for `vote` and for the agreement in `select`.

    By their `words`; by the `judge`, who groups them in one call; or by an `embedding`: the cosine of two texts, as `model`
    embeds them, is `alike` at least, which depends on the model, so that it has no default. If that call fails their words
    count, and the run says so.
    """

    by: AgreementMode = "words"
    model: str | None = None
    alike: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _says_what_is_alike(self) -> "Agreement":
        if self.by == "embedding" and self.alike is None:
            raise ValueError(
                "by: embedding needs alike, the least cosine of two texts that say the same: no figure suits all models. "
                "Embed some answers of yours that say the same and some that do not, and take one that parts them"
            )
        return self


def most_samples(samples: int | Adaptive | None) -> int | None:
    """The most samples of a seat."""
    return samples.most if isinstance(samples, Adaptive) else samples

"""Cuts our own introductions from the beginning of what a model writes: small ones copy what stands around answers and results."""

from cappella.ensemble.prompts import ANSWER_FROM_RESULTS, INTRODUCTION, RESULTS_INTRODUCTION

_INTRODUCTIONS = (INTRODUCTION, RESULTS_INTRODUCTION, ANSWER_FROM_RESULTS)


class IntroductionCutter:
    """Cuts one from a text that comes in pieces. It has the prompt's nonce, so that no other text can be taken for it.

    What may become an introduction is held back until that is known.
    """

    def __init__(self, nonce: str) -> None:
        self._introductions = [each.format(nonce=nonce) for each in _INTRODUCTIONS]
        self._held = ""
        self._is_cut = self._has_begun = False

    def add(self, piece: str) -> str:
        """The text that is known by now."""
        if self._has_begun:
            return piece
        text = self._held + piece
        bare = text.lstrip()
        if not self._is_cut:
            if any(len(bare) < len(each) and each.startswith(bare) for each in self._introductions):
                self._held = text
                return ""
            if whole := next(filter(bare.startswith, self._introductions), None):
                self._is_cut, bare = True, bare.removeprefix(whole).lstrip()
        self._held = ""
        self._has_begun = bool(bare) or not self._is_cut
        return bare if self._is_cut else text

    def end(self) -> str:
        """The rest of the text."""
        held, self._held, self._has_begun = self._held, "", True
        return held

"""Cuts our own introduction from the beginning of what a judge writes: small models copy what stands before the answers."""

from cappella.ensemble.prompts import INTRODUCTION


class IntroductionCutter:
    """Cuts it from a text that comes in pieces. It has the prompt's nonce, so that no other text can be taken for it.

    What may become the introduction is held back until that is known.
    """

    def __init__(self, nonce: str) -> None:
        self._introduction = INTRODUCTION.format(nonce=nonce)
        self._held = ""
        self._is_cut = self._has_begun = False

    def add(self, piece: str) -> str:
        """The text that is known by now."""
        if self._has_begun:
            return piece
        text = self._held + piece
        bare = text.lstrip()
        if not self._is_cut and len(bare) < len(self._introduction) and self._introduction.startswith(bare):
            self._held = text
            return ""
        if not self._is_cut and bare.startswith(self._introduction):
            self._is_cut, bare = True, bare.removeprefix(self._introduction).lstrip()
        self._held = ""
        self._has_begun = bool(bare) or not self._is_cut
        return bare if self._is_cut else text

    def end(self) -> str:
        """The rest of the text."""
        held, self._held, self._has_begun = self._held, "", True
        return held

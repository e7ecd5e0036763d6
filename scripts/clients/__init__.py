"""Other people's clients against the real gateway: what each is, how it is installed, and what came of it."""

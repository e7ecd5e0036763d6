"""The made-up archive of a harbour: what is in it, its documents, and questions about it."""

"""Several servers of one model, which are called as one engine."""

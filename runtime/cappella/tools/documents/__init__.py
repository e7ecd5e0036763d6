"""A search tool made of a folder: its files are cut into passages, kept in an index, and found by words and by meaning."""

"""The documentation: pages in Markdown that the server shows at `/docs` and `cappella docs` in a terminal, without a network."""

"""MCP servers as tool servers: those that Cappella starts, and those that run already."""

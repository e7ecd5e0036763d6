"""Tools in the box: they need no server of anybody's, and are off unless a config names them."""

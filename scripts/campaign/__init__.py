"""An attack on a running server with one ordinary key, while another key uses it: see scripts/attack."""

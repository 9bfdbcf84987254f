"""Shadow-traffic consistency verifier."""

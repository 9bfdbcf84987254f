"""What the verifier costs, measured beside its peers on the same records: see docs/performance.md."""

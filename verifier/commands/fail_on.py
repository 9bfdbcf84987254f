"""What `verifier offline --fail-on` may name."""

from __future__ import annotations

FAIL_ON = ("divergence", "incomplete", "conflict")
FAIL_ON_ANY = (*FAIL_ON, "incomparable", "rejected")

"""What goes wrong with a local server."""

from __future__ import annotations

from verifier.core.errors import VerifierError


class StackError(VerifierError):
    """A local server could not be had; the message names it, shows its log's end, and says what to do."""

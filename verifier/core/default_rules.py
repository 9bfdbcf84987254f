"""The rules every policy starts from: headers that say something of the connection or of this very answer.

Nothing here touches a body, a status or a write. To compare one of these headers exactly, configure a rule with
action `exact` for it.
"""

from __future__ import annotations

from verifier.core.rules import IGNORE, PRESENCE, Rule

REDACTED_NAMES = ("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "password")

_FRAMING = (
    "connection", "keep-alive", "proxy-*", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "via",
    "alt-svc",
)  # fmt: skip
_PER_ANSWER = ("date", "server", "age", "x-runtime", "x-response-time", "x-process-time", "server-timing")
_TRACE = (
    "x-request-id", "request-id", "x-correlation-id", "correlation-id", "x-trace-id", "x-span-id", "traceparent",
    "tracestate", "b3", "x-b3-*", "x-amzn-trace-id", "x-amzn-requestid", "x-cloud-trace-context", "uber-trace-id",
)  # fmt: skip


def _rules(action: str, names: tuple[str, ...], reason: str) -> list[Rule]:
    return [
        Rule(id=f"default:{name}", kind="header", field=name, action=action, owner="default", reason=reason)
        for name in names
    ]


DEFAULT_RULES: tuple[Rule, ...] = (
    *_rules(
        IGNORE, _FRAMING, "Says how this connection carries the answer (RFC 9110 section 7.6.1, RFC 9112)."
    ),
    *_rules(
        PRESENCE,
        _PER_ANSWER,
        "Both sides must say or not say when, by what or how fast this answer was made.",
    ),
    *_rules(PRESENCE, _TRACE, "Names this very request or its trace; both sides must name it or not."),
    Rule(
        id="default:set-cookie",
        kind="header",
        field="set-cookie",
        action=PRESENCE,
        owner="default",
        reason="Cookies carry sessions of their own side; both sides must set some or none.",
    ),
)

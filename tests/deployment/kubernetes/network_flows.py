"""NetworkPolicy, evaluated: who may open a connection to whom.

A connection is possible when the egress policies of its source allow it and the ingress policies of its destination do;
a side that no policy selects for that direction allows everything (networking.k8s.io/v1). Only what k8s/ uses is
understood; anything else is an assertion error and not a silent yes or no.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.deployment.kubernetes.rendered import NAMESPACE, Document, selects


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A pod, or with `address` something outside of the cluster."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None

    def labels_of_namespace(self) -> dict[str, str]:
        return {"kubernetes.io/metadata.name": self.namespace, **self.namespace_labels}


@dataclass(frozen=True, kw_only=True)
class Port:
    number: int
    protocol: str = "TCP"


def allowed(policies: Sequence[Document], source: Actor, target: Actor, port: Port) -> bool:
    """Whether `source` may connect to `port` of `target`."""
    return _side(policies, source, target, port, "Egress") and _side(
        policies, target, source, port, "Ingress"
    )


def _side(policies: Sequence[Document], at: Actor, peer: Actor, port: Port, direction: str) -> bool:
    if at.address is not None:
        return True
    mine = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == at.namespace
        and selects(policy["spec"]["podSelector"], at.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    if not mine:
        return True
    rules = [rule for spec in mine for rule in spec.get(direction.lower(), [])]
    key = {"Egress": "to", "Ingress": "from"}[direction]
    return any(_to_port(rule, port) and _to_peer(rule, key, at, peer) for rule in rules)


def _to_port(rule: Mapping[str, Any], port: Port) -> bool:
    assert set(rule) <= {"to", "from", "ports"}, rule
    if "ports" not in rule:
        return True
    for entry in rule["ports"]:
        assert set(entry) == {"protocol", "port"}, entry
        assert isinstance(entry["port"], int), "a named port would need the pods' ports"
    return any((entry["protocol"], entry["port"]) == (port.protocol, port.number) for entry in rule["ports"])


def _to_peer(rule: Mapping[str, Any], key: str, at: Actor, peer: Actor) -> bool:
    if key not in rule:
        return True
    return any(_is_peer(entry, at, peer) for entry in rule[key])


def _is_peer(entry: Mapping[str, Any], at: Actor, peer: Actor) -> bool:
    assert set(entry) <= {"podSelector", "namespaceSelector", "ipBlock"}, entry
    if "ipBlock" in entry:
        # Pods are not to be addressed by ipBlock: their addresses come and go.
        return peer.address is not None and _in_block(entry["ipBlock"], peer.address)
    if peer.address is not None:
        return False
    if "namespaceSelector" in entry:
        if not selects(entry["namespaceSelector"], peer.labels_of_namespace()):
            return False
    elif peer.namespace != at.namespace:
        return False
    return selects(entry.get("podSelector", {}), peer.labels)


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    at = ipaddress.ip_address(address)
    return at in ipaddress.ip_network(block["cidr"]) and not any(
        at in ipaddress.ip_network(part) for part in block.get("except", [])
    )

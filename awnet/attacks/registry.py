"""The attacks that can be called by name: each entry makes an attack, or a suite of attacks, for a threat model."""

from __future__ import annotations

from collections.abc import Callable

from awnet.attacks.attack import Attack
from awnet.attacks.suite import Suite
from awnet.registry import Registry
from awnet.threat_model import ThreatModel

ATTACKS: Registry[Callable[[ThreatModel], Attack | Suite]] = Registry("attack")

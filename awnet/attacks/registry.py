"""The attacks that can be called by name: each entry makes an attack for a threat model."""

from __future__ import annotations

from collections.abc import Callable

from awnet.attacks.attack import Attack
from awnet.registry import Registry
from awnet.threat_model import ThreatModel

ATTACKS: Registry[Callable[[ThreatModel], Attack]] = Registry("attack")

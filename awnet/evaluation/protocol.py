"""Protocols: frozen sets of attacks under a name and a number, so that a robust accuracy means the same in two years.

Every setting of every attack stands in `protocols.json`, norm by norm; only the radius comes from whoever asks. No default of
any attack can change what a protocol does, and no protocol is ever edited: what is to be otherwise gets the next number.
Verdicts on small fixed networks are kept with the tests, so that a change of the code is noticed too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from awnet.attacks.attack import Attack
from awnet.attacks.suite import Suite
from awnet.config import from_json
from awnet.errors import Mistake, unknown
from awnet.json_file import read_json
from awnet.threat_model import ThreatModel

FILE = Path(__file__).with_name("protocols.json")


@cache
def _protocols() -> Mapping[str, Any]:
    return read_json(FILE)


def protocols() -> dict[str, str]:
    """The names of all protocols, each with a sentence that says what it is."""
    return {name: protocol["about"] for name, protocol in _protocols().items()}


def attacks_of(protocol: str, threat: ThreatModel) -> dict[str, Attack | Suite]:
    """What a protocol runs in a threat model: attacks by name, as `evaluate` takes them.

    Raises:
        Mistake: where there is no such protocol, or it says nothing of this norm.
    """
    if protocol not in _protocols():
        raise unknown("protocol", protocol, _protocols())
    by_norm, norm = _protocols()[protocol]["attacks"], type(threat).__name__
    if norm not in by_norm:
        raise Mistake(f"the protocol {protocol} is for {' and '.join(by_norm)}, got {norm}")
    return {name: _attack(saved, f"{protocol}, {name}").within(threat) for name, saved in by_norm[norm].items()}


def _attack(saved: Any, where: str) -> Attack | Suite:
    attack = from_json(saved, where=where)
    assert isinstance(attack, (Attack, Suite)), where
    return attack

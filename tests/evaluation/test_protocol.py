"""Protocols: every setting is written down, nothing but the radius changes, and what they find on fixed networks stays."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from awnet.attacks import Attack, Square, Suite, adaptive_suite, auto_attack
from awnet.config import to_json
from awnet.errors import Mistake
from awnet.evaluation.protocol import FILE, attacks_of, protocols
from awnet.threat_model import L1, L2, Linf, ThreatModel
from evaluation import protocol_verdicts
from evaluation.protocol_verdicts import BALLS, GOLDEN, as_marked, members, named, settings

each_ball = pytest.mark.parametrize("threat", [Linf(4 / 255), L2(1.5), L1(3.0)], ids=str)


@each_ball
def test_standard_1_is_autoattack_standard(threat: ThreatModel):
    assert attacks_of("standard@1", threat) == {"standard@1": auto_attack(threat)}


@each_ball
def test_adaptive_2_is_the_suite_and_the_rest_of_standard(threat: ThreatModel):
    (suite,) = attacks_of("adaptive@2", threat).values()
    assert isinstance(suite, Suite) and suite.members[:-2] == adaptive_suite(threat).members
    assert suite.members[-2:] == auto_attack(threat).members[2:]


@each_ball
def test_adaptive_1_is_that_without_what_came_later(threat: ThreatModel):
    (now,), (then,) = (attacks_of(name, threat).values() for name in ("adaptive@2", "adaptive@1"))
    assert isinstance(now, Suite) and isinstance(then, Suite)
    assert then.members == tuple(one for one in now.members if one[0] not in ("diversified", "warm-averaged"))


def test_quick_1():
    (suite,) = attacks_of("quick@1", Linf(0.1)).values()
    assert isinstance(suite, Suite) and suite.names == ("apgd-ce", "apgd-t", "square")
    assert [getattr(attack, "steps", 0) for attack in suite.attacks] == [20, 20, 200]


@each_ball
@pytest.mark.parametrize("protocol", protocols())
def test_it_is_in_the_threat_model_that_was_asked_for(protocol: str, threat: ThreatModel):
    for name, attack in attacks_of(protocol, threat).items():
        assert name == protocol and attack.threat == threat
        assert hash(attack) == hash(attacks_of(protocol, threat)[name])


@pytest.mark.parametrize("protocol", protocols())
def test_every_setting_is_written_down(protocol: str):
    """A field that the file leaves out would follow its default, whatever that becomes."""

    def complete(saved: Any, value: Any, where: str) -> None:
        if dataclasses.is_dataclass(value):
            names = {field.name for field in dataclasses.fields(value)}
            assert saved.keys() - {"kind"} == names, where
            for name in names:
                complete(saved[name], getattr(value, name), f"{where}.{name}")
        elif isinstance(value, tuple):
            for i, (a, b) in enumerate(zip(saved, value, strict=True)):
                complete(a, b, f"{where}[{i}]")

    for norm, by_name in json.loads(FILE.read_text())[protocol]["attacks"].items():
        for name, saved in by_name.items():
            eps = saved["members"][0][1]["threat"]["eps"]
            attack = attacks_of(protocol, {"Linf": Linf, "L2": L2, "L1": L1}[norm](eps))[name]
            complete(saved, attack, f"{protocol} {norm}")
            assert to_json(attack) == saved


def test_an_unknown_protocol_is_a_mistake():
    with pytest.raises(Mistake, match="no protocol is named 'standard'; did you mean standard@1"):
        attacks_of("standard", Linf(0.1))


CASES = [(protocol, threat) for protocol in protocols() for threat in BALLS]
each_case = pytest.mark.parametrize(("protocol", "threat"), CASES, ids=str)


def known_of(protocol: str, threat: ThreatModel) -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())[protocol][str(threat)]


@each_case
def test_no_protocol_is_ever_edited(protocol: str, threat: ThreatModel):
    assert settings(protocol, threat) == known_of(protocol, threat)["settings"]


@each_case
def test_a_changed_setting_of_any_attack_is_noticed(
    protocol: str, threat: ThreatModel, monkeypatch: pytest.MonkeyPatch
):
    attacks = members(protocol, threat)
    for name, attack in attacks.items():
        other = attacks | {name: dataclasses.replace(attack, steps=attack.steps + 1)}
        changed = {protocol: Suite(members=tuple(other.items()))}
        monkeypatch.setattr(protocol_verdicts, "attacks_of", lambda *_, changed=changed: changed)
        assert settings(protocol, threat) != known_of(protocol, threat)["settings"], name


@pytest.mark.parametrize(
    ("protocol", "threat"),
    [pytest.param(*case, marks=() if case[0] == "quick@1" else pytest.mark.slow) for case in CASES],
    ids=str,
)
def test_the_verdicts_on_fixed_networks_are_those_of_back_then(protocol: str, threat: ThreatModel):
    known = known_of(protocol, threat)
    ids = torch.tensor(known["ids"])
    assert 0 < known["stand"][0] < len(ids), "verdicts that are all alike show nothing"
    assert named(protocol, threat, ids) == known["verdicts"]


@pytest.mark.slow
@each_case
def test_each_attack_by_itself_does_what_it_did(protocol: str, threat: ThreatModel):
    """Behind the others of its suite it could become weaker unseen."""
    known, attacks = known_of(protocol, threat)["members"], members(protocol, threat)
    assert known.keys() == attacks.keys()
    for name, attack in attacks.items():
        assert {"0", "1"} <= {*known[name]}, "verdicts that are all alike show nothing"
        assert as_marked(attack, known[name]), name


def test_an_attack_that_reaches_half_as_far_is_noticed():
    known = known_of("quick@1", BALLS[0])["members"]
    for name, attack in members("quick@1", BALLS[0]).items():
        assert not as_marked(attack.within(Linf(BALLS[0].eps / 2)), known[name]), name


def test_weaker_attacks_have_other_verdicts(monkeypatch: pytest.MonkeyPatch):
    known = known_of("quick@1", BALLS[0])

    def weaker(protocol: str, threat: ThreatModel) -> dict[str, Attack | Suite]:
        return {protocol: Square(threat=threat, steps=3)}

    monkeypatch.setattr(protocol_verdicts, "attacks_of", weaker)
    assert named("quick@1", BALLS[0], torch.tensor(known["ids"])) != known["verdicts"]

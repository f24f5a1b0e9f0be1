"""More effort is the same attack with more steps and more runs, and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

import pytest

from awnet.attacks import ATTACKS, EOT, PGD, Attack, Steer
from awnet.attacks.effort import more
from awnet.threat_model import Linf

BALL = Linf(0.1)
SINGLE = {name: attack for name in ATTACKS if isinstance(attack := ATTACKS[name](BALL), Attack)}


@pytest.mark.parametrize("name", SINGLE)
def test_every_attack_by_name_takes_more(name):
    attack = SINGLE[name]
    effort = more(attack, steps=2, runs=3)
    assert type(effort) is type(attack) and effort.queries > attack.queries
    times = {"steps": 2, "then": 2, "restarts": 3}
    for field in fields(cast(Any, attack)):
        ours, theirs = getattr(effort, field.name), getattr(attack, field.name)
        assert ours == (times[field.name] * theirs if field.name in times else theirs), field.name
    assert more(attack) == attack


def test_both_legs_take_more():
    assert more(Steer(threat=BALL, steps=7, then=5), steps=2) == Steer(threat=BALL, steps=14, then=10)


def test_the_attack_within_a_mean_takes_more():
    eot = EOT(attack=PGD(threat=BALL, steps=5), samples=4)
    assert more(eot, steps=2, runs=2) == replace(eot, attack=PGD(threat=BALL, steps=10))

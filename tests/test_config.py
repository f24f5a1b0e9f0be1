"""Settings as JSON: they come back equal, and whatever is wrong in a file is said by the place where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from awnet import config
from awnet.attacks import PGD, Attack, Engine, cw_inf
from awnet.config import from_json, setting, to_json
from awnet.errors import Mistake
from awnet.losses import KL, CrossEntropy, Margin
from awnet.models.awnet import AWNetConfig, Knob
from awnet.models.model import Architecture
from awnet.models.resnet import ResNetConfig
from awnet.threat_model import L2, Linf, ThreatModel


@setting
@dataclass(frozen=True, kw_only=True)
class Everything:
    """One field of every type that a setting may have."""

    attack: Attack | None = None
    attacks: tuple[Attack, ...] = ()
    threats: dict[str, ThreatModel] = field(default_factory=dict)
    more: Mapping[str, float] = field(default_factory=dict)
    pair: tuple[int, str] = (1, "one")
    means: tuple[float, ...] | None = None
    limit: float | None = None
    kind_of: Literal["u", "v"] = "u"
    loss: Callable[..., Any] = CrossEntropy()  # noqa: RUF009
    flag: bool = False
    anything: Any = None


def there_and_back(value: object) -> object:
    return from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))


@pytest.mark.parametrize(
    "value",
    [
        PGD(threat=Linf(8 / 255)),
        PGD(threat=L2(0.5), loss=KL(tau=5.0, reverse=True), initial="gaussian", unit="pixel", step_size=0.003),
        cw_inf(Linf(0.1)),
        Margin(),
        Engine(batch_size=7, precision="bfloat16", channels_last=False),
        AWNetConfig(base=ResNetConfig(depth=34), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), knob=Knob(p_max=0.3)),
        Everything(),
        Everything(
            attack=PGD(threat=Linf(0.1)),
            attacks=(PGD(threat=Linf(0.1)), cw_inf(L2(1.0))),
            threats={"a": Linf(0.1), "b": L2(0.2)},
            more={"a": float("inf"), "b": 1.0},
            pair=(3, "three"),
            means=(0.5, float("-inf")),
            limit=float("inf"),
            kind_of="v",
            loss=KL(),
            flag=True,
            anything=Linf(0.3),
        ),
        (Linf(0.1), L2(0.1)),
        {"a": Linf(0.1), "b": (1, 2.5, "three", None, True)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_written_comes_back(value: object):
    assert there_and_back(value) == value
    assert type(there_and_back(value)) is type(value)
    assert to_json(there_and_back(value)) == to_json(value)


def test_the_file_is_what_it_says():
    assert to_json(Margin()) == {"kind": "Margin", "kappa": "inf"}
    assert to_json(PGD(threat=Linf(0.1))) == {
        "kind": "PGD",
        "threat": {"kind": "Linf", "eps": 0.1},
        "loss": {"kind": "CrossEntropy"},
        "steps": 20,
        "step_size": 0.25,
        "unit": "eps",
        "initial": "uniform",
        "stop_on_success": False,
    }


def test_whole_numbers_become_floats_where_floats_are_meant():
    threat = from_json({"kind": "L2", "eps": 1})
    assert threat == L2(1.0) and isinstance(threat.eps, float)


def test_infinity_is_a_number_in_both_directions_and_text_stays_text():
    assert from_json({"kind": "Margin", "kappa": "inf"}) == Margin(float("inf"))
    assert from_json({"kind": "Everything", "limit": "-inf"}).limit == float("-inf")
    assert from_json({"kind": "Everything", "pair": [1, "inf"]}).pair == (1, "inf")


GOOD = to_json(PGD(threat=Linf(0.1)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "PDG"}, r"no kind of setting \(in settings\) is named 'PDG'; did you mean PGD"),
        ({"kind": 3}, "no kind of setting .* is named '3'"),
        ({"kind": "os.system"}, "no kind of setting"),
        (GOOD | {"stepsize": 1}, r"no field of PGD \(in settings\) is named 'stepsize'; did you mean step_size"),
        (GOOD | {"threat": {"kind": "Lin", "eps": 0.1}}, r"\(in settings.threat\) is named 'Lin'; did you mean Linf"),
        (GOOD | {"threat": {"kind": "Linf", "epsilon": 0.1}}, r"no field of Linf \(in settings.threat\)"),
        (GOOD | {"threat": {"kind": "Linf"}}, "settings.threat is not a complete Linf: .*eps"),
        ({"kind": "PGD"}, "settings is not a complete PGD: .*threat"),
        (GOOD | {"steps": "20"}, "settings.steps: Expected `int`, got `str`"),
        (GOOD | {"steps": 2.5}, "settings.steps: Expected `int`, got `float`"),
        (GOOD | {"steps": True}, "settings.steps: Expected `int`, got `bool`"),
        (GOOD | {"steps": None}, "settings.steps: Expected `int`"),
        (GOOD | {"steps": [1, 2]}, "settings.steps: Expected `int`, got `array`"),
        (GOOD | {"steps": {"a": 1}}, "settings.steps: Expected `int`, got `object`"),
        (GOOD | {"step_size": "a lot"}, "settings.step_size: Expected `float`"),
        (GOOD | {"unit": "pixels"}, "settings.unit: Invalid enum value 'pixels'"),
        (GOOD | {"unit": {"kind": "Linf", "eps": 0.1}}, "settings.unit should be"),
        (GOOD | {"stop_on_success": 1}, "settings.stop_on_success: Expected `bool`"),
        (GOOD | {"threat": 0.1}, "settings.threat: Expected"),
        (GOOD | {"threat": {"eps": 0.1}}, 'settings.threat lacks its "kind"'),
        (
            GOOD | {"threat": {"kind": "CrossEntropy"}},
            "settings.threat should be of kind ThreatModel, got CrossEntropy",
        ),
        (GOOD | {"loss": {"kind": "Linf", "eps": 0.1}}, "settings.loss should be of kind Callable, got Linf"),
        (GOOD | {"loss": "cross-entropy"}, "settings.loss"),
        (GOOD | {"threat": {"kind": "Linf", "eps": 8}}, r"did you mean 8/255\?"),
        (GOOD | {"steps": 0}, "at least one step"),
        ({"kind": "Everything", "attacks": [GOOD, {"kind": "Linf", "eps": 0.1}]}, r"settings.attacks\[1\] should be"),
        ({"kind": "Everything", "attacks": [GOOD | {"steps": "x"}]}, r"settings.attacks\[0\].steps: Expected"),
        ({"kind": "Everything", "attacks": GOOD}, "settings.attacks should be of kind tuple, got PGD"),
        ({"kind": "Everything", "attack": 3}, "settings.attack: Expected"),
        ({"kind": "Everything", "threats": {"a": GOOD}}, "settings.threats.a should be of kind ThreatModel, got PGD"),
        ({"kind": "Everything", "more": {"a": "x"}}, "settings.more.a: Expected `float`"),
        ({"kind": "Everything", "pair": [1]}, "settings.pair: Expected `array` of length 2"),
        ({"kind": "Everything", "pair": ["one", 1]}, r"settings.pair\[0\]: Expected `int`"),
        ({"kind": "Everything", "means": [0.5, "x"]}, r"settings.means\[1\]: Expected `float`"),
        ([GOOD, GOOD | {"steps": "x"}], r"settings\[1\].steps"),
        ({"pgd": GOOD | {"steps": "x"}}, "settings.pgd.steps"),
    ],
)
def test_what_is_wrong_in_a_file_is_a_mistake(data: Any, message: str):
    with pytest.raises(Mistake, match=message):
        from_json(data)


def test_the_class_that_must_come_out():
    assert from_json(GOOD, Attack) == from_json(GOOD, PGD) == PGD(threat=Linf(0.1))
    with pytest.raises(Mistake, match=r"record\.attack should be of kind Architecture, got PGD"):
        from_json(GOOD, Architecture, where="record.attack")
    with pytest.raises(Mistake, match="settings should be of kind Attack, got dict"):
        from_json({"a": 1}, Attack)


def test_reading_changes_nothing_that_is_given():
    data = {"kind": "Everything", "attacks": [dict(GOOD)], "more": {"a": "inf"}}
    text = json.dumps(data)
    from_json(data)
    assert json.dumps(data) == text


def test_only_frozen_settings_come_back_and_a_name_is_given_once():
    @dataclass(frozen=True)
    class Private:
        a: int = 1

    assert to_json(Private()) == {"kind": "Private", "a": 1}
    with pytest.raises(Mistake, match="no kind of setting"):
        there_and_back(Private())
    with pytest.raises(AssertionError):
        setting(type("PGD", (Private,), {}))
    with pytest.raises(AssertionError):
        setting(int)
    assert config._KINDS["PGD"] is PGD


def test_settings_are_compared_and_changed_as_values():
    a = there_and_back(PGD(threat=Linf(0.1)))
    assert isinstance(a, PGD)
    assert hash(a) == hash(PGD(threat=Linf(0.1))) and replace(a, steps=5) == PGD(threat=Linf(0.1), steps=5)

"""Each check passes a model that works, and finds out one that was made to mislead it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from awnet.attacks import (
    APGD,
    EOT,
    FAB,
    PGD,
    Attack,
    Diversified,
    Engine,
    RayS,
    Square,
    Suite,
    TensorExamples,
    Transfer,
    deep_sloth,
    fgsm,
)
from awnet.attacks.adaptive import PaperAdaptive, evasions, joint, router_only, warm
from awnet.config import to_json
from awnet.conformance.planted import BALL, Planted, planted_sample
from awnet.data.dataset import Dataset
from awnet.errors import Mistake
from awnet.evaluation.adversarials import read_adversarials
from awnet.evaluation.evaluate import evaluate
from awnet.evaluation.finding import Finding
from awnet.evaluation.metrics import worst_case
from awnet.evaluation.preflight import Cleared
from awnet.evaluation.record import Record
from awnet.evaluation.rigour import CHECKS, Part, Trial, rigour
from awnet.evaluation.rigour.binarised import DecidingReadout, Features
from awnet.evaluation.rigour.check import surely_more
from awnet.evaluation.rigour.doubling import recorded_doubled
from awnet.evaluation.rigour.seeds import compared
from awnet.losses import Margin, TargetedDLR
from awnet.models import Knob, create
from awnet.models.model import Decision
from awnet.noise import fold, permutation
from awnet.threat_model import L1, L2, Linf
from evaluation import misled
from evaluation.misled import Around
from models.randomised import unsettle
from training.tiny import CLASSES, DYNAMIC, dataset

THREAT = Linf(0.1)
ENGINE = Engine(batch_size=64)
DATA = dataset(60, split="test", seed=4)
STRONG = {"fgsm": fgsm(THREAT), "pgd": PGD(threat=THREAT, steps=40, step_size=0.1)}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """A network that gets most images right, and half of them when attacked."""
    return misled.sound()


@pytest.fixture(scope="module")
def cleared(net: nn.Module) -> dict[str, str]:
    """What the checks say of it."""
    return {finding.code: finding.status for finding in rigour(net, DATA, THREAT, steps=15, engine=ENGINE)}


def found(model: nn.Module, code: str, data: Any = DATA, threat: Any = THREAT, **more: Any) -> Finding:
    (finding,) = rigour(model, data, threat, checks=[code], **{"steps": 15, "engine": ENGINE, **more})
    return finding


def judged(model: nn.Module, **more: Any) -> Record:
    record = evaluate(model, DATA, STRONG, **{"threat": THREAT, "engine": ENGINE, "samples": 0, **more})
    return replace(
        record, provenance={**record.provenance, "commit": "0123"}, model={**record.model, "selection": "validation"}
    )


def test_a_sound_evaluation_passes_every_check(net):
    said: list[str] = []
    before = {name: t.clone() for name, t in net.state_dict().items()}
    findings = rigour(net, DATA, THREAT, engine=ENGINE, steps=20, record=judged(net), progress=said.append)
    assert {f.code: f.status for f in findings if f.status != "pass"} == {"C7": "skipped", "C10": "warn"}, findings
    assert [f.code for f in findings] == [f"C{k}" for k in range(1, 11)] and len(said) == 10
    assert all(f.meaning.endswith(".") and f.name for f in findings)
    assert "Only 60 images" in findings[-1].meaning and len(findings[-1].meaning) < 80
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


# code, what is made of the network, the status, a piece of what is said
PLANTED: dict[str, tuple[str, Any, str, str]] = {
    "neighbours": ("C1", lambda net: Around(net, after=misled.neighbours), "fail", "in batches of 1, the model gives other"),
    "random": ("C1", lambda net: Around(net, after=misled.random), "fail", "draws random numbers"),
    "no number": ("C1", lambda net: Around(net, after=misled.broken), "fail", "NaN"),
    "squeezed": ("C1", lambda net: Around(net, after=misled.squeezed), "warn", "raises in batches of 1"),
    "straight through": ("C2", lambda net: Around(net, misled.straight_through), "fail", "100 % of the images is not"),
    "no gradient": ("C2", lambda net: Around(net, after=misled.without_gradient), "fail", "have no gradient with respect"),
    "a step function": ("C2", lambda net: Around(net, misled.snapped), "fail", "100 % of the images have no gradient"),
    "saturated": ("C2", lambda net: Around(net, after=misled.saturated), "fail", "softmax rounds to 1"),
    "normalised": ("C3", lambda net: Around(net, misled.normalised), "fail", "it expects these pixels"),
    "bytes": ("C3", lambda net: Around(net, misled.of_bytes), "fail", "multiplied by 255"),
    "probabilities": ("C3", lambda net: Around(net, after=lambda z: z.softmax(1)), "warn", "outputs are probabilities"),
    "a sigmoid": ("C3", lambda net: Around(net, after=lambda z: z.sigmoid()), "warn", "as a sigmoid's do"),
    "never broken": ("C4", lambda net: Around(net, misled.snapped), "fail", "may change everything leaves"),
    "better at large eps": ("C4", misled.Edgy, "fail", "Accuracy rises from eps"),
    "square beats gradients": ("C5", lambda net: Around(net, misled.snapped), "fail", "pgd leaves"),
    "falls to noise": ("C6", lambda net: misled.Brittle(net, 0.24), "warn", "ign noise"),
    "takes light for an attack": ("C6", lambda net: misled.Alarmed(net, 0.46), "fail", "attacked after brighter"),
    "features of steps": ("C8", lambda net: Around(net, misled.snapped), "fail", "are not found (apgd-margin 0 %"),
    "no slope": ("C9", lambda net: Around(net, misled.snapped), "fail", "the loss never rises"),
    "no slope of cross-entropy": ("C9", lambda net: Around(net, after=misled.saturated), "fail", "the loss never rises"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name, net, cleared):
    code, plant, status, said = PLANTED[name]
    finding = found(plant(net), code)
    assert finding.status == status and said in finding.meaning, finding
    assert finding.advice and finding.code == code
    assert cleared[code] == "pass", "and the network that it was made of is cleared"


class InCompany(misled.Scaled):
    """A network that raises where it is asked about one image alone, as one that squeezes its logits does."""

    alone = True  # whether it answers all the same

    def signals(self, x):
        if len(x) == 1 and not self.alone:
            raise RuntimeError("no batch of one")
        return super().signals(x)

    def hold(self, x, signals):
        self.signals(x)
        return super().hold(x, signals)

    def detect(self, x):
        return self(x), torch.ones(len(x))


@pytest.mark.parametrize("limit", [15, 1])
def test_nothing_is_asked_about_one_image_alone(limit, net):
    """Fifteen images in sevens, and a single one: but for C1, which asks on purpose, the checks say what they always say."""
    model = InCompany(net, misled.common)
    few = {"engine": Engine(batch_size=7), "steps": 2, "limit": limit}
    answering = rigour(model, DATA, THREAT, **few)
    model.alone = False
    batches, *others = rigour(model, DATA, THREAT, **few)
    assert others == list(answering[1:])
    assert batches.status == "warn" and batches.meaning == "The model raises in batches of 1."


def test_every_check_has_a_planted_fault():
    assert set(CHECKS) == {code for code, *_ in PLANTED.values()} | {"C7", "C10"}


@pytest.mark.parametrize(
    ("gate", "code", "status", "said"),
    [
        ("honest", "C2", "pass", "Gradients agree"),
        ("detached", "C2", "fail", "detached"),
        ("saturated", "C2", "warn", "no slope in float32"),
        ("honest", "C7", "pass", "no better than its branches"),
        ("hard", "C7", "fail", "held up by the decision"),
        ("saturated", "C7", "fail", "held up by the decision"),
    ],
)
def test_gates(gate, code, status, said):
    """A router that is cut off, hard or saturated, of known robustness."""
    model = Planted(gate)
    sample = planted_sample(model, 60)
    data = TensorExamples(sample.x, sample.y, torch.arange(60))
    finding = found(model, code, data, BALL)
    assert finding.status == status and said in finding.meaning, finding


@pytest.mark.parametrize(
    ("name", "attack", "status"),
    [
        ("standard@1", PGD(threat=BALL, steps=5), "fail"),
        ("rays", PGD(threat=BALL, steps=5), "fail"),
        ("pgd-sat from adaptive-run", PGD(threat=BALL, steps=5), "fail"),
        ("ours", joint(BALL, "clean"), "pass"),
    ],
)
def test_only_who_pushes_the_decision_knows_the_router(name, attack, status):
    """Steering breaks more of this one than plain attacks do; whoever has steered already is told nothing."""
    model = Planted("saturated")
    sample = planted_sample(model, 60)
    x = (255 * sample.x).round().to(torch.uint8)
    images = Dataset("planted", "test", x, sample.y, torch.arange(60), tuple("abc"))
    record = evaluate(model, images, {name: attack}, threat=BALL, engine=ENGINE, cleared=Cleared(model))
    finding = found(model, "C7", images, BALL, record=record)
    assert ("who steers the decision" in finding.meaning.lower()) == (status == "fail"), finding


def test_transferred_images_may_find_less(net):
    """Those of an unrelated network: not a disorder, as they would be under an attack on the network itself."""
    record = judged(net)
    useless = replace(record.attacks["fgsm"], correct=record.clean.correct, settings={"kind": "Transfer"})
    with_it = replace(record, attacks={**record.attacks, "pgd-sat from other": useless})
    assert found(net, "C5", record=with_it, steps=8).status == "pass"
    assert found(net, "C5", record=replace(record, attacks={"pgd-sat": useless}), steps=8).status == "fail"


@pytest.mark.parametrize(
    ("name", "breaks", "status", "said"),
    [
        ("pgd-sat from other", True, "warn", "pgd leaves"),  # ours are short, and it is ours that see the gradient
        ("rays", True, "warn", "apgd leaves"),
        ("fab", False, "warn", "fab (record) leaves"),  # more than one step does
        ("diversified", False, "fail", "diversified (record) leaves"),
        ("square", True, "fail", "pgd leaves"),
        ("cw", True, "pass", ""),  # stronger than ours are, as it may be
        ("rays", False, "pass", ""),
    ],
)
def test_the_order_of_the_records_attacks(name, breaks, status, said, net):
    """One that breaks everything, or nothing, beside our own."""
    record = judged(net)
    result = replace(record.attacks["fgsm"], correct=record.clean.correct & (not breaks), settings={"kind": "Else"})
    beside = {} if breaks else {"pgd": record.attacks["pgd"]}  # so that the record misses nothing
    finding = found(net, "C5", record=replace(record, attacks={**beside, name: result}), steps=8)
    order = finding.meaning if "order" in finding.meaning else ""
    assert (finding.status, bool(order)) == (status, status != "pass") and said in order, finding


def test_transferred_images_that_do_less_than_noise_are_no_fault(net):
    """A network that falls to noise may withstand the images of one that does not."""
    model = misled.Brittle(net, 0.24)
    record = judged(model)
    useless = replace(record.attacks["fgsm"], correct=record.clean.correct, settings={"kind": "Transfer"})
    finding = found(model, "C5", record=replace(record, attacks={"pgd-sat from other": useless}), steps=8)
    odd = "pgd-sat from other (record) leaves"
    assert f"not the usual one: {odd}" in finding.meaning and f"is wrong: {odd}" not in finding.meaning, finding


def test_an_attack_that_has_not_converged():
    finding = found(Planted("honest"), "C4", _of(Planted("honest")), BALL, steps=1)
    assert finding.status in ("warn", "fail") and "has not converged" in finding.meaning, finding


@pytest.mark.parametrize(
    ("attack", "status"),
    [
        (PGD(threat=THREAT, steps=3), "fail"),
        (PGD(threat=THREAT, steps=2, step_size=0.1), "pass"),
        (STRONG["pgd"], "pass"),
    ],
    ids=["eleven more", "one more", "none more"],
)
def test_the_attack_of_the_record_is_doubled(attack, status, net):
    """As many images fall to twice its steps as they do by hand; one of 60 is no proof that it is more than 0.2 points."""
    weak = PGD(threat=THREAT, steps=1, step_size=0.01, initial="zero")
    record = evaluate(net, DATA, {"ours": attack, "weak": weak}, threat=THREAT, engine=ENGINE)
    finding = found(net, "C4", record=record)
    x, y = DATA.batch(torch.arange(60))
    twice = net(replace(attack, steps=2 * attack.steps)(net, x, y, ids=DATA.ids)).argmax(1) == y
    more = int((record.attacks["ours"].correct & ~twice).sum())
    assert finding.status == status and "ours, the strongest of the record" in finding.meaning, finding
    assert f"breaks {more} of 60 images more so" in finding.meaning
    assert finding.figures["points that ours takes once doubled"] == pytest.approx(100 * more / 60)
    assert ("has not converged" in finding.meaning) is (status != "pass") is bool(finding.advice)
    assert ("too few to be told" in finding.meaning) is (more == 1)


def test_who_of_the_record_is_doubled(net):
    """Of a suite who broke the most; nobody who takes too long, asks another network or has another ball."""
    lame, apgd = PGD(threat=THREAT, steps=2, step_size=0.01), APGD(threat=THREAT, steps=40)
    suite = Suite(members=(("lame", lame), ("apgd", apgd), ("again", apgd)))
    record = evaluate(net, DATA, {"lame": lame, "suite": suite}, threat=THREAT, engine=ENGINE)
    examples = TensorExamples(*DATA.batch(torch.arange(60)), DATA.ids)

    def doubling(record: Record | None) -> list[Part]:
        return [
            *recorded_doubled(
                Trial(model=net, examples=examples, threat=THREAT, engine=ENGINE, seed=0, steps=15, record=record)
            )
        ]

    (part,) = doubling(record)
    assert part.figures["points that suite: apgd takes once doubled"] == 0
    on = part.figures["images on which it was doubled"]
    assert 12 <= on < 60, "as many as withstand 4 x 15 x 60 gradients, at 163 each, and who falls anyhow"
    for other in (replace(record, ids=record.ids + 1000), replace(record, attacks={}), None):
        assert doubling(other) == []
    for settings in (Square(threat=THREAT), APGD(threat=Linf(0.2)), Transfer(attack=apgd, surrogate="gone")):
        result = replace(record.attacks["suite"], settings=to_json(settings), members=None)
        (part,) = doubling(replace(record, attacks={"lame": record.attacks["lame"], "other": result}))
        assert "lame, the strongest of the record that there is time to double" in part.meaning
        alone = doubling(replace(record, attacks={"other": result}))
        assert ["no time here to double" in part.meaning for part in alone] == [True] * isinstance(settings, Square)


def _of(model: Planted) -> TensorExamples:
    sample = planted_sample(model, 60)
    return TensorExamples(sample.x, sample.y, torch.arange(60))


def test_what_a_record_missed(net):
    weak = evaluate(net, DATA, {"pgd-1": PGD(threat=THREAT, steps=1, step_size=0.01)}, threat=THREAT, engine=ENGINE)
    finding = found(net, "C5", record=weak, steps=8)
    assert finding.status == "fail" and "fall to a cheap one" in finding.meaning
    assert found(net, "C5", record=judged(net), steps=8).status == "pass"
    elsewhere = replace(weak, ids=weak.ids + 1000)
    assert found(net, "C5", record=elsewhere, steps=8).status == "pass", "other images are not compared"


def test_attacks_of_the_record_are_tried_on_the_binarised_model(net):
    weak = evaluate(net, DATA, {"lame": PGD(threat=THREAT, steps=2, step_size=0.01)}, threat=THREAT, engine=ENGINE)
    finding = found(net, "C8", record=weak)
    assert finding.status == "fail" and "lame" in finding.meaning
    assert finding.figures["random points that succeed, %"] < 5


def settings_alone(record: Record, attacks: Mapping[str, Attack | Suite]) -> Record:
    """A record that these attacks are part of, by their settings alone."""
    (result, *_) = record.attacks.values()
    return replace(record, attacks={name: replace(result, settings=to_json(of)) for name, of in attacks.items()})


def test_who_is_tried_on_the_binarised_model(net):
    """Whoever can be asked, and for each other the reason."""
    lame, one = PGD(threat=THREAT, steps=2, step_size=0.01), PGD(threat=THREAT, steps=1, step_size=1.0)
    finds: dict[str, Attack] = {
        "diversified": Diversified(threat=THREAT, steps=10, restarts=4),
        "rays": RayS(threat=THREAT),
        "eot": EOT(attack=PGD(threat=THREAT, steps=20), samples=2),
        "paper": PaperAdaptive(threat=THREAT),
    }
    others: dict[str, Attack | Suite] = {
        "fgsm": one,
        "eot-fgsm": EOT(attack=one),
        "sloth": deep_sloth(THREAT),
        "wide": PGD(threat=Linf(0.2)),
        "joint": joint(THREAT, "clean"),
        "taught": PaperAdaptive(threat=THREAT, teacher="gone"),
        "other": Transfer(attack=APGD(threat=THREAT), surrogate="gone"),
    }
    record = settings_alone(judged(net), {**finds, "eot-lame": EOT(attack=lame, samples=2), **others})
    finding = found(net, "C8", record=record, limit=10)
    reached = {name.removesuffix(" succeeds, %"): of for name, of in finding.figures.items() if "succeeds" in name}
    assert reached.keys() == {*finds, "eot-lame"}
    assert reached.pop("eot-lame") < 50 and min(reached.values()) >= 95, reached
    reasons = (
        "fgsm, eot-fgsm (single step), sloth (aims at no class), wide (another ball), joint (steers a decision, of which there "
        "is none), taught, other (asks a second network)"
    )
    assert finding.status == "warn" and reasons in finding.meaning, finding


def test_who_steers_is_tried_where_there_is_a_decision():
    model = Planted("honest")
    sample = planted_sample(model, 60)
    x = (255 * sample.x).round().to(torch.uint8)
    images = Dataset("planted", "test", x, sample.y, torch.arange(60), tuple("abc"))
    record = evaluate(model, images, {"fgsm": fgsm(BALL)}, threat=BALL, engine=ENGINE, cleared=Cleared(model))
    finds = {"joint": joint(BALL, "clean"), "router": router_only(BALL, "clean"), "warm": warm(BALL, "adversarial")}
    lame = replace(joint(BALL, "clean"), reach=0.01, steps=1, then=1, then_size=0.01)
    record = settings_alone(record, {**finds, "lame": lame, **evasions(BALL, 0.0)})
    finding = found(model, "C8", images, BALL, record=record)
    reached = {name.removesuffix(" succeeds, %"): of for name, of in finding.figures.items() if "succeeds" in name}
    assert reached.keys() == {*finds, "lame"} and "evade-stay (must not be caught)" in finding.meaning
    assert reached.pop("lame") < 50 and min(reached.values()) >= 95, reached


class TwoHeads(Planted):
    """Two last layers: one is the network's own, the form "clean" has the other, and `decide` a mixture of both."""

    def __init__(self) -> None:
        super().__init__("honest")
        self.one, self.two = nn.Linear(36, 3), nn.Linear(36, 3)
        self.mixes = True

    def forward(self, x):
        return self.one(x.flatten(1))

    def decide(self, x, seen, form, forced):
        log_odds, logits = self.router(seen.flatten(1)), self(x)
        if self.mixes:
            logits = torch.where(forced[:, None], self.two(x.flatten(1)), logits)
        return Decision(logits, log_odds)


@pytest.mark.parametrize(("mixes", "features"), [(True, 3), (False, 36)])
def test_a_readout_decides_as_its_model_does(mixes, features):
    """On what goes into the last layer, where every form and `decide` have it; otherwise on the logits."""
    model = TwoHeads()
    model.mixes = mixes
    x = planted_sample(Planted("honest"), 6).x
    found = Features(model)
    found.settle(x)
    nobody = torch.zeros(6, dtype=torch.bool)
    assert found(x).shape == (6, features)
    readout = DecidingReadout(found, torch.randn(6, features), torch.zeros(6), torch.ones(6))
    decision = readout.decide(x, x, "", nobody)
    assert torch.equal(decision.logits, readout(x)) and torch.equal(decision.log_odds, model.router(x.flatten(1)))
    forced = readout.decide(x, x, "clean", ~nobody).logits
    assert torch.equal(forced, decision.logits) is not mixes and readout.forms == model.forms


@pytest.mark.slow
def test_members_of_suites_are_tried_on_the_binarised_model_and_who_aims_elsewhere_is_not(net):
    lame = PGD(threat=THREAT, steps=2, step_size=0.01)
    attacks = {
        "suite": Suite(
            members=(("lame", lame), ("apgd-t", APGD(threat=THREAT, loss=TargetedDLR(), targets=2, steps=20)))
        ),
        "fab": FAB(threat=THREAT, steps=20, targets=2),
        "square": Square(threat=THREAT, steps=300),
        "sloth": deep_sloth(THREAT),
    }
    finding = found(net, "C8", record=evaluate(net, DATA, attacks, threat=THREAT, engine=ENGINE, limit=10))
    reached = {name.removesuffix(" succeeds, %"): of for name, of in finding.figures.items() if "succeeds" in name}
    assert reached.keys() == {"suite: lame", "suite: apgd-t", "suite", "fab", "square"}
    assert reached.pop("suite: lame") < 50 and min(reached.values()) >= 95, reached
    assert finding.status == "pass", "a suite finds what one of its members does"
    assert "by themselves these find less than they should: suite: lame" in finding.meaning


def test_a_suite_is_judged_by_what_its_members_find_together(net):
    """A lame attack is no matter beside one that works, in one suite; by itself it is, and so are two lame ones together."""
    lame, lamer = (PGD(threat=THREAT, steps=2, step_size=0.01 / k) for k in (1, 2))
    works = APGD(threat=THREAT, loss=Margin(), steps=20)
    record = evaluate(net, DATA, {"fgsm": PGD(threat=THREAT, steps=1)}, threat=THREAT, engine=ENGINE, limit=10)
    for members, alone, status in [
        ({"lame": lame, "works": works}, {}, "pass"),
        ({"lame": lame, "lamer": lamer}, {}, "fail"),
        ({"lame": lame, "works": works}, {"lame": lame}, "warn"),  # equal ones are tried once, and count for both
    ]:
        attacks = {"suite": Suite(members=tuple(members.items())), **alone}
        finding = found(net, "C8", record=settings_alone(record, attacks), limit=10)
        names = {name.removesuffix(" succeeds, %") for name in finding.figures if "succeeds" in name}
        assert names - {"random points that succeed, %"} == {*(f"suite: {name}" for name in members), "suite", *alone}
        assert finding.status == status and "suite: lame" in finding.meaning
        assert ("not found (lame " in finding.meaning) == bool(alone)


def test_random_models_are_believed_under_expectation(net):
    model = Around(net, after=misled.random)
    eot = EOT(attack=PGD(threat=THREAT, steps=1), samples=2)
    record = evaluate(model, DATA, {"eot": eot}, threat=THREAT, engine=ENGINE, limit=10)
    assert found(model, "C1", record=record).status == "warn"


def test_saturated_logits_are_no_harm_to_attacks_on_the_margin(net):
    from awnet.attacks import cw_inf

    model = Around(net, after=misled.saturated)
    record = evaluate(model, DATA, {"cw-inf": cw_inf(THREAT)}, threat=THREAT, engine=ENGINE, limit=10)
    assert found(model, "C2", record=record).status == "warn"


HONEST: dict[str, tuple[Any, str, str]] = {
    "chosen on test images": (
        lambda r: replace(r, model={**r.model, "selection": "paper"}),
        "fail",
        "chosen on test images",
    ),
    "training images": (lambda r: replace(r, data={**r.data, "split": "train"}), "fail", "trained on"),
    "broken off": (lambda r: replace(r, planned=(*r.attacks, "aa")), "fail", "1 of its 3 attacks are missing"),
    "no attack": (lambda r: replace(r, attacks={}), "fail", "No attack was run"),
    "a sample": (lambda r: replace(r, data={**r.data, "limit": 60}), "warn", "sample of 60 images"),
    "bfloat16": (lambda r: replace(r, run={"seed": 0, "engine": {"precision": "bfloat16"}}), "warn", "bfloat16"),
    "in no commit": (lambda r: replace(r, provenance={**r.provenance, "commit": "01+"}), "warn", "in no commit"),
    "no seed": (lambda r: replace(r, run={}), "warn", "does not say the seed"),
}


@pytest.mark.parametrize("name", HONEST)
def test_honesty(name, net):
    change, status, said = HONEST[name]
    finding = found(net, "C10", record=change(judged(net)))
    assert finding.status == status and said in finding.meaning
    assert found(net, "C10").status == "skipped"


def test_an_attack_from_three_seeds(net):
    """Two images that withstood a lame attack in the record fall to it from another seed, as they do by hand."""
    lame = PGD(threat=THREAT, steps=2, step_size=0.1)
    record = replace(judged(net), attacks=evaluate(net, DATA, {"lame": lame}, threat=THREAT, engine=ENGINE).attacks)
    finding = found(net, "C10", record=record)
    x, y = DATA.batch(torch.arange(60))
    each = [net(lame(net, x, y, ids=DATA.ids, seed=s)).argmax(1) == y for s in (0, fold(0, 1), fold(0, 2))]
    worst, shares = worst_case(each), [100 * hits.double().mean().item() for hits in each]
    assert int((each[0] & ~worst).sum()) == 2 and "; 2 of 60 images withstood the record by its seed" in finding.meaning
    assert finding.figures["lame from three seeds, lowest, %"] == pytest.approx(min(shares))
    assert finding.figures["highest, %"] == pytest.approx(max(shares))
    assert finding.figures["what withstands all three, %"] == pytest.approx(100 * worst.double().mean().item())
    assert "converged" in finding.meaning and "restarts" in finding.advice
    less = replace(record, attacks={"lame": replace(record.attacks["lame"], correct=worst)})
    assert "Three seeds" not in found(net, "C10", record=less).meaning, "nothing of what is claimed falls"


def test_who_is_run_from_three_seeds(net):
    """An attack of the record that is no longer than three of the checks' own, or that."""
    long, short = APGD(threat=THREAT, steps=46), APGD(threat=THREAT, steps=40)
    for attacks, who in (({"a": short, "b": long}, "a"), ({"b": long}, "the checks' own attack")):
        record = replace(judged(net), attacks=evaluate(net, DATA, attacks, threat=THREAT, engine=ENGINE).attacks)
        assert f"{who} from three seeds, lowest, %" in found(net, "C10", record=record).figures


@pytest.mark.parametrize(
    ("broken", "fell", "status", "said"),
    [
        ((0, 0, 0), 0, "pass", "leave 100.0 to 100.0 %, and 100.0 % withstand all"),
        ((0, 5, 5), 1, "pass", "leave 95.0 to 100.0 %, and 95.0 % withstand all"),
        ((0, 6, 5), 0, "warn", "one seed says too little"),
        ((1, 1, 1), 2, "warn", "2 of 100 images withstood the record by its seed alone"),
    ],
)
def test_seeds_compared(broken, fell, status, said):
    """Of 100 images: what chance explains, and one image of the record, is not held against it."""
    part = compared("it", [torch.arange(100) >= n for n in broken], torch.arange(100) < fell)
    assert part.status == status and said in part.meaning and bool(part.advice) is (status == "warn"), part


@pytest.mark.parametrize(
    ("count", "n", "more"), [(0, 1, False), (1, 20, True), (1, 26, False), (2, 100, True), (2, 200, False)]
)
def test_what_more_effort_surely_moves(count, n, more):
    """More than 0.2 points: P(at least `count` of n), each with a chance of 0.002, under 5 %."""
    assert surely_more(count, n) is more


def test_all_that_was_saved_is_measured_again(net, tmp_path):
    """Also what no sample of the record shows, by the ids of the images, which here are in another order."""
    record = evaluate(net, DATA, STRONG, threat=THREAT, engine=ENGINE, samples=1, out=tmp_path)
    saved = read_adversarials(tmp_path, record.adversarials)
    more = {"record": record, "limit": 4, "data": DATA.subset(torch.arange(60).flip(0))}
    assert "4 of one step here, 1 of the record" in found(net, "C3", **more).meaning
    finding = found(net, "C3", adversarials=saved, **more)
    assert finding.status == "pass" and f"{len(saved)} of the record" in finding.meaning and len(saved) >= 20, finding
    x_adv = saved.x_adv.clone()
    x_adv[7, 0, 0, 0] += 0.3 if x_adv[7, 0, 0, 0] < 0.5 else -0.3
    finding = found(net, "C3", adversarials=replace(saved, x_adv=x_adv), **more)
    assert finding.status == "fail" and "leave the threat model by" in finding.meaning, finding


@pytest.mark.parametrize("eps", [0.031, 8 / 255])
def test_eps_as_papers_write_it(eps, net):
    said = found(net, "C3", threat=Linf(eps))
    assert (said.status, "7.905/255" in said.meaning) == (("warn", True) if eps == 0.031 else ("pass", False))


@pytest.mark.parametrize("threat", [L2(0.5), L1(2.0)], ids=str)
def test_other_norms(threat, net):
    findings = rigour(net, DATA, threat, engine=ENGINE, steps=6, limit=12)
    assert not [f for f in findings if f.status == "fail" and f.code not in ("C4", "C9")], findings


@pytest.mark.parametrize(
    ("scale", "status", "said"),
    [
        (misled.common, "pass", "it withstands no less: 67 %"),
        (misled.rugged, "fail", "held up by the scales"),
        (misled.telling, "warn", "are of use, or mislead"),
    ],
)
def test_scales_held_still(scale, status, said, net):
    """Scales that decide nothing, that drown the gradient of what decides, and that know what the filters do not."""
    finding = found(misled.Scaled(net, scale), "C7")
    assert finding.status == status and said in finding.meaning, finding
    assert bool(finding.advice) is (status != "pass") and "steered, attacked, %" not in finding.figures
    assert (finding.figures["images of frozen forms that break the whole, %"] > 0) is (scale is misled.rugged)


def test_where_scales_are_held(net):
    """At means over the images as they are and as they are attacked, at the former dealt out anew, and at one."""
    model = misled.Scaled(net, lambda x: misled.telling(x) * misled.fixed(x))
    x, y = DATA.batch(torch.arange(60))
    attacked = APGD(threat=THREAT, steps=15)(model, x, y, ids=DATA.ids)
    clean, moved = (model.signals(images)["scores"].mean(0) for images in (x, attacked))
    scales = {
        "omega at its clean mean": clean,
        "omega at its attacked mean": moved,
        "omega dealt out anew": clean[permutation(0, 3)],
        "unmodulated": torch.ones(3),
    }
    figures, seen = found(model, "C7").figures, set[float]()
    for name, omega in scales.items():
        right = (model.hold(x, {"scores": omega}).argmax(1) == y).double().mean().item()
        assert figures[f"{name}, clean, %"] == pytest.approx(100 * right), name
        seen.add(figures[f"{name}, clean, %"])
    assert len(seen) == 4, "each form is another"


def test_it_works_on_an_awnet():
    x, _ = DATA.batch(torch.arange(20))
    model = unsettle(create(DYNAMIC, classes=CLASSES, channels=1), x)
    findings = rigour(model, DATA, Linf(0.05), engine=ENGINE, steps=2, limit=8, checks=["C2", "C7", "C9"])
    by = {finding.code: finding for finding in findings}
    assert by["C2"].figures["images with a wrong gradient, %"] == 0
    assert "signals with a saturated tanh, %" in by["C2"].figures
    forms = ("clean", "unmodulated", "omega at its clean mean", "omega dealt out anew", "steered")
    assert {f"{form}, attacked, %" for form in forms} <= by["C7"].figures.keys()


def test_a_model_whose_only_form_is_its_own_decision_without_a_gradient():
    """No branch of it to compare the whole with; images made for the form still are tried on the whole."""

    class Cut(Planted):
        forms = ("detached",)

        def decide(self, x, seen, form, forced):
            return super().decide(x, seen.detach() if form else seen, "", forced)

    finding = found(Cut("honest"), "C7", _of(Cut("honest")), BALL)
    assert finding.status == "pass" and "detached, attacked, %" in finding.figures


@pytest.mark.parametrize("omega", [True, False])
def test_an_awnet_that_tells_no_types_decides_nothing(omega):
    """The ablations of Table 3: no fault of theirs that their log-odds have no slope, nor that nothing is to be frozen."""
    x, _ = DATA.batch(torch.arange(20))
    config = replace(DYNAMIC, router=replace(DYNAMIC.router, type_head=False), knob=Knob(p_max=0.0, omega=omega))
    model = unsettle(create(config, classes=CLASSES, channels=1), x)
    findings = rigour(model, DATA, Linf(0.05), engine=ENGINE, steps=2, limit=8, checks=["C2", "C7"])
    by = {finding.code: finding for finding in findings}
    assert "log-odds" not in by["C2"].meaning and (by["C7"].status == "skipped") is not omega, by


def test_the_same_again(net):
    few = {"engine": ENGINE, "steps": 2, "limit": 10, "checks": ["C4", "C5", "C8"]}
    assert rigour(net, DATA, THREAT, **few) == rigour(net, DATA, THREAT, **few)


@pytest.mark.parametrize(
    ("more", "said"),
    [({"limit": 0}, "at least 1 image"), ({"steps": 0}, "1 step"), ({"checks": ["C99"]}, "no check is named")],
)
def test_mistakes(more, said, net):
    with pytest.raises(Mistake, match=said):
        rigour(net, DATA, THREAT, **more)


def test_a_record_keeps_its_findings(net, tmp_path):
    record = replace(judged(net), rigour=rigour(net, DATA, THREAT, engine=ENGINE, checks=["C1", "C7"]))
    record.save(tmp_path)
    assert Record.load(tmp_path).rigour == record.rigour


@pytest.mark.parametrize(
    "change", [{"status": "good"}, {"figures": {"a": "b"}}, {"figures": {"a": float("nan")}}, {"code": 3}]
)
def test_findings_are_checked_when_a_record_is_read(change, net, tmp_path):
    import json

    replace(judged(net), rigour=(Finding(code="C1", name="n", status="pass", figures={"a": 1.0}, meaning="m"),)).save(
        tmp_path
    )
    about = json.loads((tmp_path / "record.json").read_text())
    del about["rigour"]
    (tmp_path / "record.json").write_text(json.dumps(about))
    assert Record.load(tmp_path).rigour == (), "records from before there were checks"
    about["rigour"] = [
        {"code": "C1", "name": "n", "status": "pass", "figures": {}, "meaning": "m", "advice": "", **change}
    ]
    (tmp_path / "record.json").write_text(json.dumps(about))
    with pytest.raises(Mistake, match="damaged"):
        Record.load(tmp_path)

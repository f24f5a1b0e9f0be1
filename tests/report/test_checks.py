from dataclasses import replace

import pytest
import torch

from awnet.report.checks import doubts, knows_the_router
from report.synthetic import record

SOUND = {"n": 2000, "tells": 1.5}


def changed(attack, base=None, **fields):
    """A sound record with another result of one attack."""
    base = base or record(**SOUND)
    result = base.clean if attack == "clean" else base.attacks[attack]
    made = replace(result, **fields)
    return replace(base, clean=made) if attack == "clean" else replace(base, attacks={**base.attacks, attack: made})


def without(*attacks, base=None):
    base = base or record(**SOUND)
    return replace(base, attacks={name: result for name, result in base.attacks.items() if name not in attacks})


def kept(share):
    """The hits and predictions of an attack that leaves this share of the examples."""
    base = record(**SOUND)
    correct = base.clean.correct & (torch.arange(2000) < 2000 * share)
    return {"correct": correct, "prediction": torch.where(correct, base.labels, (base.labels + 1) % 10)}


def test_sound_records_raise_no_doubt():
    static = record("static", n=2000)
    assert doubts([record(**SOUND), static]) == []
    cut = replace(
        record(**SOUND), ids=5 * torch.arange(2000)
    )  # test images cut from a larger set keep their places in it
    assert doubts([cut]) == []
    assert doubts([static]) == []


PLANTED = {
    "few examples": (lambda: [record(n=999)], "Only 999 examples: 95\u00a0% intervals reach up to 3.1 points"),
    "a limit": (
        lambda: [replace(record(**SOUND), data={"split": "test", "limit": 2000})],
        "a sample of 2,000 of the test images",
    ),
    "one step far above many": (lambda: [changed("fgsm", **kept(0.75))], "the gradient may be masked"),
    "more steps, less success": (
        lambda: [changed("pgd-sat", **kept(0.7))],
        "pgd-sat should be at least as strong as fgsm",
    ),
    "no attack on the router": (lambda: [without("router-pgd")], "does not include attacks that know the router"),
    "a feeble attack on the router": (
        lambda: [changed("router-pgd", **kept(0.7))],
        "Every attack that knows the router does worse",
    ),
    "no attack": (lambda: [replace(record(n=2000), attacks={})], "No attack was run"),
    "feeble attacks": (
        lambda: [without("pgd-sat", "pgd-trades", "cw-inf", base=record(n=2000))],
        "Only weak attacks were run (fgsm)",
    ),
    "the test set chose": (lambda: [replace(record(**SOUND), model={"selection": "paper"})], "chosen on test images"),
    "changed code": (lambda: [replace(record(**SOUND), provenance={"commit": "012345+"})], "in no commit (012345+)"),
    "no P": (
        lambda: [changed("fgsm", p_clean=torch.full((2000,), float("nan")))],
        "P(clean) is missing for 2,000 images of fgsm",
    ),
    "no probability": (
        lambda: [changed("clean", p_clean=torch.full((2000,), 1.5))],
        "P(clean) leaves [0, 1] for the clean images",
    ),
    "out of the ball": (
        lambda: [changed("cw-inf", prediction=(torch.arange(2000) + 1) % 10)],
        "images of cw-inf left the threat model",
    ),
    "wrong, but right": (
        lambda: [changed("cw-inf", correct=torch.zeros(2000).bool())],
        "although the prediction is the true class",
    ),
    "too few results": (
        lambda: [replace(record(n=2000), attacks={"pgd-sat": record(n=9).attacks["pgd-sat"]})],
        "not as many as the examples",
    ),
    "twice": (lambda: [replace(record(**SOUND), ids=torch.arange(2000) // 2)], "Some examples come twice"),
    "nothing": (lambda: [record(n=0)], "There is no example"),
    "other images": (
        lambda: [record(n=2000), record("b", n=2001)],
        "(2,000 of cifar10 test: static PGD-AT; 2,001 of cifar10 test: b): rows of different images are not comparable",
    ),
    "an attack with other settings": (
        lambda: [
            record(n=2000),
            changed(
                "cw-inf", base=record("b", n=2000), settings={"kind": "PGD", "steps": 99, "loss": {"kind": "Margin"}}
            ),
        ],
        "cw-inf was run with different settings in different rows",
    ),
    "an evaluation under way": (
        lambda: [replace(record(**SOUND), planned=("fgsm", "pgd-sat", "square", "fab"))],
        "square, fab of its 4 attacks are missing",
    ),
    "one label, one seed": (lambda: [record(n=2000), record(n=2000, luck=1)], "2 records are called “static PGD-AT”"),
    "other eps": (lambda: [record(n=2000), record("b", n=2000, eps=4 / 255)], "(Linf 8/255, Linf 4/255)"),
    "other attacks": (
        lambda: [record(n=2000), without("cw-inf", base=record("b", n=2000))],
        "Not every record met every attack (b lacks cw-inf): a worst case over fewer",
    ),
    "other seeds": (lambda: [record(n=2000), record("b", n=2000, seed=1)], "different seeds"),
    "a knob": (lambda: [record(f"k {k}", n=2000, front="k") for k in range(3)], "k is shown at 3 settings of its knob"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name):
    plant, said = PLANTED[name]
    records = plant()
    assert [said in doubt.text for doubt in doubts(records)].count(True) == 1
    if name not in ("one step far above many", "more steps, less success", "wrong, but right", "too few results"):
        assert len(doubts(records)) == 1  # and nothing else, where one fault does not cause another


def test_more_steps_of_the_same_attack_may_not_do_worse():
    base = record(n=2000)
    settings = {"kind": "New", "steps": 10}
    made = {steps: replace(base.attacks["pgd-sat"], settings={**settings, "steps": steps}) for steps in (10, 100)}
    assert doubts([replace(base, attacks={"new-10": made[10], "new-100": made[100]})]) == []
    worse = replace(made[100], **kept(0.7))
    (doubt,) = doubts([replace(base, attacks={"new-10": made[10], "new-100": worse})])
    assert "new-100 should be at least as strong as new-10" in doubt.text


def test_chance_alone_is_no_disorder():
    base = record(**SOUND)
    lucky = base.attacks["fgsm"].correct.clone()
    hit = base.clean.correct & ~lucky
    lucky[hit.nonzero()[:2, 0]] = True  # two images of 2000
    slightly = changed("pgd-sat", correct=lucky, prediction=torch.where(lucky, base.labels, (base.labels + 1) % 10))
    assert not any("at least as strong" in doubt.text for doubt in doubts([slightly]))


def test_seeds_of_labels_that_share_them_are_no_doubt():
    rows = [record(label, n=2000, seed=s, luck=s) for label in ("a", "b") for s in (0, 1)]
    assert doubts(rows) == []


def test_equal_doubts_are_said_once_and_grave_ones_first():
    many = [record("a"), record("b"), record("c", tells=1.5, aware=False)]
    grave, mild = doubts(many)
    assert grave.grave and grave.of == ("c",) and not mild.grave and mild.of == ()


@pytest.mark.parametrize(
    ("name", "knows"),
    [
        ("pgd-sat", False),
        ("apgd-t", False),
        ("auto-attack", False),
        ("router-pgd", True),
        ("pgd-router", True),
        ("adaptive@1", True),
        ("standard@1", False),
        ("rays", False),
        ("cw-inf from surrogate", False),
        ("pgd-sat from adaptive-run", False),
        ("x", False),  # nobody knows
    ],
)
def test_what_knows_the_router(name, knows):
    assert knows_the_router(name) == knows
    assert knows_the_router(name, {"kind": "Suite", "members": [["a", {"kind": "Steer", "steps": 9}]]})
    assert knows_the_router(name, {"kind": "PGD", "steps": 9}) == knows


def test_transferred_images_are_not_expected_to_find_as_much_as_one_step():
    base = record(n=2000)
    named = {"pgd-sat from other": base.attacks["fgsm"], "fgsm": base.attacks["pgd-sat"]}
    assert not any("at least as strong" in doubt.text for doubt in doubts([replace(base, attacks=named)]))

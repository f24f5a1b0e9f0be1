from dataclasses import replace

import pytest
import torch

from awnet.evaluation.metrics import paired_difference
from awnet.noise import Noise
from awnet.report.headline import differences, headline
from awnet.report.tables import table
from report.synthetic import record


def say(records, **weights):
    found = headline(records, table(records, **weights))
    return " ".join([found.first, *found.then]).replace("\u00a0", " ")


def percent(share):
    return f"{100 * share:.1f}"


def test_one_record_speaks_for_itself():
    r = record("ResNet-18")
    assert say([r]) == (
        f"ResNet-18 is right on {percent(r.clean_accuracy.value)} % of 300 images as they are, and on "
        f"{percent(r.worst_accuracy.value)} % of them after each of 4 attacks (Linf 8/255)."
    )


def test_the_best_worst_case_leads_and_the_best_trade_off_is_named():
    tough, kind = record("tough", clean=0.8, robust=0.6), record("kind", clean=0.99, robust=0.4)
    said = say([kind, tough])
    assert said.startswith(f"tough holds best: {percent(tough.worst_accuracy.value)} % of 300 images")
    assert "The best trade-off is that of kind: A_w" in said
    assert "Its trade-off is the best, too" in say([kind, tough], gamma_nat=0, gamma_adv=1)


def test_a_lead_within_chance_is_called_so():
    a = record("a", robust=0.5)
    assert "not distinguishable on these images" in say([a, record("b", robust=0.48, luck=5)])
    assert "more than chance explains" in say([a, record("b", robust=0.2, luck=5)])
    assert "not measured alike" in say([a, replace(record("b", robust=0.2), ids=torch.arange(300) + 1)])


def test_a_front_is_not_its_own_rival():
    front = [record(f"AW-Net {k}", robust=0.4 + 0.02 * k, luck=k, front="AW-Net") for k in range(3)]
    assert "best of the others" not in say(front)
    assert "above that of static" in say([*front, record("static", robust=0.1)])


def test_several_seeds_count_by_their_mean():
    seeds = [record("AW-Net", robust=0.3 + 0.2 * s, seed=s) for s in (0, 1)]  # the luckier one would win
    assert say([*seeds, record("static", robust=0.45)]).startswith("static holds best")


def test_another_threat_model_does_not_compete():
    assert say([record("a"), record("b", robust=0.8, eps=1 / 255)]).startswith("a is right on")


def test_a_record_without_images_or_attacks_does_not_lead():
    assert say([record("none", n=0), record("a")]).startswith("a holds best")
    assert "after no attack at all" in say([replace(record("a"), attacks={})])


def test_differences_are_from_the_first_record_on_the_same_images():
    a, b = record("a", tells=1.0), record("b", robust=0.3, luck=3)
    found = differences([a, b], 1)
    assert found is not None and set(found) == {"clean", "worst case", "fgsm", "pgd-sat", "pgd-trades", "cw-inf"}
    assert found["cw-inf"].value == pytest.approx(b.robust_accuracy("cw-inf").value - a.robust_accuracy("cw-inf").value)
    assert differences([a, replace(b, ids=b.ids + 1)], 1) is None
    missing = replace(b, attacks={"fgsm": b.attacks["fgsm"]})
    assert set(differences([a, missing], 1) or ()) == {"clean", "fgsm"}  # another worst case


def test_a_paired_difference_equals_its_definition():
    a, b = Noise(1, torch.arange(200)).uniform(0) < 0.6, Noise(2, torch.arange(200)).uniform(0) < 0.5
    pairs = [(bool(x), bool(y)) for x, y in zip(a, b, strict=True)]
    p, q = ((pairs.count(pair) + 1) / 202 for pair in [(True, False), (False, True)])
    half = 1.96 * ((p + q - (p - q) ** 2) / 202) ** 0.5
    found = paired_difference(a, b)
    assert found == pytest.approx(((a.sum() - b.sum()).item() / 200, p - q - half, p - q + half))
    assert paired_difference(b, a) == pytest.approx((-found.value, -found.high, -found.low))


def test_a_paired_difference_covers_the_truth():
    inside = 0
    for trial in range(1000):
        u = Noise(trial, torch.arange(60)).uniform(0)
        a, b = u < 0.55, (u < 0.4) | (u > 0.95)  # a is right where b is not on 0.15, the other way round on 0.05
        found = paired_difference(a, b)
        inside += found.low <= 0.1 <= found.high
    assert 0.935 < inside / 1000 < 0.985


def test_equal_and_opposite_hits():
    yes = torch.ones(50, dtype=torch.bool)
    same = paired_difference(yes, yes)
    assert same.value == 0 and same.low == -same.high < 0 and not same.distinguishable
    assert paired_difference(yes, ~yes).value == 1 == paired_difference(yes, ~yes).high
    assert paired_difference(yes, ~yes).distinguishable
    assert not paired_difference(yes[:0], yes[:0]).distinguishable

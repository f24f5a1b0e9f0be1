from dataclasses import replace

import pytest
import torch

from awnet.evaluation.metrics import paired_difference
from awnet.noise import Noise
from awnet.report.headline import headline
from awnet.report.tables import table
from report.synthetic import record


def say(records, **weights):
    found = headline(records, table(records, **weights))
    return " ".join([found.first, *found.then]).replace("\u00a0", " ").replace("\u2212", "-")


def percent(share):
    return f"{100 * share:.1f}"


def share(found):
    return f"{percent(found.value)} % [{percent(found.low)}, {percent(found.high)}]"


def test_one_record_speaks_for_itself():
    r = record("ResNet-18")
    assert say([r]) == (
        f"ResNet-18 is right on {percent(r.clean_accuracy.value)} % of 300 images as they are, and on "
        f"{share(r.worst_accuracy)} of them after each of 4 attacks (Linf 8/255)."
    )


def test_the_highest_worst_case_leads_and_the_highest_trade_off_is_named():
    tough, kind = record("tough", clean=0.8, robust=0.6), record("kind", clean=0.99, robust=0.2, luck=1)
    said = say([kind, tough], gamma_nat=0.9, gamma_adv=0.1)
    assert said.startswith(f"tough holds best: {share(tough.worst_accuracy)} of 300 images are right after each of 4")
    assert f"{percent(tough.clean_accuracy.value)} % as they are." in said
    assert "The highest trade-off is that of kind (A_w = " in said and said.endswith("more than chance explains.")
    assert "Its trade-off is the highest, too" in say([kind, tough], gamma_nat=0, gamma_adv=1)


def test_a_lead_says_its_interval_and_whether_chance_explains_it():
    a, b = record("a", robust=0.5), record("b", robust=0.2, luck=5)
    gap = paired_difference(a.worst, b.worst)
    interval = f"(95 % interval of the difference {100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
    said = say([a, b])
    assert f"The next, b, is {percent(gap.value)} points lower {interval}: more than chance explains." in said


def test_a_lead_within_chance_is_no_lead():
    a, near = record("a", robust=0.5), record("near", robust=0.4, luck=5)
    said = say([a, near, record("far", robust=0.2, luck=6)])
    assert said.startswith("a has the highest worst case: ") and "holds best" not in said
    assert "The next, near, is" in said and "not distinguishable on these images." in said
    assert said.endswith("not distinguishable from that of a.")  # the trade-off, which is that of near
    several = say([a, near, record("nearer", robust=0.4, luck=7)])
    assert "and 1 more are not distinguishable from it on these images: the nearest is" in several


def test_where_nothing_holds_nothing_leads():
    rows = [record(label, clean=share, robust=-1, luck=5) for label, share in (("a", 0.7), ("b", 0.9))]
    said = say(rows)
    assert said.startswith("Nothing holds: in no row is one of 300 images right after each of 4 attacks (Linf 8/255).")
    assert f"As they are, b is right on {percent(rows[1].clean_accuracy.value)} %." in said


def test_several_seeds_count_by_their_mean():
    seeds = [record("AW-Net", robust=0.3 + 0.2 * s, seed=s) for s in (0, 1)]  # the luckier one would win
    said = say([*seeds, record("static", robust=0.45)])
    assert said.startswith("static has the highest worst case")
    assert "AW-Net (mean of 2)" in said and ", over images and seeds)" in said
    best = say([*(record("AW-Net", robust=0.5, seed=s, luck=s) for s in (0, 1)), record("static", robust=0.1)])
    assert best.startswith("AW-Net (mean of 2) holds best: ") and " ± " in best.split("of 300 images")[0]


def test_rows_that_were_not_measured_alike_do_not_compete():
    weak, strong = record("weak", robust=0.3), record("strong", robust=0.8, luck=3)
    others = {
        "threat": record("strong", robust=0.8, eps=1 / 255),
        "images": replace(strong, ids=strong.ids + 1),
        "attacks": replace(strong, attacks={"fgsm": strong.attacks["fgsm"]}),
        "settings": replace(
            strong, attacks={**strong.attacks, "fgsm": replace(strong.attacks["fgsm"], settings={"kind": "FGSM"})}
        ),
    }
    for other in others.values():
        said = say([weak, other])
        assert said.startswith("weak is right on") and "1 row was measured on other images" in said
        assert say([weak, other, replace(other, label="too")]).startswith("strong has the highest")  # there are more
    assert say([weak, strong]).startswith("strong holds best")


def test_a_record_without_images_or_attacks_does_not_lead():
    assert say([record("none", n=0), record("a")]).startswith("a is right on")
    assert "after no attack at all" in say([replace(record("a"), attacks={})])
    say([record("none", n=0)])


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

"""How far an evaluation is: bounds that hold at every turn, and the time that a clock of the test's own makes exact."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from torch import Tensor

from attacks.nets import Blurred
from awnet.attacks import APGD, PGD, Engine, Suite, TensorExamples
from awnet.evaluation.evaluate import evaluate
from awnet.evaluation.progress import Pace, Progress
from awnet.threat_model import Linf
from evaluation import misled
from training.tiny import dataset

DATA = dataset(60, split="test", seed=4)
THREAT = Linf(0.1)
FIRM = PGD(threat=Linf(0.0), steps=4)  # finds nothing, in exactly four queries an image
SUITE = Suite(
    members=(("pgd", PGD(threat=THREAT, steps=5, stop_on_success=True)), ("apgd", APGD(threat=THREAT, steps=9)))
)


def test_at_each_turn_no_more_are_robust_than_at_the_last():
    told: list[Progress] = []
    attacks = {"pgd": PGD(threat=THREAT, steps=3), "suite": SUITE}
    record = evaluate(misled.sound(), DATA, attacks, threat=THREAT, engine=Engine(batch_size=16), progress=told.append)
    assert list(dict.fromkeys(now.attack for now in told)) == ["pgd", "suite: pgd", "suite: apgd"]
    shares = [now.robust for now in told]
    assert shares == sorted(shares, reverse=True) and shares[0] <= float(record.clean.correct.double().mean())
    assert shares[-1] == pytest.approx(record.worst_accuracy.value), "whoever falls is counted before the verdict"
    assert len(set(shares)) > 4 and {now.of for now in told} == {60} and told[-1].finished == 60
    assert [now.seconds for now in told][-1] == 0


def test_the_time_left_is_what_is_left_at_the_pace_so_far():
    """Each turn asks about all 16 images and takes a second; FIRM has four queries, the second attack seven."""
    ticks = count()
    second = PGD(threat=Linf(0.0), steps=7)
    pace, told = Pace({"a": FIRM, "b": second}, clock=lambda: float(next(ticks))), []
    x, y = DATA.batch(torch.arange(16))
    given, net = TensorExamples(x, y, torch.arange(16)), misled.sound()
    stands = torch.ones(16, dtype=torch.bool)
    for name, attack in (("a", FIRM), ("b", second)):
        Engine(batch_size=16).run(
            attack, net, given, watch=lambda sweep, name=name: told.append(pace.now(name, sweep, stands))
        )
    assert [now.seconds for now in told[:4]] == [None, 9.0, 8.0, 7.0]
    assert [now.seconds for now in told[4:]] == [None, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("seconds", "left"),
    [
        (None, ""),
        (0.2, "1 s"),
        (59.0, "59 s"),
        (61.0, "1 min"),
        (3540.0, "59 min"),
        (3600.0, "1 h 0 min"),
        (9000.0, "2 h 30 min"),
    ],
)
def test_in_words(seconds: float | None, left: str):
    said = str(Progress("aa: square", 1640, 10000, 0.4321, seconds))
    assert said == "aa: square: 1,640 of 10,000 images · at most 43.2 % robust" + (
        f" · at most {left} left" if left else ""
    )


def test_what_falls_is_told_from_what_ends():
    """Successes are known as they leave; who withstood to the end still stands, or falls with the verdict on the last step."""
    for attack, known in [(APGD(threat=THREAT, steps=5), True), (PGD(threat=THREAT, steps=5), False)]:
        fallen: list[Tensor] = []
        outcome = Engine(batch_size=16).run(
            attack, misled.sound(), DATA, watch=lambda sweep, told=fallen: told.append(sweep.fallen.clone())
        )
        assert torch.equal(fallen[-1], ~outcome.correct if known else torch.zeros(60, dtype=torch.bool))
        assert 0 < int(outcome.correct.sum()) < 60


def test_it_tells_what_is_made_again():
    """In float32, on those who stand by a hair after bfloat16: less than there was before."""
    suite = Blurred.suite(0.1)
    pace, given = Pace({"both": suite}, clock=count().__next__), Blurred.images(grey=6, spotted=2)
    stands, told = torch.ones(8, dtype=torch.bool), list[Progress]()
    engine = Engine(batch_size=4, precision="bfloat16")
    engine.run(suite, Blurred(0.1), given, watch=lambda sweep: told.append(pace.now("both", sweep, stands)))
    names = [progress.attack for progress in told]
    assert list(dict.fromkeys(names)) == ["both: apgd", "both: square", "both: apgd, again in float32"]
    first = told[names.index("both: apgd, again in float32")]
    assert (first.finished, first.of, first.robust) == (2, 8, 1.0)
    assert told[-1].robust == 0.25 and told[-1].seconds == 0

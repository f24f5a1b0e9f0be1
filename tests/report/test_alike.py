"""Which records are seeds of one training, and which only share a name."""

from dataclasses import replace

from awnet.report.alike import seed_groups
from report.synthetic import record


def trained(seed, luck=0, knob=None, **settings):
    """A record whose training is known; its attacks' seed is another matter."""
    made = record("AW-Net", luck=luck)
    experiment = {"seed": seed, "training": {"epochs": 30}, "objective": {"clean_teacher": f"runs/{seed}"}, **settings}
    return replace(made, model={**made.model, "experiment": experiment, "knob": knob})


def test_seeds_of_one_training_belong_together():
    other = record("static", seed=0)
    assert seed_groups([trained(0), other, trained(1, luck=1), trained(2, luck=2)]) == [[0, 2, 3]]


def test_namesakes_that_are_not_seeds_of_one_training_are_left_alone():
    for odd in (
        trained(1, training={"epochs": 2}),
        trained(1, knob={"p_max": 0.5}),
        trained(0),  # the same one twice
        replace(trained(1), ids=record().ids + 1),
        replace(trained(1), attacks={"fgsm": record().attacks["fgsm"]}),
        replace(trained(1), threat=record(eps=1 / 255).threat),
    ):
        assert seed_groups([trained(0), odd]) == []

"""Verify: an honest record holds, and whatever is changed in it, however carefully, is noticed and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from awnet.attacks import APGD, EOT, PGD
from awnet.config import to_json
from awnet.errors import Mistake
from awnet.evaluation import Record
from awnet.evaluation.adversarials import FILE, read_adversarials
from awnet.evaluation.draws import DRAWS, Average
from awnet.evaluation.verify import verify
from awnet.models import AWNet, Knob, create
from evaluation.test_evaluate import BOTH, DATA, SUITE, THREAT, judged
from evaluation.test_evaluate import model as model  # the fixture
from models.randomised import unsettle
from training.tiny import CLASSES, DYNAMIC, dataset, own

Tamper = Callable[[Path, Record], None]


def failing(folder: Path, model: nn.Module) -> list[str]:
    return [check.name for check in verify(folder, model, DATA).checks if not check.passed]


def rewritten(folder: Path, **tensors: torch.Tensor) -> None:
    """The file of images with other content, and the record made to name it."""
    with safe_open(folder / FILE, "pt") as file:
        about = file.metadata()
    save_file(load_file(folder / FILE) | tensors, folder / FILE, metadata=about)
    record = Record.load(folder)
    from awnet.evaluation.adversarials import _digest  # what a forger would compute

    replace(record, adversarials=_digest(folder / FILE)).save(folder)


@pytest.mark.parametrize("attacks", [BOTH, {"aa": SUITE, **BOTH}, {}], ids=["two", "suite", "none"])
def test_an_honest_record_holds(attacks: dict[str, PGD], model: nn.Module, tmp_path: Path):
    record = judged(model, attacks, out=tmp_path)
    if not attacks:
        with pytest.raises(Mistake, match="is of no attack, so there is nothing to verify"):
            verify(tmp_path, model, DATA)
        return
    found = verify(tmp_path, model, DATA)
    assert found.holds and found.claimed == found.derived == record.worst_accuracy
    assert all(check.held == check.of for check in found.checks)
    of = {check.name: check.of for check in found.checks}
    broken = int((record.clean.correct & ~record.worst).sum())
    assert of["budget"] == of["verdict"] == of["coverage"] == broken > 0 and of["labels"] == len(DATA)


def test_a_model_is_never_asked_about_one_image(model: nn.Module, tmp_path: Path):
    """Some answer no batch of one; the last images of a record may be one."""
    judged(model, out=tmp_path)
    asked: list[int] = []
    with model.register_forward_pre_hook(lambda _, given: asked.append(len(given[0]))):
        assert verify(tmp_path, model, DATA).holds
    assert min(asked) > 1


def test_a_subset_is_found_again_in_its_split(model: nn.Module, tmp_path: Path):
    judged(model, BOTH, out=tmp_path, limit=9, seed=5)
    assert verify(tmp_path, model, DATA).holds
    assert verify(tmp_path, model, DATA.sample(9, seed=5)).holds
    with pytest.raises(Mistake, match="other images"):
        verify(tmp_path, model, DATA.sample(9, seed=6))


def a_label(folder: Path, record: Record) -> None:
    labels = record.labels.clone()
    labels[0] = (labels[0] + 1) % CLASSES
    replace(record, labels=labels).save(folder)


def outside_the_ball(folder: Path, record: Record) -> None:
    x_adv = load_file(folder / FILE)["x_adv"]
    x, _ = DATA.batch(load_file(folder / FILE)["positions"])
    at = (x[0].flatten() < 0.5).nonzero()[0, 0]
    x_adv[0].view(-1)[at] = x[0].flatten()[at] + THREAT.eps + 1e-4
    rewritten(folder, x_adv=x_adv)


def outside_the_box(folder: Path, record: Record) -> None:
    x_adv = load_file(folder / FILE)["x_adv"]
    x_adv[0, 0, 0, 0] = -1e-3
    rewritten(folder, x_adv=x_adv)


def no_number(folder: Path, record: Record) -> None:
    x_adv = load_file(folder / FILE)["x_adv"]
    x_adv[1, 0, 3, 3] = torch.nan
    rewritten(folder, x_adv=x_adv)


def of_another_image(folder: Path, record: Record) -> None:
    x_adv = load_file(folder / FILE)["x_adv"]
    rewritten(folder, x_adv=x_adv[torch.arange(len(x_adv)).roll(1)].contiguous())


def the_image_itself(folder: Path, record: Record) -> None:
    x_adv, positions = load_file(folder / FILE)["x_adv"], load_file(folder / FILE)["positions"]
    x_adv[0] = DATA.batch(positions[:1])[0][0]
    rewritten(folder, x_adv=x_adv)


def an_image_swapped_in_the_file_alone(folder: Path, record: Record) -> None:
    tensors = load_file(folder / FILE)
    tensors["x_adv"][0] *= 0.999
    save_file(tensors, folder / FILE, metadata={"attacks": json.dumps(list(record.attacks))})


def an_image_left_out(folder: Path, record: Record) -> None:
    rewritten(folder, **{name: t[1:].contiguous() for name, t in load_file(folder / FILE).items()})


def an_image_twice(folder: Path, record: Record) -> None:
    positions, ids = load_file(folder / FILE)["positions"], load_file(folder / FILE)["ids"]
    positions[0], ids[0] = positions[1], ids[1]
    rewritten(folder, positions=positions, ids=ids)


def nobody(folder: Path, record: Record) -> None:
    positions = load_file(folder / FILE)["positions"]
    positions[0] = 10_000
    rewritten(folder, positions=positions)


def the_accuracy_in_the_text(folder: Path, record: Record) -> None:
    about = json.loads((folder / "record.json").read_text())
    about["summary"]["worst case"] += 0.1
    (folder / "record.json").write_text(json.dumps(about))


def more_robust(folder: Path, record: Record) -> None:
    """A broken example said to stand, in every attack: the images show otherwise."""
    place = int(load_file(folder / FILE)["positions"][0])
    attacks = {}
    for name, result in record.attacks.items():
        correct = result.correct.clone()
        correct[place] = True
        attacks[name] = replace(result, correct=correct)
    replace(record, attacks=attacks).save(folder)


def less_robust(folder: Path, record: Record) -> None:
    """An example that stands said to be broken: no image shows it."""
    place = int(record.worst.nonzero()[0, 0])
    correct = record.attacks["pgd"].correct.clone()
    correct[place] = False
    replace(record, attacks={**record.attacks, "pgd": replace(record.attacks["pgd"], correct=correct)}).save(folder)


def another_accuracy(folder: Path, record: Record) -> None:
    correct = record.clean.correct.clone()
    correct[0] = ~correct[0]
    replace(record, clean=replace(record.clean, correct=correct)).save(folder)


def a_smaller_budget(folder: Path, record: Record) -> None:
    replace(record, threat={**record.threat, "eps": 0.1, "text": "Linf 0.1"}).save(folder)


def a_larger_budget(folder: Path, record: Record) -> None:
    replace(record, threat={**record.threat, "eps": 0.2, "text": "Linf 0.2"}).save(folder)


@pytest.mark.parametrize(
    ("tamper", "noticed"),
    [
        (a_label, {"labels"}),
        (outside_the_ball, {"budget"}),
        (outside_the_box, {"range"}),
        (no_number, {"range", "budget"}),
        (of_another_image, {"budget"}),
        (the_image_itself, {"verdict"}),
        (an_image_swapped_in_the_file_alone, {"file"}),
        (an_image_left_out, {"coverage"}),
        (an_image_twice, {"attack", "coverage"}),
        (nobody, {"attack", "coverage"}),
        (the_accuracy_in_the_text, {"summary"}),
        (more_robust, {"attack"}),
        (less_robust, {"coverage", "robust accuracy"}),
        (another_accuracy, {"clean verdict"}),
        (a_smaller_budget, {"threat model", "budget"}),
        (a_larger_budget, {"threat model"}),
    ],
)
def test_what_is_changed_is_noticed(tamper: Tamper, noticed: set[str], model: nn.Module, tmp_path: Path):
    record = judged(model, BOTH, out=tmp_path)
    tamper(tmp_path, record)
    assert noticed <= set(failing(tmp_path, model))
    assert not verify(tmp_path, model, DATA).holds


def test_images_that_show_nothing_count_as_standing(model: nn.Module, tmp_path: Path):
    record = judged(model, BOTH, out=tmp_path)
    the_image_itself(tmp_path, record)
    found = verify(tmp_path, model, DATA)
    assert found.derived.value == pytest.approx(found.claimed.value + 1 / len(DATA))


def test_another_model_or_data_set_is_a_mistake(model: nn.Module, tmp_path: Path):
    judged(model, BOTH, out=tmp_path)
    with pytest.raises(Mistake, match="another network than this Own"):
        verify(tmp_path, own(7), DATA)
    with torch.no_grad():
        model.head.bias[0] += 1e-6
    with pytest.raises(Mistake, match="another network"):
        verify(tmp_path, model, DATA)
    with torch.no_grad():
        model.head.bias[0] -= 1e-6
    with pytest.raises(Mistake, match="other images"):
        verify(tmp_path, model, dataset(21, split="test", seed=5))
    with pytest.raises(Mistake, match="no record"):
        verify(tmp_path / "nowhere", model, DATA)
    (tmp_path / FILE).unlink()
    with pytest.raises(Mistake, match="is missing"):
        verify(tmp_path, model, DATA)


def test_the_knob_is_part_of_the_network(tmp_path: Path):
    x, _ = DATA.batch(torch.arange(21))
    model = unsettle(create(DYNAMIC, classes=CLASSES, channels=1), x).eval()
    assert isinstance(model, AWNet)
    capped = model.turned(Knob(p_max=0.2))
    judged(capped, {"pgd": PGD(threat=THREAT, steps=3)}, out=tmp_path, about={"knob": to_json(capped.knob)})
    assert verify(tmp_path, capped, DATA).holds
    with pytest.raises(Mistake, match="knob turned otherwise"):
        verify(tmp_path, model, DATA)


def test_images_on_the_boundary_count(model: nn.Module, tmp_path: Path):
    """Another kernel may take an image at the boundary for the other class: a tie within rounding holds, no more."""
    judged(model, {"apgd": APGD(threat=THREAT, steps=5)}, out=tmp_path)
    found = read_adversarials(tmp_path, Record.load(tmp_path).adversarials)
    x, y = DATA.batch(found.positions)
    model.eval()
    low, high = x.clone(), found.x_adv.clone()  # right at low, wrong at high
    with torch.no_grad():
        for _ in range(60):
            middle = (low + high) / 2
            wrong = (model(middle).argmax(1) != y).view(-1, 1, 1, 1)
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
        assert (model(low).argmax(1) == y).all(), "the right side of the boundary, by a hair"
    rewritten(tmp_path, x_adv=low)
    check = next(check for check in verify(tmp_path, model, DATA).checks if check.name == "verdict")
    assert check.passed and f"{len(found)} of them by a tie" in check.meaning


def test_clean_images_on_the_boundary_count(model: nn.Module, tmp_path: Path):
    """A clean image whose two best logits tie may be right on one machine and wrong on the other; any other may not."""

    class Tied(nn.Module):
        def __init__(self, net: nn.Module, gap: float) -> None:
            super().__init__()
            self.net, self.gap = net, gap

        def forward(self, x: Tensor) -> Tensor:
            logits = self.net(x)
            top = logits.amax(1, keepdim=True)
            dark = (x.flatten(1).mean(1) < threshold)[:, None]
            tied = torch.cat(
                [top, top * (1 + self.gap), logits[:, 2:] - 9], dim=1
            )  # class 0 or 1, by the sign of the gap
            return torch.where(dark, tied, logits + 9)

    brightness = DATA.batch(torch.arange(len(DATA)))[0].flatten(1).mean(1)
    threshold = float(brightness.median())
    judged(Tied(model, 1e-6), {"apgd": APGD(threat=THREAT, steps=2)}, out=tmp_path)
    for gap, holds in ((-1e-6, True), (-1e-2, False)):
        checks = {check.name: check for check in verify(tmp_path, Tied(model, gap), DATA).checks}
        assert checks["clean verdict"].passed is holds
        assert ("by a tie within rounding" in checks["clean verdict"].meaning) is holds
        assert not holds or checks["robust accuracy"].passed
    model.train()


class Noisy(nn.Module):
    """A network with noise on its logits, of so much of their deviation."""

    def __init__(self, net: nn.Module, noise: float) -> None:
        super().__init__()
        self.net = net
        with torch.no_grad():
            self.noise = noise * net.eval()(DATA.batch(torch.arange(len(DATA)))[0]).std()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return logits + self.noise * torch.randn_like(logits)


MEANS = {"means": EOT(attack=PGD(threat=THREAT, steps=4), samples=4)}


def test_a_model_that_draws_is_verified_on_average(model: nn.Module, tmp_path: Path):
    """No verdict can be had again, one by one; their mean can, and is the same number every time."""
    drawing = Noisy(model, 0.3)
    torch.manual_seed(0)
    record = judged(drawing, MEANS, out=tmp_path)
    before = torch.get_rng_state()
    found = verify(tmp_path, drawing, DATA)
    assert torch.equal(torch.get_rng_state(), before) and found == verify(tmp_path, drawing, DATA)
    assert found.holds and isinstance(found.derived, Average) and found.derived.draws == DRAWS
    assert abs(found.derived.value - record.worst_accuracy.value) < found.derived.spread

    images = read_adversarials(tmp_path, record.adversarials)
    x, y = DATA.batch(torch.arange(len(DATA)))
    x[images.positions] = images.x_adv
    drawing.eval()
    with torch.no_grad():  # by a plain loop over many more draws
        right = torch.stack([drawing(x).argmax(1) == y for _ in range(400)]).double()
    assert found.derived.value == pytest.approx(right.mean().item(), abs=0.03)


def test_lucky_draws_are_no_robustness_lost(model: nn.Module, tmp_path: Path):
    """Of twelve attacks that do next to nothing each has its chance of a bad draw; on average the images are as they were."""
    drawing, many = Noisy(model, 0.8), dataset(200, split="test", seed=4)
    attacks = {f"lucky {k}": PGD(threat=THREAT, steps=1, step_size=1e-6, initial="zero") for k in range(12)}
    torch.manual_seed(0)
    record = judged(drawing, attacks, many, out=tmp_path, trust_range=True)
    found = verify(tmp_path, drawing, many)
    assert [check.name for check in found.checks if not check.passed] == ["robust accuracy"] and not found.holds
    assert found.derived.value > record.worst_accuracy.value + 0.2


def half_as_accurate(folder: Path, record: Record) -> None:
    correct = record.clean.correct & (torch.arange(len(DATA)) % 2 == 0)
    replace(record, clean=replace(record.clean, correct=correct)).save(folder)


def the_images_themselves(folder: Path, record: Record) -> None:
    x, _ = DATA.batch(load_file(folder / FILE)["positions"])
    rewritten(folder, x_adv=x)


@pytest.mark.parametrize(
    ("tamper", "noticed"),
    [
        (half_as_accurate, {"clean verdict"}),
        (the_images_themselves, {"robust accuracy"}),
        (an_image_left_out, {"coverage"}),
        (outside_the_ball, {"budget"}),
        (no_number, {"range", "budget"}),
    ],
)
def test_what_is_changed_of_a_model_that_draws_is_noticed(
    tamper: Tamper, noticed: set[str], model: nn.Module, tmp_path: Path
):
    drawing = Noisy(model, 0.1)
    torch.manual_seed(0)
    record = judged(drawing, MEANS, out=tmp_path)
    assert record.worst_accuracy.value < record.clean_accuracy.value - 0.2 and not failing(tmp_path, drawing)
    tamper(tmp_path, record)
    assert noticed <= set(failing(tmp_path, drawing))

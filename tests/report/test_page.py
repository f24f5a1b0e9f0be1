import ast
import os
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from awnet.config import to_json
from awnet.detection.operating_point import OperatingPoint
from awnet.errors import Mistake
from awnet.evaluation.metrics import auc
from awnet.evaluation.record import Record, Samples
from awnet.report import write_page
from awnet.report.images import magnified
from awnet.report.images import samples as shown
from awnet.report.page import page, plain
from report.synthetic import CLASSES, record, scaled

VOID = {"meta", "link", "br", "img"}


class Reader(HTMLParser):
    """What a page holds; fails where its tags do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.words, self.cells = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def records():
    return [
        record("static", robust=0.47, shown=2, history=4),
        record("natural", clean=0.97, robust=0.05, luck=1),
        record("AW-Net, cap 0.2", clean=0.96, robust=0.5, tells=1.5, shown=2, history=6, front="AW-Net"),
        record("AW-Net, cap 1", clean=0.97, robust=0.3, tells=1.5, history=6, front="AW-Net"),
    ]


@pytest.fixture(scope="module")
def text(records):
    return page(records, title="A title", note="In plain words.")


def test_the_page_is_well_formed(text):
    read = Reader(text)
    ids = [attrs["id"] for _, attrs in read.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in read.seen:
        assert set(attrs.get("aria-labelledby", "").split()) <= set(ids)
        assert tag != "img" or attrs["alt"]
        assert tag != "svg" or attrs["aria-label"]
        assert tag != "th" or attrs["scope"] in ("col", "row")
    for title in (
        "The numbers",
        "Clean against worst case",
        "Accuracy by attack",
        "Can it tell",
        "Training",
        "Details",
    ):
        assert title in read.text
    assert "A title" in read.text and "In plain words." in read.text
    assert read.text.index("In plain words.") < read.text.index("Before you believe")


def test_the_page_loads_nothing_and_runs_nothing(text):
    read = Reader(text)
    for tag, attrs in read.seen:
        assert tag not in ("script", "iframe", "object", "base") and not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "data", "action", "srcset", "poster"):
            assert attrs.get(name, "data:").startswith("data:")
    assert "url(" not in text and "@import" not in text
    assert set(re.findall(r"https?://[^\"' <]*", text)) == {"http://www.w3.org/2000/svg"}
    (policy,) = (a["content"] for _, a in read.seen if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "script" not in policy


def test_the_table_holds_the_records_numbers(records, text):
    body = text.split('<table class="numbers">')[1].split("</table>")[0].split("<tbody>")[1]
    rows = [re.sub(r"<small>.*?</small>", "", row) for row in body.split("<tr>")[1:]]
    small = [re.findall(r"<small>(.*?)</small>", row) for row in body.split("<tr>")[1:]]
    assert len(rows) == len(records)
    for row, intervals, r in zip(rows, small, records, strict=True):
        said = re.sub(r"<[^>]*>", " ", row).replace(r.label, "").split()
        clean, worst = r.clean_accuracy, r.worst_accuracy
        robust = [r.robust_accuracy(name).value for name in r.attacks]
        expected = [clean.value, worst.value, (clean.value + worst.value) / 2, *robust]
        assert said == [*(f"{100 * v:.1f}" for v in expected), *["–"] * (5 - len(robust)), "11.2"]
        assert intervals[0] == f"{100 * clean.low:.1f}–{100 * clean.high:.1f}"
        assert intervals[1] == f"{100 * worst.low:.1f}–{100 * worst.high:.1f}"
    best = max(records, key=lambda r: r.worst_accuracy.value)
    assert f'<td class="headline best"><b>{100 * best.worst_accuracy.value:.1f}</b>' in body
    assert body.count('<td class="headline best">') == 1


def test_weights_are_shown(records):
    assert "0.25 · clean + 0.75 · worst case (Eq. 23)" in Reader(page(records, gamma_nat=0.25, gamma_adv=0.75)).text


def test_auc_is_of_all_images_and_of_the_fooled_ones(records, text):
    r = records[2]
    body = text.split('<table class="strips">')[1].split("</table>")[0]
    row = body.split("pgd-sat</th>")[1].split("</tr>")[0]
    result = r.attacks["pgd-sat"]
    won = r.clean.correct & ~result.correct
    assert f"<td>{auc(r.clean.p_clean, result.p_clean):.3f}</td>" in row
    assert f"<td>{auc(r.clean.p_clean[won], result.p_clean[won]):.3f}<small>of {int(won.sum())}</small></td>" in row
    assert text.count('<table class="strips">') == 2  # only the models that tell


def section(text, name):
    """What stands in a section, as words."""
    return Reader(
        "<section" + text.split(f'<section aria-labelledby="{name}"')[1].split("</section>")[0] + "</section>"
    ).text


def test_signals_are_shown_where_a_model_scales_its_filters(records, text):
    assert 'id="signals"' not in text and 'id="signals"' not in page([record()])
    r = scaled(record("AW-Net", tells=1.5))
    said = section(page([records[0], r]), "signals")
    strongest = min(r.attacks, key=lambda name: r.robust_accuracy(name).value)
    ratios = {
        attack: [found.shift / r.clean.omega[layer].deviation for layer, found in r.attacks[attack].omega.items()]
        for attack in r.attacks
    }
    mean = {attack: sum(found) / len(found) for attack, found in ratios.items()}
    assert f"Under {strongest}, an image's signals move by {mean[strongest]:.2f} deviations on average" in said
    assert f"least in block 1, conv 1 ({min(ratios[strongest]):.2f})" in said
    assert f"most in block 4, conv 1 ({max(ratios[strongest]):.2f})" in said
    for attack in mean.keys() - {strongest}:
        assert f"{attack} {mean[attack]:.2f}" in said
    still = replace(r.clean, omega={k: replace(v, deviation=0.0) for k, v in r.clean.omega.items()})
    assert "a shift has no unit here" in section(page([replace(r, clean=still)]), "signals")


def test_seeds_are_merged_and_can_be_unfolded():
    seeds = [record("AW-Net", robust=0.4, seed=s, luck=s) for s in range(3)]
    said = section(page([*seeds, record("static")]), "numbers")
    before, unfolded = said.split("Each seed by itself")
    assert "AW-Net (mean of 3)" in before and "seed 1" not in before and "±" in before
    for s in range(3):
        assert f"AW-Net, seed {s}" in unfolded
    assert "Each seed by itself" not in page([seeds[0], record("static")])


def test_differences_say_what_chance_explains():
    a, near, far = record("a"), record("near", robust=0.47, luck=4), record("far", robust=0.1, luck=5)
    said = section(page([a, near, far]), "numbers").split("Differences from a")[1]
    row = re.search(r"near (.*) far (.*) Points of accuracy", said)
    assert row is not None
    assert row[1].count("not dist.") == 6 and row[2].count("not dist.") == 1  # its clean accuracy alone
    other = replace(near, ids=near.ids + 1)
    assert "Differences from" not in section(page([a, other]), "numbers")


def test_a_doubt_names_few_records():
    rows = [record(f"net {k}", luck=k) for k in range(9)]
    for k, expected in ((1, "net 0"), (7, "all but net 7 and net 8"), (6, "net 0 · net 1 · net 2 · net 3 · 2 more")):
        changed = [replace(r, model={**r.model, "selection": "paper"}) if i < k else r for i, r in enumerate(rows)]
        grave = page(changed).split('<li class="grave">')[1].split("</li>")[0]
        assert expected == re.sub("<[^>]*>", "", grave.split("compare. ")[1].split('">')[1])
    front = [record(f"AW-Net, cap {k}", tells=1.0, aware=False, front="AW-Net") for k in range(3)]
    assert "AW-Net (3 settings)</span>" in page([*front, *rows[:3]])


def test_names_are_text_not_markup():
    nasty = "<script>alert(1)</script><img src=x onerror=y>\"'&"
    r = record(nasty, shown=1, tells=1.0, history=3, front=nasty)
    r = replace(r, classes=(nasty, *CLASSES[1:]), model={**r.model, nasty: nasty}, data={**r.data, "name": nasty})
    r = replace(r, attacks={**r.attacks, f"{nasty}-attack": r.attacks["fgsm"]})
    other = record(f"{nasty} 2", robust=0.3, front=nasty)
    made = page([r, other], title=nasty, note=nasty)
    read = Reader(made)
    assert not {tag for tag, _ in read.seen} & {"script"} and not any("onerror" in attrs for _, attrs in read.seen)
    assert "<script" not in made and read.text.count(nasty) > 10


def test_images_are_those_of_the_record():
    r = record(shown=3)
    assert r.samples is not None
    made = shown(r)
    assert [(s.true, s.right_before) for s in made] == [(CLASSES[k], bool(r.clean.correct[k])) for k in range(3)]
    for k, s in enumerate(made):
        for address, image in [(s.x, r.samples.x[k]), (s.x_adv, r.samples.x_adv[k])]:
            picture = Image.open(BytesIO(b64decode(address.removeprefix("data:image/png;base64,"))))
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
            assert picture.size == (32, 32)
            assert (pixels - 255 * image).abs().max() <= 0.51
    text = page([r])
    assert text.count("data:image/png") == 9 and "pixelated" in text
    assert "data:image/png" not in page([r], images=False)


def test_the_perturbation_is_grey_at_zero_and_ends_at_the_edge_of_the_ball():
    x = torch.full((1, 1, 1, 3), 0.5)
    x_adv = x + torch.tensor([-0.1, 0.0, 0.05])
    assert magnified(x, x_adv, 0.1)[0, 0, 0].tolist() == pytest.approx([0, 0.5, 0.75], abs=1e-6)
    assert magnified(x, x_adv, None)[0, 0, 0].tolist() == pytest.approx([0, 0.5, 0.75], abs=1e-6)
    assert magnified(x, x, None).unique().tolist() == [0.5]


def test_samples_say_what_the_network_said():
    r = record(tells=1.0)
    after = r.attacks["cw-inf"]
    positions = torch.tensor(
        [int((r.clean.correct & ~after.correct).nonzero()[0]), int((~r.clean.correct).nonzero()[0])]
    )
    x = torch.rand(2, 3, 8, 8)
    fooled, wrong = shown(replace(r, samples=Samples(attack="cw-inf", positions=positions, x=x, x_adv=x)))
    for s, i in zip((fooled, wrong), positions.tolist(), strict=True):
        assert (s.true, s.before, s.after) == tuple(
            CLASSES[int(t[i])] for t in (r.labels, r.clean.prediction, after.prediction)
        )
        assert (s.p_before, s.p_after) == (float(r.clean.p_clean[i]), float(after.p_clean[i]))
    assert (fooled.right_before, fooled.right_after, wrong.right_before) == (True, False, False)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 224, 200)])
def test_images_of_other_shapes_fit(shape):
    made = Samples(attack="fgsm", positions=torch.arange(9), x=torch.rand(9, *shape), x_adv=torch.rand(9, *shape))
    found = shown(replace(record(), samples=made), budget=100_000)
    assert 1 <= len(found) <= 8 and all(len(s.x) < 100_000 for s in found)


def test_bare_records_work():
    r = record()
    bare = Record(label="bare", ids=r.ids, labels=r.labels, clean=r.clean, attacks=r.attacks)
    read = Reader(page([bare]))
    for left_out in ("What an attack looks like", "Training", "Can it tell", "against eps", "Clean against"):
        assert left_out not in read.text
    Reader(page([replace(bare, attacks={}), record(n=0), bare]))


def test_one_training_of_several_settings_is_shown_once(text):
    training = text.split('id="training"')[1].split("</section>")[0]
    assert re.findall(r"</i>(.*?)</summary>", training) == ["static", "AW-Net, cap 0.2", "AW-Net, cap 1"]
    same = [record(f"AW-Net, cap {k}", history=5, front="AW-Net") for k in range(3)]
    training = page(same).split('id="training"')[1].split("</section>")[0]
    assert re.findall(r"</i>(.*?)</summary>", training) == ["AW-Net"]


def test_details_say_what_was_run_and_where(text):
    read = Reader(text)
    assert "PGD(steps=20, step_size=0.25, loss=CrossEntropy())" in read.text
    assert "awnet evaluate runs/cifar10/pgd-at --attacks standard" in read.text
    assert "21 + 20" in read.text and "0123456789ab" in read.text
    assert plain({"kind": "A", "b": [1, None, 0.5], "c": {"kind": "D"}, "e": True}) == "A(b=(1, –, 0.5), c=D(), e=yes)"


def test_the_same_records_give_the_same_page(records, text):
    assert page(records, title="A title", note="In plain words.") == text


def test_ten_records_stay_below_a_megabyte():
    many = [record(f"network {k}", n=500, luck=k, tells=1.0, shown=8, history=60) for k in range(10)]
    assert len(page(many).encode()) < 1_000_000


def test_no_record_is_a_mistake(tmp_path):
    with pytest.raises(Mistake, match="at least one record"):
        write_page([], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_replaced_in_one_piece(tmp_path, records, monkeypatch):
    out = tmp_path / "deep" / "report.html"
    assert write_page(records[:1], out, title="old words") == out and "old words" in out.read_text(encoding="utf-8")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(Mistake, match="No space left on device"):
            write_page(records[:1], out, title="new words")
    assert "old words" in out.read_text(encoding="utf-8") and list(out.parent.iterdir()) == [out]
    write_page(records[:1], out, title="new words")
    assert "new words" in out.read_text(encoding="utf-8") and list(out.parent.iterdir()) == [out]


def test_a_folder_is_no_file(tmp_path, records):
    with pytest.raises(Mistake, match="is a folder"):
        write_page(records[:1], tmp_path)


def test_the_import_is_light():
    heavy = {"jinja2", "PIL", "rich", "matplotlib"}
    for path in (Path(__file__).parents[2] / "awnet" / "report").glob("*.py"):
        for node in ast.parse(path.read_text()).body:  # what runs on import
            if isinstance(node, ast.Import | ast.ImportFrom):
                roots = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not heavy & {root.split(".")[0] for root in roots}, path


def test_what_the_stored_thresholds_come_to():
    made = record("AW-Net", tells=1.5)
    point = OperatingPoint(false_alarms=0.05, threshold=0.3, images=500, split="validation")
    told = replace(made, model={**made.model, "detector": [to_json(point)]})
    text = Reader(page([told])).text
    alarms = 100 * (made.clean.p_clean.double() < 0.3).double().mean()
    fooled = made.clean.correct & ~made.attacks["fgsm"].correct
    noticed = 100 * (made.attacks["fgsm"].p_clean[fooled].double() < 0.3).double().mean()
    assert "P(adversarial) above 0.7, set for 5 % of false alarms on 500 validation images" in text
    assert (
        f"{alarms:.1f} % of these clean images are called attacked; of the images that fooled it, fgsm {noticed:.1f} %"
        in text
    )
    assert "false alarms on 500" not in Reader(page([made])).text

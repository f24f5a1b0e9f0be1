"""Swin's ImageNet weights: the same logits from the names of Liu et al. and of timm, and other patches and windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import awnet
import foreign
from awnet.checkpoint import read_about
from awnet.cli import main
from awnet.errors import Mistake
from awnet.models import MODELS
from awnet.models.swin import SwinConfig
from awnet.models.swin_geometry import bias_table, patch_kernel
from awnet.public import adopt
from awnet.training.fine_tuning import start_from
from models.randomised import randomise
from test_peers import installed

# Every map is at least a window, as on ImageNet: 16, 8, 4 and 2 tokens of a side.
OURS = SwinConfig(depths=(2, 2, 1, 1), width=8, heads=2, patch=2, window=2)
X = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def theirs(*, timm=False, classes=7, **change):
    sizes = {"size": 32, "patch": 2, "window": 2, "width": 8, "heads": 2, "depths": (2, 2, 1, 1), **change}
    return randomise(foreign.ForeignSwin(classes, timm=timm, **sizes)).eval()


@pytest.mark.parametrize("timm", [False, True])
@torch.no_grad()
def test_the_same_logits(timm):
    net = theirs(timm=timm)
    found = adopt(net.state_dict(), OURS)
    assert found.classes == 7 and found.resampled == () and not found.model.training
    torch.testing.assert_close(found.model(X), net(X), rtol=1e-4, atol=1e-4)
    assert (net(X).std(0) > 1e-3).all(), "the images should differ"
    assert len(found.unused) == (0 if timm else 6 + 2) and all("attn" in name for name in found.unused)


@torch.no_grad()
def test_the_normalisation_is_given():
    net = theirs()
    found = adopt(net.state_dict(), replace(OURS, mean=MEAN, std=STD))
    x = foreign.Normalization(MEAN, STD)(X)
    torch.testing.assert_close(found.model(X), net(x), rtol=1e-4, atol=1e-4)


def test_our_own_names_will_do():
    ours = randomise(awnet.create(OURS, classes=7)).eval()
    assert torch.equal(adopt(ours.state_dict(), OURS).model(X), ours(X))


@torch.no_grad()
def test_timm():
    """Theirs, where it is installed."""
    swin = installed("timm.models.swin_transformer")
    sizes = {"img_size": 64, "patch_size": 2, "window_size": 4, "embed_dim": 12, "depths": (2, 2, 2, 2)}
    net = randomise(swin.SwinTransformer(num_heads=(3, 6, 12, 24), num_classes=5, **sizes)).eval()
    for name, t in net.named_parameters():
        if name.endswith("bias_table"):
            t.normal_()
    found = adopt(net.state_dict(), SwinConfig(depths=(2, 2, 2, 2), width=12))
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.model(x), net(x), rtol=1e-4, atol=1e-4)


# --- another patch or window ---


@pytest.mark.parametrize(("old", "new"), [(4, 2), (6, 2), (4, 1), (2, 4), (4, 4)])
def test_a_kernel_answers_to_a_patch_as_to_the_patch_enlarged(old, new):
    kernel = torch.randn(5, 3, old, old, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = torch.rand(2, 3, 4 * new, 4 * new, dtype=torch.float64)
    enlarged = (
        F.avg_pool2d(x, new // old)
        if new > old
        else x.repeat_interleave(old // new, 2).repeat_interleave(old // new, 3)
    )
    expected = F.conv2d(enlarged, kernel, stride=old)
    torch.testing.assert_close(F.conv2d(x, patch_kernel(kernel, new), stride=new), expected)


def test_biases_keep_their_places():
    """No distance is the middle in tables of all sizes, and down and right are not exchanged."""
    down, right = torch.meshgrid(torch.arange(-6.0, 7), torch.arange(-6.0, 7), indexing="ij")
    table = torch.stack([down.flatten(), right.flatten()], 1)
    assert torch.equal(bias_table(table, 13), table)
    first, second = bias_table(table, 7).T.unflatten(1, (7, 7))
    torch.testing.assert_close(first, second.T)
    assert (first[1:] > first[:-1]).all() and first[3].abs().max() < 1e-5
    torch.testing.assert_close(first[:, 0], first[:, 6])
    inner = torch.arange(-2.0, 3) * 13 / 7  # bicubic interpolation keeps a slope, but beside the edge
    torch.testing.assert_close(first[1:6, 2], inner, rtol=0.05, atol=0)


@torch.no_grad()
def test_another_patch_and_window():
    net = theirs(size=64, patch=4, window=2)
    found = adopt(net.state_dict(), OURS)
    assert found.resampled == ("patches.weight",)
    enlarged = X.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(found.model(X), net(enlarged), rtol=1e-4, atol=1e-4)

    found = adopt(net.state_dict(), replace(OURS, window=4))
    assert len(found.resampled) == 7 and found.resampled[0] == "patches.weight"
    table = net.get_parameter("layers.1.blocks.1.attn.relative_position_bias_table")
    assert torch.equal(found.model.get_parameter("stages.1.2.attention.bias"), bias_table(table, 7))
    assert found.model(X).shape == (3, 7) and found.model(X).isfinite().all()


def test_what_does_not_fit_is_named():
    state = theirs().state_dict()
    with pytest.raises(Mistake, match=r"patch_embed.proj.weight has shape 8 x 3 x 2 x 2, expected 16 x 3 x 2 x 2"):
        adopt(state, replace(OURS, width=16))
    with pytest.raises(Mistake, match=r"bias_table has shape 9 x 2, expected 9 x 4"):
        adopt(state, replace(OURS, heads=4))
    with pytest.raises(Mistake, match=r"bias_table has shape 9 x 2, expected 49 x 1"):
        adopt(state, replace(OURS, heads=1, window=4))
    with pytest.raises(Mistake, match=r"have no place \(such as layers.1.blocks.1.attn.proj.bias\)"):
        adopt(state, replace(OURS, depths=(2, 1, 1, 1)))
    with pytest.raises(Mistake, match=r"are missing \(such as stages.2.2.attention.bias as it is called here\)"):
        adopt(state, replace(OURS, depths=(2, 2, 2, 1)))
    with pytest.raises(Mistake, match=r"shape 8 x 3 x 2 x 2, expected 8 x 1 x 2 x 2"):
        adopt(state, OURS, channels=1)
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    with pytest.raises(Mistake, match=r"bias_table has shape 10 x 2, expected 9 x 2"):
        adopt({**state, table: torch.zeros(10, 2)}, OURS)
    with pytest.raises(Mistake, match=r"holds numbers that are not finite"):
        adopt({**state, table: torch.full((9, 2), torch.nan)}, OURS)
    with pytest.raises(Mistake, match=r"have no place \(such as absolute_pos_embed\)"):
        adopt({**state, "absolute_pos_embed": torch.zeros(1, 4, 8)}, OURS)


@pytest.mark.parametrize("places", [0, 10, 16])
def test_what_is_no_table_of_biases(places):
    state = theirs().state_dict()
    state |= {name: t.new_zeros(places, t.shape[1]) for name, t in state.items() if name.endswith("bias_table")}
    with pytest.raises(Mistake, match=rf"bias_table has shape {places} x 2, expected 9 x 2"):
        adopt(state, OURS)


@pytest.mark.parametrize("shape", [(16, 3, 4, 4), (8, 3, 4, 3), (8, 3, 0, 0), (8, 48), (8, 3)])
def test_what_is_no_kernel_of_another_patch(shape):
    state = {**theirs().state_dict(), "patch_embed.proj.weight": torch.zeros(shape)}
    said = " x ".join(map(str, shape))
    with pytest.raises(Mistake, match=rf"patch_embed.proj.weight has shape {said}, expected 8 x 3 x 2 x 2"):
        adopt(state, OURS)


def test_windows_that_were_cut_to_small_maps_are_refused():
    """Of 16 x 16 tokens the last map has two of a side: its biases are the middle of a table, not the whole one smaller."""
    with pytest.raises(Mistake, match=r"layers.3.blocks.0.attn.\w+ has shape 9 x 16, expected 49 x 16"):
        adopt(theirs(window=4).state_dict(), replace(OURS, window=4))


# --- the command ---


def test_import_and_fine_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    tiny = replace(OURS, window=4)
    monkeypatch.setattr(MODELS, "_entries", {**MODELS._entries, "tiny": tiny})
    net = theirs(timm=True, classes=9, size=64, patch=4)
    torch.save({"model": net.state_dict(), "epoch": 300}, tmp_path / "w.pth")
    out = tmp_path / "imagenet"
    command = ["import", str(tmp_path / "w.pth"), "--model", "tiny", "--data", "imagenet", "--out", str(out)]
    main([*command, "--mean", *map(str, MEAN), "--std", *map(str, STD)])
    said = capsys.readouterr().out
    assert f"awnet train RECIPE --init {out}" in said and "patches.weight" in said
    about = read_about(out)
    assert len(about["classes"]) == 9 and about["shape"] == [3, 224, 224]
    assert about["public"]["resampled"][0] == "patches.weight" and len(about["public"]["resampled"]) == 7
    assert awnet.load(out).get_buffer("normalize.mean").flatten().tolist() == pytest.approx(MEAN)

    tiny = replace(tiny, mean=MEAN, std=STD)
    student = awnet.create(tiny, classes=10, seed=3)
    drawn = student.get_parameter("head.weight").clone()
    assert start_from(str(out), student, tiny, channels=3)["afresh"] == ["head.bias", "head.weight"]
    assert torch.equal(student.get_parameter("head.weight"), drawn)
    assert torch.equal(student.get_parameter("last_norm.weight"), net.get_parameter("norm.weight"))

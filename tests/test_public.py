"""Files in the formats of the public codes, made by networks that were written apart from awnet's: the same logits come out."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import awnet
import foreign
from awnet.cli import main
from awnet.errors import Mistake
from awnet.models import (
    MODELS,
    MobileNetV2Config,
    PreActResNetConfig,
    ResNetCifarConfig,
    ResNetConfig,
    SwishWideResNetConfig,
    WideResNetConfig,
)
from awnet.public import adopt, read_public
from models.randomised import randomise

X = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
SWISH = SwishWideResNetConfig(depth=16, widen=2, mean=MODELS["wrn-70-16-swish"].mean, std=MODELS["wrn-70-16-swish"].std)

FAMILIES = {
    "TRADES WRN": (lambda: foreign.TradesWideResNet(16, 2, 7, unused=True), WideResNetConfig(depth=16, widen=2)),
    "HAT WRN": (lambda: foreign.TradesWideResNet(10, 1, 7, unused=False), WideResNetConfig(depth=10, widen=1)),
    "Gowal WRN": (lambda: foreign.GowalWideResNet(16, 2, 7, buffers=False), SWISH),
    "RobustBench WRN": (
        lambda: foreign.GowalWideResNet(16, 2, 7, buffers=True, mean=MEAN, std=STD),
        SWISH,  # the file's normalisation counts
    ),
    "ResNet-18": (lambda: foreign.KuangResNet(18, 4, 7), ResNetConfig(width=4)),
    "ResNet-34": (lambda: foreign.KuangResNet(34, 4, 7), ResNetConfig(depth=34, width=4)),
    "ResNet-50": (lambda: foreign.KuangResNet(50, 4, 7), ResNetConfig(depth=50, width=4)),
    "MTARD ResNet-56": (lambda: foreign.CifarResNet(56, 4, 7), ResNetCifarConfig(width=4)),
    "PreActResNet-18": (lambda: foreign.HatPreActResNet(18, 4, 7), PreActResNetConfig(width=4)),
    "PreActResNet-34": (lambda: foreign.HatPreActResNet(34, 4, 7), PreActResNetConfig(depth=34, width=4)),
    "MTARD MobileNet-V2": (lambda: foreign.KuangMobileNet(0.25, 7), MobileNetV2Config(width=0.25)),
}


def made(name):
    make, architecture = FAMILIES[name]
    return randomise(make()).eval(), architecture


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_the_same_logits(name):
    theirs, architecture = made(name)
    found = adopt(theirs.state_dict(), architecture)
    assert found.classes == 7 and not found.model.training
    torch.testing.assert_close(found.model(X), theirs(X), rtol=1e-4, atol=1e-4)
    assert (theirs(X).std(0) > 1e-3).all(), "the images should differ"
    assert bool(found.unused) == (name == "TRADES WRN")
    assert all(part.startswith("sub_block1.") for part in found.unused)


def test_the_files_normalisation_is_kept_as_it_was_written():
    theirs, architecture = made("RobustBench WRN")
    found = adopt(theirs.state_dict(), architecture)
    assert found.architecture == replace(architecture, mean=MEAN, std=STD)


WRAPPED = {
    "parallel": lambda net: nn.DataParallel(net),
    "HAT, not normalised": lambda net: nn.DataParallel(nn.Sequential(net)),
    "a student": lambda net: nn.ModuleDict({"student": net}),
    "RobustBench, normalised": lambda net: nn.Sequential(
        OrderedDict(normalize=foreign.ImageNormalizer(MEAN, STD), model=net)
    ),
    "averaged": lambda net: torch.optim.swa_utils.AveragedModel(net),
}


@pytest.mark.parametrize("how", WRAPPED)
@torch.no_grad()
def test_what_wraps_a_network_is_taken_off(how):
    theirs, architecture = made("TRADES WRN")
    wrapped = WRAPPED[how](theirs).eval()
    found = adopt(wrapped.state_dict(), architecture)
    expected = theirs((X - foreign.Normalization(MEAN, STD).mean) / foreign.Normalization(MEAN, STD).sigma)
    expected = expected if how == "RobustBench, normalised" else theirs(X)
    torch.testing.assert_close(found.model(X), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_normalisation_that_the_file_does_not_hold_must_be_given():
    theirs, architecture = made("ResNet-18")
    wrapped = nn.DataParallel(nn.Sequential(foreign.Normalization(MEAN, STD), theirs)).eval()
    with pytest.raises(Mistake, match="normalised with numbers that the file does not hold"):
        adopt(wrapped.state_dict(), architecture)
    found = adopt(wrapped.state_dict(), replace(architecture, mean=MEAN, std=STD))
    torch.testing.assert_close(found.model(X), wrapped.module(X), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_half_precision_and_uncounted_batches():
    theirs, architecture = made("ResNet-18")
    state = {name: t.half() for name, t in theirs.state_dict().items() if "num_batches" not in name}
    found = adopt(state, architecture)
    assert all(p.dtype == torch.float32 for p in found.model.parameters())
    torch.testing.assert_close(found.model(X), theirs(X), rtol=0.05, atol=0.05)


# --- files ---


@pytest.fixture
def state():
    return made("ResNet-18")[0].state_dict()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 100, "best": 0.53},
        lambda state: {"net": state, "acc": 84.9},
        lambda state: {"model": {"student": state}, "optimizer": {"state": {0: {"buffer.weight": torch.ones(2)}}}},
    ],
)
def test_a_state_dict_is_found_wherever_it_lies(wrap, state, tmp_path):
    torch.save(wrap(state), tmp_path / "w.pt")
    found = read_public(tmp_path / "w.pt")
    assert found.keys() == state.keys() and all(torch.equal(found[name], t) for name, t in state.items())


def test_old_files_and_safetensors(state, tmp_path):
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "new.safetensors")
    for name in ("old.pt", "new.safetensors"):
        assert read_public(tmp_path / name).keys() == state.keys()


def test_of_several_sets_one_is_named(state, tmp_path):
    file = tmp_path / "w.pt"
    other = {name: torch.zeros_like(t) for name, t in state.items()}
    torch.save({"model_state_dict": state, "unaveraged_model_state_dict": other}, file)
    with pytest.raises(Mistake, match="several sets of weights, 'model_state_dict', 'unaveraged_model_state_dict'"):
        read_public(file)
    assert torch.equal(read_public(file, "model_state_dict")["conv1.weight"], state["conv1.weight"])
    with pytest.raises(Mistake, match="no weights under 'ema'"):
        read_public(file, "ema")


class Evil:
    def __reduce__(self):
        return open, ("unpickled", "w")


@pytest.mark.parametrize("content", [lambda: {"state_dict": Evil()}, lambda: nn.Linear(2, 2)])
def test_nothing_is_unpickled(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content(), "w.pt")
    with pytest.raises(Mistake, match="to unpickle it would run whatever is in it"):
        read_public("w.pt")
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"hello"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_files(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Mistake, match="w\\."):
        read_public(tmp_path / name)


def test_containers_without_end(tmp_path):
    value = {"conv.weight": torch.zeros(2)}
    for _ in range(100):
        value = {"deeper": value}
    torch.save(value, tmp_path / "w.pt")
    with pytest.raises(Mistake, match="holds no weights"):
        read_public(tmp_path / "w.pt")


def test_no_file_and_no_weights(tmp_path):
    with pytest.raises(Mistake, match="no such file"):
        read_public(tmp_path / "none.pt")
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(Mistake, match="holds no weights"):
        read_public(tmp_path / "w.pt")


def test_what_does_not_fit_is_named(state):
    architecture = ResNetConfig(width=4)
    with pytest.raises(Mistake, match=r"conv1.weight has shape 4 x 3 x 3 x 3, expected 8 x 3 x 3 x 3"):
        adopt(
            {"conv1.weight": state["conv1.weight"], "linear.weight": torch.zeros(7, 64)}, replace(architecture, width=8)
        )
    with pytest.raises(Mistake, match=r"have no place \(such as layer1.2.bn1.bias\)"):
        adopt(foreign.KuangResNet(34, 4, 7).state_dict(), architecture)
    with pytest.raises(Mistake, match=r"are missing \(such as trunk.stages.0.2.bn1.bias as it is called here\)"):
        adopt(state, replace(architecture, depth=34))
    with pytest.raises(Mistake, match="no linear layer of the classes"):
        adopt({name: t for name, t in state.items() if "linear" not in name}, architecture)
    with pytest.raises(Mistake, match="no linear layer of the classes"):
        adopt({**state, "linear.weight": torch.tensor(1.0)}, architecture)
    with pytest.raises(Mistake, match=r"layer2.0.conv1.weight holds numbers that are not finite"):
        adopt({**state, "layer2.0.conv1.weight": state["layer2.0.conv1.weight"] / 0}, architecture)
    with pytest.raises(Mistake, match="names the same layer twice"):
        adopt({**state, "fc.weight": state["linear.weight"]}, architecture)
    with pytest.raises(Mistake, match=r"shape 4 x 3 x 3 x 3, expected 4 x 1 x 3 x 3"):
        adopt(state, architecture, channels=1)


def test_a_network_without_known_names():
    with pytest.raises(Mistake, match="no public names are known for AWNet; known are those of MobileNetV2, "):
        adopt({}, MODELS["awnet"])


def test_our_own_names_will_do(state):
    ours = awnet.create(ResNetConfig(width=4), classes=7, seed=3)
    found = adopt(ours.state_dict(), ResNetConfig(width=4))
    assert torch.equal(found.model(X), ours.eval()(X))


# --- the command ---


def grey(state):
    return {**state, "conv1.weight": state["conv1.weight"].sum(1, keepdim=True)}


def test_import_writes_a_checkpoint_that_is_evaluated(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(awnet.models.model.MODELS, "_entries", {**MODELS._entries, "tiny": ResNetConfig(width=4)})
    theirs = randomise(foreign.KuangResNet(18, 4, 10)).eval()
    state = {f"module.{name}": t for name, t in grey(theirs.state_dict()).items()}
    torch.save({"net": state, "acc": 1}, tmp_path / "w.pt")
    out = tmp_path / "run"
    command = ["import", str(tmp_path / "w.pt"), "--data", "digits", "--out", str(out), "--eps", "0.1"]
    main([*command, "--model", "tiny"])
    x = X[:, :1, :8, :8]
    torch.testing.assert_close(awnet.load(out)(x), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    main(["evaluate", str(out), "--attacks", "fgsm", "--limit", "4", "--out", str(tmp_path / "record")])
    assert awnet.Record.load(tmp_path / "record").threat["eps"] == 0.1

    for typed, said in (
        ([*command, "--model", "tiny"], "choose another --out"),
        ([*command[:-3], str(tmp_path / "new"), "--model", "resnet34"], "are not those of this ResNet"),
        ([*command[:-3], str(tmp_path / "new"), "--model", "wrn-34"], "did you mean"),
    ):
        with pytest.raises(SystemExit) as end:
            main(typed)
        assert end.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_import_counts_the_classes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(awnet.models.model.MODELS, "_entries", {**MODELS._entries, "tiny": ResNetConfig(width=4)})
    torch.save(grey(foreign.KuangResNet(18, 4, 7).state_dict()), tmp_path / "w.pt")
    with pytest.raises(SystemExit):
        main(["import", str(tmp_path / "w.pt"), "--data", "digits", "--model", "tiny", "--out", str(tmp_path / "run")])
    assert "tells 7 classes apart, digits has 10" in capsys.readouterr().err

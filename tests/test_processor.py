"""What some processors do badly is told, or done otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from awnet.cli import main
from awnet.processor import trainable_channels_last, without_avx512
from conftest import TINY

AVX2, AVX512 = (lambda: "AVX2"), (lambda: "AVX512")


@pytest.mark.parametrize(
    ("conv", "trainable"),
    [
        (nn.Conv2d(4, 8, 1, 2), False),
        (nn.Conv2d(7, 8, 1, 2), False),
        (nn.Conv2d(8, 8, 1, 2), True),
        (nn.Conv2d(1, 8, 1, 2), True),
        (nn.Conv2d(4, 8, 1, 1), True),
        (nn.Conv2d(4, 8, 3, 2), True),
    ],
)
def test_what_onednn_cannot_do_there(conv: nn.Conv2d, trainable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", AVX2)
    assert trainable_channels_last(nn.Sequential(nn.ReLU(), conv)) is trainable
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", AVX512)
    assert trainable_channels_last(nn.Sequential(nn.ReLU(), conv)) and not without_avx512()


def test_slow_bfloat16_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--training.precision", "bf16-mixed", "--training.no-channels-last"]
    for place, (capability, told) in enumerate([(AVX2, True), (AVX512, False)]):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", capability)
        main(["train", "digits/standard", *TINY, *more, "--out", str(tmp_path / str(place))])
        said = " ".join(capsys.readouterr().out.split())
        assert ("bfloat16 takes several times as long" in said) is told

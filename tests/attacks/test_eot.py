"""EOT: the attack within meets means, and on a model that draws nothing it is the attack itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import Linear, lively, small_net
from awnet.attacks import APGD, EOT, PGD, Engine, TensorExamples, auto_attack
from awnet.errors import Mistake
from awnet.losses import DLR
from awnet.noise import Noise
from awnet.threat_model import L2, Linf


@pytest.mark.parametrize("attack", [PGD(threat=Linf(0.03), steps=4), APGD(threat=L2(0.5), steps=6)], ids=repr)
def test_without_chance_it_is_the_attack_itself(attack: PGD | APGD):
    x = torch.rand(5, 3, 8, 8)
    model, y = lively(small_net(), x), torch.arange(5)
    plain = replace(attack, stop_on_success=False)
    outcome = Engine(batch_size=3).run(EOT(attack=attack, samples=4), model, TensorExamples(x, y, y), seed=1)
    expected = Engine(batch_size=3).run(plain, model, TensorExamples(x, y, y), seed=1)
    torch.testing.assert_close(outcome.x_adv, expected.x_adv, rtol=0, atol=1e-6)
    assert torch.equal(outcome.backwards, 4 * expected.backwards)


class Shaken(nn.Module):
    """A linear network whose weights change their sign, all but a tenth of them, at every other call."""

    def __init__(self, w: Tensor, swing: Tensor) -> None:
        super().__init__()
        self.calls, self.w, self.swing = 0, w, swing

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return Linear(self.w + self.swing * (1 if self.calls % 2 else -1))(x)


def test_steps_follow_the_mean_of_the_gradients():
    """Of two draws that nearly cancel each other: the worst case of the mean network, which no single draw shows."""
    w = torch.randn(2, 1, 6, 6)
    swing = 10 * torch.randn(2, 1, 6, 6)
    x, y = 0.4 + 0.2 * torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 0, 1])
    attack = PGD(threat=Linf(0.1), loss=DLR(), steps=5, step_size=1, initial="zero")
    expected = x + 0.1 * (w[1 - y] - w[y]).sign()
    mean = EOT(attack=attack, samples=2)(Shaken(w, swing), x, y)
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(attack(Shaken(w, swing), x, y), expected, atol=1e-3)


def test_the_version_of_autoattack_for_random_models():
    ce, dlr = auto_attack(Linf(0.1), "rand").attacks
    assert ce == EOT(attack=APGD(threat=Linf(0.1)), samples=20)
    assert dlr == EOT(attack=APGD(threat=Linf(0.1), loss=DLR()), samples=20)
    assert ce.queries == 20 * 102 and not ce.stop_on_success and ce.within(L2(1)).threat == L2(1)
    with pytest.raises(Mistake, match="at least one sample, got 0"):
        EOT(attack=APGD(threat=Linf(0.1)), samples=0)


def test_what_needs_float32_is_known_of_the_attack_within():
    x, noise = torch.rand(2, 3, 8, 8), Noise(0, torch.arange(2))
    eot = EOT(attack=APGD(threat=Linf(0.1), steps=4), samples=2)
    state = eot.start(x, torch.zeros(2, dtype=torch.int64), noise)
    late = state.within._replace(run=state.within.run + 1, climb=state.within.climb._replace(step=torch.tensor([0, 4])))
    told = eot.delicate(state._replace(within=late))
    assert told is not None and told.tolist() == [False, True]
    assert EOT(attack=PGD(threat=Linf(0.1))).delicate(state) is None

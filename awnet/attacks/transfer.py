"""Transfer: adversarial images of another network, the surrogate, shown to the model (Papernot et al., 2017,
https://arxiv.org/abs/1602.02697; Tables 6 and 7 of the AW-Net paper).

An attack that needs nothing of the model. Where it beats the attacks that see the gradient, those are held up by something
that is not robustness (Athalye, Carlini and Wagner, 2018, https://arxiv.org/abs/1802.00420).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Answer, Attack, Forward, perturb
from awnet.attacks.cw import cw_inf
from awnet.attacks.pgd import PGD, pgd_sat
from awnet.attacks.second_network import second_network
from awnet.config import setting
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, Labels


class TransferState(NamedTuple):
    """Where each example is: looked at as it is (0), as the surrogate's adversarial image (1), or done (2)."""

    x: Images
    y: Labels
    x_adv: Images
    step: Tensor


@setting
@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Attack the surrogate, then ask the model once. The passes of the surrogate are not counted.

    Args:
        attack: what is done to the surrogate; it goes to its last step, since an image that only just fools the surrogate
            rarely fools another network.
        surrogate: the name of a network (`awnet.attacks.second_network`). It normalises inside, as every network here.
    """

    attack: APGD | PGD
    surrogate: str

    stop_on_success = False
    queries = 2
    exact = True
    asks_another = True

    @property
    def threat(self) -> ThreatModel:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.attack.threat

    def within(self, threat: ThreatModel) -> Transfer:
        return replace(self, attack=replace(self.attack, threat=threat))

    def start(self, x: Images, target: Tensor, noise: Noise) -> TransferState:
        return TransferState(x, target, x, torch.zeros_like(target))

    def query(self, state: TransferState) -> Forward:
        return Forward(state.x_adv)

    def update(self, state: TransferState, answer: Answer, noise: Noise) -> TransferState:
        if bool((state.step > 0).all()):  # examples that take two steps each keep in step
            return state._replace(step=state.step + 1)
        attack = replace(self.attack, stop_on_success=False)
        x = state.x.contiguous()  # a network that uses .view cannot read channels last
        found = perturb(attack, second_network(self.surrogate, x.device), x, state.y, noise)
        return state._replace(x_adv=found, step=state.step + 1)

    def done(self, state: TransferState) -> Hits:
        return state.step >= 2

    def adversarial(self, state: TransferState) -> Images:
        return state.x_adv


def transferred(threat: ThreatModel, surrogate: str) -> dict[str, Transfer]:
    """PGD_sat and CW_inf on a surrogate, as in Tables 6 and 7 of the paper."""
    found = {"pgd-sat": pgd_sat(threat), "cw-inf": cw_inf(threat)}
    return {
        name: Transfer(attack=attack, surrogate=surrogate) for name, attack in found.items() if isinstance(attack, PGD)
    }

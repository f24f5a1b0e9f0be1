"""A suite: attacks that take turns, each only on the examples that withstood those before it.

What counts is whether any of them succeeds, as in AutoAttack (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690). The
definition is `Suite.__call__`; the engine comes to the same result without attacking anybody twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from awnet.attacks.attack import Attack, perturb, select, succeeds
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.inputs import check_fits, check_ids, checked
from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import device_of
from awnet.noise import Noise, fold
from awnet.threat_model import ThreatModel
from awnet.types import Images


@setting
@dataclass(frozen=True, kw_only=True)
class Suite:
    """Attacks in one threat model, in the order in which they are run.

    Args:
        members: pairs of a name and an attack; a name is given once.

    Raises:
        Mistake: no member, two of one name, or two threat models.
    """

    members: tuple[tuple[str, Attack], ...]

    def __post_init__(self) -> None:
        names = self.names
        threats = {attack.threat for attack in self.attacks}
        if not names or len(set(names)) < len(names) or len(threats) > 1:
            raise Mistake(
                "a suite needs at least one attack, each under a name of its own and all in one threat model, got "
                f"{', '.join(names) or 'none'} in {' and '.join(sorted(map(str, threats))) or 'none'}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the members, in order."""
        return tuple(name for name, _ in self.members)

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """The members, in order."""
        return tuple(attack for _, attack in self.members)

    @property
    def threat(self) -> ThreatModel:
        """What the attacker may do to an image, in every member."""
        return self.members[0][1].threat

    def within(self, threat: ThreatModel) -> Suite:
        """The same attacks in another threat model."""
        return replace(self, members=tuple((name, attack.within(threat)) for name, attack in self.members))

    def __call__(self, model: nn.Module, x: Images, y: Tensor, *, seed: int = 0, ids: Tensor | None = None) -> Images:
        """The suite as a plain function on one batch, like an attack's.

        An image that is misclassified as it is comes back unchanged; one that withstands every member comes back as the
        last one left it. Member k's random numbers follow fold(seed, k).

        Raises:
            Mistake: where images, labels, ids or the model are not what is expected.
        """
        batch, ids = checked(x, y), torch.arange(len(x)) if ids is None else ids
        check_ids(ids, len(x))
        check_fits(model, *batch)
        home, device = x.device, device_of(model, x.device)
        x, y, ids = batch.x.to(device), batch.y.to(device), ids.to(device)
        x_adv = x.clone()
        with frozen_for_attack(model), torch.no_grad():
            stands = model(x.clone()).argmax(1) == y
            for place, attack in enumerate(self.attacks):
                tried = perturb(attack, model, x, y, Noise(fold(seed, place), ids))
                x_adv = select(stands, tried, x_adv)
                stands = stands & ~succeeds(attack.threat, x, x_adv, model(x_adv.clone()), y)
        return x_adv.to(home)

"""Later runs of an example beside the one that it is in, where fewer examples are left than a batch has room for.

Most of the time of a suite goes to the few images that nothing breaks. Those meet every run of every attack, nine targets one
after the other, in batches of which ever less is taken. But runs need nothing of each other. So in the free slots scouts make
the next runs ahead, and when the example comes to a run that a scout has begun, it goes on from where that is. What an earlier
run finds comes first: then its scouts were in vain, and count for nothing. So what comes out is what comes out of one run after
the other, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from awnet.attacks.attack import Attack, Slots, put, select, take
from awnet.noise import Noise
from awnet.types import Hits

NEVER = torch.iinfo(torch.int64).max


class Scouts(NamedTuple):
    """Which slots make a run ahead, on the CPU.

    Attributes:
        run: which one, shape (slots,); -1 where the example itself is, or nobody.
        spent: its evaluations, how many of them asked for gradients, and confirmations, shape (slots, 3).
    """

    run: Tensor
    spent: Tensor

    @classmethod
    def none(cls, slots: int) -> Scouts:
        """Nobody does."""
        return cls(torch.full((slots,), -1), torch.zeros(slots, 3, dtype=torch.int64))

    @property
    def ahead(self) -> Hits:
        """Who does."""
        return self.run >= 0

    def active(self, slots: Slots, slot_of: Tensor) -> Hits:
        """Who is to be asked about: all that are taken, but scouts at the end of their run."""
        taken = slot_of >= 0
        return taken & ~(self.ahead & slots.finished.cpu()) if self.ahead.any() else taken

    def last(self, slot_of: Tensor) -> Tensor:
        """The run at whose end each slot waits: a scout for its example, and that for the scout of the next run."""
        next_ahead = self._of_each(slot_of, "amin", NEVER)
        return torch.where(self.ahead, self.run, torch.where(next_ahead < NEVER, next_ahead - 1, NEVER))

    def furthest(self, slot_of: Tensor) -> Tensor:
        """The last run of the example in each slot that a scout makes; -1 where none does."""
        return self._of_each(slot_of, "amax", -1)

    def _of_each(self, slot_of: Tensor, which: str, none: int) -> Tensor:
        of = slot_of + 1  # 0: nobody's
        runs = torch.full((int(of.max()) + 1,), none)
        return runs.scatter_reduce(0, of[self.ahead], self.run[self.ahead], which)[of]

    def without(self, gone: Hits) -> Scouts:
        """Those that are left when some slots are empty."""
        return Scouts(self.run.masked_fill(gone, -1), self.spent * ~gone[:, None])


def send(
    attack: Attack, slots: Slots, slot_of: Tensor, scouts: Scouts, roomy: int, noise: Callable[[Tensor], Noise]
) -> tuple[Slots, Tensor, Scouts]:
    """Scouts in free slots: for each example its next run, then for each the one after that.

    Args:
        attack: one that is `scouted`.
        slots, slot_of, scouts: who is where, and the examples of the slots.
        roomy: how many a batch has room for.
        noise: the random numbers of some examples.

    Returns:
        Slots, the examples of the slots, and scouts.
    """
    free = (slot_of < 0).nonzero()[:, 0][: max(roomy - int(scouts.active(slots, slot_of).sum()), 0)]
    if not len(free):
        return slots, slot_of, scouts
    own = ((slot_of >= 0) & ~scouts.ahead).nonzero()[:, 0]
    runs = torch.stack([slots.state.run, attack.runs(slots.state)]).cpu()
    wanted: list[tuple[int, int, int]] = []  # how far ahead, the example's slot, the run
    furthest = scouts.furthest(slot_of)[own]
    for slot, known, at, end in zip(own.tolist(), furthest.tolist(), *runs[:, own].tolist(), strict=True):
        wanted += [(run - at, slot, run) for run in range(max(at, known) + 1, end) if at >= 0]
    wanted = sorted(wanted)[: len(free)]
    if not wanted:
        return slots, slot_of, scouts
    free, device = free[: len(wanted)], slots.finished.device
    of, run = (torch.tensor(column) for column in list(zip(*wanted, strict=True))[1:])
    several = torch.arange(max(len(of), 2)).clamp(max=len(of) - 1)  # sums over one row alone may be split among threads
    sent = take(of[several].to(device), slots)
    sent = sent._replace(state=attack.at_run(sent.state, run[several].to(device), noise(slot_of[of[several]])))
    slots = put(free.to(device), take(torch.arange(len(of), device=device), sent), slots)
    return slots, slot_of.index_copy(0, free, slot_of[of]), scouts._replace(run=scouts.run.index_copy(0, free, run))


def meet(attack: Attack, slots: Slots, slot_of: Tensor, scouts: Scouts) -> tuple[Slots, Tensor, Scouts]:
    """Examples that have come to a run of which a scout is, or has been, ahead go on from where that is, which leaves.

    Args and returns are as of `send`.
    """
    while scouts.ahead.any():
        finished, run = torch.stack([slots.finished.long(), slots.state.run]).cpu()
        waits = (slot_of >= 0) & ~scouts.ahead & (finished == 0)
        pairs = waits[:, None] & scouts.ahead & (slot_of[:, None] == slot_of) & (run[:, None] == scouts.run)
        own, scout = pairs.nonzero().unbind(1)
        if not len(own):
            break
        here, there = own.to(slots.finished.device), scout.to(slots.finished.device)
        slots = put(here, _joined(attack, take(here, slots), take(there, slots)), slots)
        scouts = scouts._replace(spent=scouts.spent.index_add(0, own, scouts.spent[scout]))
        slot_of = slot_of.index_fill(0, scout, -1)
        scouts = scouts.without(slot_of < 0)
    return slots, slot_of, scouts


def _joined(attack: Attack, before: Slots, after: Slots) -> Slots:
    """Slots of examples at the beginning of a run, which a scout has made so far."""
    state = attack.joined(before.state, after.state)
    done = attack.done(state) & ~after.hit
    return Slots(
        state=state,
        x=before.x,
        target=before.target,
        finished=done | after.hit,
        x_adv=select(after.hit, after.x_adv, select(done, attack.adversarial(state), before.x_adv)),
        lost=before.lost | after.lost,
        hit=after.hit,
    )

"""The journal of an evaluation under way: where the attack that is being run is, so that another process can go on.

A folder beside the record, written whole each minute: the sweep (`awnet.attacks.sweep`) and whose it is. What it gives
back is the very state, memory layout included, since a sum over pixels depends on their order in its last bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awnet.attacks.attack import by_channels
from awnet.attacks.sweep import Sweep
from awnet.checkpoint import read_state, save_state
from awnet.errors import Mistake
from awnet.folders import remove_folder, replace_folder, whole_folder


class Journal:
    """Where one attack is.

    Args:
        folder: the journal's.
        of: what is attacked, and with which attack, as JSON; what a journal of something else says is passed over.
        seconds: between two times of writing.
    """

    def __init__(self, folder: Path, of: Any, seconds: float) -> None:
        self.folder, self.of = folder, of
        self._seconds, self._began = seconds, time.monotonic()
        self._written = self._began

    def recall(self, begin: Callable[[int], Sweep]) -> Sweep:
        """The sweep that was written, or the beginning.

        Args:
            begin: `Engine.begin` for a member of the suite, which also says what a state consists of; 0 is the first.

        Raises:
            Mistake: the journal is damaged.
        """
        if not (whole_folder(self.folder) / "training.json").exists():
            return begin(0)
        state = read_state(self.folder)
        try:
            if state["of"] != self.of:
                return begin(0)
            beginning = begin(state["member"])
            saved = _like(beginning._replace(x_adv=beginning.x_adv[:0]), state["sweep"])
            self._began -= state["seconds"]
            return saved._replace(x_adv=beginning.x_adv.index_put((saved.left,), saved.x_adv))
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            text = f"the journal {self.folder} is damaged ({error}); remove it to begin its attack anew"
            raise Mistake(text) from None

    @property
    def spent(self) -> float:
        """Seconds of work on this attack, those of earlier processes included."""
        return time.monotonic() - self._began

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written > self._seconds

    def write(self, sweep: Sweep) -> None:
        """Keep where the attack is.

        Raises:
            Mistake: where the disk is full or may not be written; the journal before is kept.
        """
        found = sweep._replace(x_adv=sweep.x_adv[sweep.left])  # the others are zeros
        state = {"of": self.of, "seconds": self.spent, "member": int(sweep.member), "sweep": _plain(found)}
        replace_folder(self.folder, lambda place: save_state(place, state))
        self._written = time.monotonic()

    def close(self) -> None:
        """The attack has come to its end, and is in the record."""
        remove_folder(self.folder)


def _plain(value: Any) -> Any:
    """A NamedTuple of tensors as lists; each tensor with whether its memory runs over channels first."""
    return [value, by_channels(value)] if isinstance(value, Tensor) else [_plain(part) for part in value]


def _like(template: Any, saved: Any) -> Any:
    """What `_plain` was given, as NamedTuples like the template's."""
    if not isinstance(template, Tensor):
        return type(template)(*(_like(a, b) for a, b in zip(template, saved, strict=True)))
    tensor, by_channels = saved
    if tensor.dtype != template.dtype or tensor.shape[1:] != template.shape[1:]:
        raise ValueError(f"{tensor.dtype} of shape {tuple(tensor.shape)} where {template.dtype} was expected")
    layout = torch.channels_last if by_channels else torch.contiguous_format
    return tensor.to(template.device).contiguous(memory_format=layout)

"""A network as a search sees it: lean, compiled, in batches that change no bit, and exactly where that is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from awnet.attacks.attack import Query, Steering
from awnet.attacks.compiled import Compiled
from awnet.attacks.lean import Convolution, Lean
from awnet.attacks.shapes import ROOMY, Shapes
from awnet.models.model import device_of
from awnet.types import Images, Logits

Warn = Callable[[str], None]


def warn(sentence: str) -> None:
    """Say that a run goes on otherwise than it was asked to."""
    warnings.warn(sentence, RuntimeWarning, stacklevel=3)


class Network:
    """A model as a search sees it.

    Args:
        model: frozen for the attack.
        batch_size: the largest batch that it is given.
        convolutions: what to make lean of it; None: it is always seen as it is.
        channels_last: the memory layout of what the search computes.
        compiled: whether to compile it.
        warn: told what does not work.
    """

    def __init__(
        self,
        model: nn.Module,
        batch_size: int,
        convolutions: list[Convolution] | None = None,
        *,
        channels_last: bool = True,
        compiled: bool = False,
        warn: Warn = warn,
    ) -> None:
        self.model, self.warn = model, warn
        self._roomy = ROOMY if device_of(model).type == "cpu" else batch_size
        self.shapes = Shapes(batch_size, shrinks=not compiled, roomy=self._roomy)
        self._compiled = Compiled(model) if compiled else None
        self._tried: set[tuple[str, bool]] = set()
        lean = partial(Lean, channels_last=channels_last)
        self._fast = None if convolutions is None else lean(convolutions, torch.bfloat16)
        folded = convolutions is not None and any(conv.norm is not None for conv in convolutions)
        self._exact = lean(convolutions, torch.float32) if convolutions and folded else None

    def differs(self, exact: bool) -> bool:
        """Whether what it says may differ from what the model says."""
        return self._compiled is not None or (self._exact if exact else self._fast) is not None

    def searched(self, query: Query) -> Callable[[Images], Logits]:
        """What such a query is put to: the model, or the compiled one, which knows of no decision to steer."""
        return self.model if self._compiled is None or isinstance(query, Steering) else self._compiled

    def try_compiled(self, kind: tuple[str, bool], ask: Callable[[int], object]) -> None:
        """Compile for a kind of question, by asking it, or never again."""
        if self._compiled is None or kind in self._tried:
            return
        try:
            ask(self.shapes.largest)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler can raise anything; what is the model's fault will be met again
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.warn(f"the network does not compile ({said}); it is searched as it is")
            self._compiled, self.shapes = None, Shapes(self.shapes.largest, roomy=self._roomy)
        self._tried.add(kind)

    @contextmanager
    def seen(self, exact: bool) -> Iterator[None]:
        """In float32 or not, while it lasts."""
        lean = self._exact if exact else self._fast
        if lean is None:
            yield
            return
        with lean, torch.autocast(device_of(self.model).type, torch.bfloat16, enabled=not exact):
            yield

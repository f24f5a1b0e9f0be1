"""What the library knows of a model: how one is described, made, and asked.

Any `nn.Module` from [0, 1] images to logits can be trained, attacked and judged. The networks of this package are
described by frozen `Architecture` settings, so that a checkpoint can say what to build before its weights are read. A
model that also tells attacked images from clean ones offers `Detecting`, one whose filters change with the image
`Modulating` (and `Holding` where they can be held still), one whose decision of that kind can be attacked `Deciding`, one
with thresholds to be set `Calibrating`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from math import inf, isfinite
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from awnet.errors import Mistake
from awnet.noise import fold
from awnet.registry import Registry
from awnet.types import Hits, Images, Logits, PerExample


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """A network before it has a number of classes and weights.

    Args:
        mean, std: of each channel, for networks that normalise their input; the first layer then does. Empty: none.

    Raises:
        Mistake: where a value is out of its range.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (all(map(isfinite, self.mean)) and all(0 < s < inf for s in self.std)):
            raise Mistake(f"normalisation needs finite means and positive stds, got {self.mean} and {self.std}")

    @abstractmethod
    def build(self, *, classes: int, channels: int = 3) -> nn.Module:
        """The network with random weights from torch's global generator; see `create` for a seeded one."""

    @abstractmethod
    def narrow(self) -> Architecture:
        """The same network a few channels wide, for tests."""

    def normalize(self, channels: int) -> nn.Module:
        """The first layer of every network."""
        return Normalize(self.mean, self.std, channels) if self.mean or self.std else nn.Identity()


MODELS: Registry[Architecture] = Registry("model")
LARGEST = 10**9  # weights; beyond every classifier of small images, so that a slip of the pen takes no machine down


def create(architecture: str | Architecture, *, classes: int, channels: int = 3, seed: int = 0) -> nn.Module:
    """A network with seeded random weights; the global generator is left as it was.

    Args:
        architecture: settings, or the name of an entry of `MODELS`.
        classes: at least 2.
        channels: of the images.
        seed: of the weights.

    Raises:
        Mistake: where there is no such entry, or the network cannot be built or would not fit into memory.
    """
    if classes < 2:
        raise Mistake(f"a classifier needs at least 2 classes, got {classes}")
    settings = MODELS[architecture] if isinstance(architecture, str) else architecture
    outline(settings, classes=classes, channels=channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(seed) % 2**63)
        return settings.build(classes=classes, channels=channels)


def outline(architecture: Architecture, *, classes: int, channels: int) -> dict[str, Tensor]:
    """The state of a network on the meta device: names, shapes and types, for which no memory is taken.

    Raises:
        Mistake: where no such network can be built, or it would have more than `LARGEST` numbers.
    """
    what = f"the network described by {type(architecture).__name__} with {classes} classes"
    try:
        with torch.device("meta"):
            state = architecture.build(classes=classes, channels=channels).state_dict()
    except (RuntimeError, TypeError, OverflowError):  # sizes beyond those that torch can count
        raise Mistake(f"{what} is too large to be built; make it narrower") from None
    size = sum(t.numel() for t in state.values())
    if size > LARGEST:
        raise Mistake(f"{what} has {size:.3g} weights, expected at most {LARGEST:.0e}; make it narrower")
    return state


class Normalize(nn.Module):
    """(x - mean) / std a channel: the first layer of a network, never a step outside it, so that eps means pixels."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
        super().__init__()
        if not len(mean) == len(std) == channels:
            raise Mistake(
                f"normalisation needs a mean and std for each of {channels} channels, got {len(mean)} and {len(std)}"
            )
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Images) -> Images:
        return (x - self.get_buffer("mean")) / self.get_buffer("std")


@runtime_checkable
class Detecting(Protocol):
    """A model that says, beside the class, how likely the image is clean."""

    def detect(self, x: Images) -> tuple[Logits, PerExample]:
        """Logits, and the probability in [0, 1] that each image has not been attacked."""
        ...


@runtime_checkable
class Calibrating(Protocol):
    """A model with something that is set, after training, on images that it was not trained on."""

    def calibrate(self, x: Images) -> None:
        """Set it, in eval mode, by clean images."""
        ...


@runtime_checkable
class Modulating(Protocol):
    """A model that scales its filters anew for each image."""

    def signals(self, x: Images) -> Mapping[str, Tensor]:
        """The factors of each layer's filters, shape (b, filters), in the order of the layers, by a name for people.

        Empty where the model, as its knob is turned, scales none.
        """
        ...


@runtime_checkable
class Holding(Modulating, Protocol):
    """A model that modulates, and can be asked what it would say if its filters were scaled otherwise."""

    def hold(self, x: Images, signals: Mapping[str, Tensor]) -> Logits:
        """Logits with these factors in place of the model's own, differentiable in x; all else is as the model has it.

        Args:
            x: the images in [0, 1], shape (b, c, h, w).
            signals: by names of `signals`, each of shape (filters,) for all images, or (b, filters); other layers keep
                their own.
        """
        ...


@runtime_checkable
class Averaging(Modulating, Protocol):
    """A model that modulates, and can take a mean of its factors as one more frozen form."""

    def averaged(self, means: Mapping[str, Tensor]) -> nn.Module:
        """The same model, which shares its weights and says the same, but offers the form "averaged" (`Deciding`).

        Args:
            means: each layer's mean factors, shape (filters,), by the names of `signals`.
        """
        ...


class Decision(NamedTuple):
    """What a model that decides says of a batch.

    Attributes:
        logits: of the classes.
        log_odds: of being clean, as the decision goes by them (positive: more likely clean), before they are squashed,
            capped or compared with zero, so that they have a slope however sure the model is.
    """

    logits: Logits
    log_odds: PerExample


@runtime_checkable
class Deciding(Protocol):
    """A model that decides for each image how it is to be classified, and offers an attacker what a careful one would build.

    A user's own detector with two networks behind it, for instance:

        forms = ("clean", "adversarial")

        def decide(self, x, seen, form, forced):
            log_odds = self.detector(seen)
            p = torch.where(forced, float(form == "clean"), log_odds.sigmoid())[:, None]
            return Decision(p * self.accurate(x) + (1 - p) * self.robust(x), log_odds)
    """

    @property
    def forms(self) -> tuple[str, ...]:
        """Names of the frozen forms: the same weights with something else in place of the decision, or of its gradient."""
        ...

    def decide(self, x: Images, seen: Images, form: str, forced: Hits) -> Decision:
        """Logits and log-odds, both differentiable.

        Args:
            x: the images in [0, 1] that are classified, shape (b, c, h, w).
            seen: the images that the decision is made on, mostly x itself; its log-odds are returned.
            form: one of `forms`, or "" where nobody is forced.
            forced: which images are classified in that form, whatever is decided. For the others, where seen is x, the
                logits are those of the model.
        """
        ...


def forms_of(model: nn.Module) -> tuple[str, ...]:
    """The names of a model's frozen forms; none for one that does not decide."""
    return tuple(model.forms) if isinstance(model, Deciding) else ()


def judge(model: nn.Module, x: Images) -> tuple[Logits, PerExample]:
    """Logits and P(clean) of any model; NaN where the model does not tell."""
    if isinstance(model, Detecting):
        return model.detect(x)
    logits = model(x)
    return logits, torch.full((len(x),), float("nan"), device=x.device)


def device_of(model: nn.Module, otherwise: torch.device | str = "cpu") -> torch.device:
    """Where a network is: with its first parameter or buffer, or `otherwise` where it has neither."""
    return next((t.device for t in chain(model.parameters(), model.buffers())), torch.device(otherwise))


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the class of a network, its weights and its statistics: the same for the same network, wherever it is.

    Settings that are no tensors, such as AW-Net's knob, are not in it.
    """
    digest = hashlib.sha256(f"{type(model).__module__}.{type(model).__qualname__}".encode())
    for name, t in model.state_dict().items():
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def parameter_count(model: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(p.numel() for p in model.parameters())

"""A network as a search may see it: batch norms folded into convolutions, and bfloat16 where that is enough.

In eval mode a batch norm after a convolution is part of it: gamma (K * x - mu) / sigma + beta = (gamma K / sigma) * x + const,
and its pass over memory, there and back, is saved (Jacob et al., 2018, https://arxiv.org/abs/1712.05877, Eq. 14). In bfloat16
convolutions take half the time or less; but it resolves no more than 1/256 near 1, so the layers that the image enters, and
the linear ones of features without places, which tell classes apart, are computed in float32.

The model is neither changed nor copied: while a `Lean` is entered, its calls of convolutions and batch norms are answered
with other weights. How the calls belong together is learnt from watching one forward pass, so a network may be written in
whatever way. What a lean network says is good for a search only: verdicts are the model's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from awnet.attacks.attack import by_channels
from awnet.attacks.inputs import finite
from awnet.types import Images

ROWS = 16  # of a matrix product, from which on no row's bits depend on their number
ROUNDING = 1e-3  # of the logits' spread, by which a folded network may differ from itself


class Norm(NamedTuple):
    """What a batch norm in eval mode does."""

    mean: Tensor
    var: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


class Convolution(NamedTuple):
    """A convolution of the network, and the batch norm that alone hears its answer, if there is one."""

    weight: Tensor
    bias: Tensor | None
    norm: Norm | None
    enters: bool  # whether it sees the image before any other layer did


class Watch(TorchFunctionMode):
    """Notes how calls of convolutions and batch norms follow each other."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[int] = Counter()  # of each weight and of each running mean
        self.convolutions: dict[int, Convolution] = {}
        self._answers: dict[int, int] = {}  # a convolution's answer, and its weight
        self._heard: Counter[int] = Counter()  # how many calls an answer went into
        self._norms: dict[int, tuple[int, Norm]] = {}  # of a batch norm's mean: the answer that it heard
        self._features: set[int] = set()  # what some layer has answered, or what was made of it
        self._kept: list[Tensor] = []  # so that no id is given twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        answer = func(*args, **kwargs)
        made = list(_tensors(answer))
        if not made:  # a question about a shape
            return answer
        given = list(_tensors((args, tuple(kwargs.values()))))
        self._heard.update({id(t) for t in given} & self._answers.keys())
        after = any(id(t) in self._features for t in given)
        if func in (F.conv2d, F.linear):
            weight = _conv(*args, **kwargs)[1]
            self.calls[id(weight)] += 1
            if func is F.conv2d:
                bias = _conv(*args, **kwargs)[2]
                self.convolutions[id(weight)] = Convolution(weight, bias, None, not after)
                self._answers[id(answer)] = id(weight)
            after = True
        elif func is F.batch_norm:
            x, norm = _norm(*args, **kwargs)
            if norm is not None:
                self.calls[id(norm.mean)] += 1
                self._norms[id(norm.mean)] = id(x), norm
        if after:
            self._features |= {id(t) for t in made}
        self._kept += made
        return answer

    def found(self) -> list[Convolution]:
        """The convolutions; those that are called twice without their batch norms, and without being entered first."""
        heard_by = {answer: norm for answer, norm in self._norms.values() if self.calls[id(norm.mean)] == 1}
        found = []
        for answer, weight in self._answers.items():
            alone = self.calls[weight] == 1 and self._heard[answer] == 1
            found.append(self.convolutions[weight]._replace(norm=heard_by.get(answer) if alone else None))
        return found


class Lean(TorchFunctionMode):
    """While it is entered, the network is lean.

    Args:
        convolutions: what is known of the network.
        dtype: of the layers inside, float32 or bfloat16.
        channels_last: the memory layout of its features; a network that uses .view reads the usual one alone.
    """

    def __init__(self, convolutions: list[Convolution], dtype: torch.dtype, *, channels_last: bool = True) -> None:
        super().__init__()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.dtype = dtype
        self._weights: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._entered = {id(conv.weight) for conv in convolutions if conv.enters}
        self._folded = {id(conv.norm.mean) for conv in convolutions if conv.norm is not None}
        self._kept = convolutions  # so that ids stay true
        with torch.no_grad():
            for conv in convolutions:
                weight, bias = _fold(conv)
                kind = conv.weight.dtype if conv.enters else dtype
                weight = weight.to(kind, memory_format=layout)
                self._weights[id(conv.weight)] = weight, None if bias is None else bias.to(kind)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d:
            x, weight, _, rest, more = _conv(*args, **kwargs)
            if id(weight) in self._weights:
                ours, bias = self._weights[id(weight)]
                if id(weight) in self._entered:
                    with torch.autocast(x.device.type, enabled=False):
                        return F.conv2d(x.to(ours.dtype), ours, bias, *rest, **more).to(self.dtype)
                return F.conv2d(x.to(ours.dtype), ours, bias, *rest, **more)
        elif func is F.batch_norm:
            x, norm = _norm(*args, **kwargs)
            if norm is not None and id(norm.mean) in self._folded:
                return x
        elif func is F.linear and (linear := _linear(*args, **kwargs))[0].ndim == 2:
            x, weight, bias = linear
            with torch.autocast(x.device.type, enabled=False):
                return _many(func, x.to(weight.dtype), weight, bias)
        elif func is Tensor.mean and not kwargs and args[1:] == ((2, 3),) and by_channels(args[0]):
            # the gradient of a mean comes back with images by rows, and all that meets it is slow
            return F.avg_pool2d(args[0], args[0].shape[2:]).flatten(1)
        elif func is Tensor.add_ and not kwargs and _is_shift(*args):
            # on a CPU ten times as slow as with a shift of full size
            return func(args[0], args[1].expand_as(args[0]).contiguous(memory_format=torch.channels_last))
        return func(*args, **kwargs)


def convolutions_of(model: nn.Module, x: Images, *, channels_last: bool = True) -> list[Convolution]:
    """What there is to fold in a network in eval mode; nothing of it where the folded network says something else.

    Args:
        model: as it is attacked.
        x: some images; of those that it answers with NaN or infinity no more is asked.
        channels_last: as of `Lean`.
    """
    with torch.no_grad():
        before = model(x.clone())
        with Watch() as watch:
            again = model(x.clone())
        found = watch.found()
        with Lean(found, torch.float32, channels_last=channels_last):
            folded = model(x.clone())
    answered = finite(before)
    if not answered.any():
        return []
    before, again, folded = (t[answered] for t in (before, again, folded))
    spread = before.std().clamp(min=1e-6)
    same = torch.equal(before, again) and bool(((folded - before).abs() <= ROUNDING * spread).all())
    return found if same else []


# Arguments by the names that torch gives them, as a network may pass them so.


def _conv(input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **more: Any) -> tuple[Any, ...]:
    return input, weight, bias, rest, more


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias


def _many(linear: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The linear layer, on a CPU of enough rows: products of few are computed in another order, and so round otherwise."""
    missing = ROWS - len(x) if x.device.type == "cpu" else 0
    return linear(F.pad(x, (0, 0, 0, missing)), weight, bias)[: len(x)] if missing > 0 else linear(x, weight, bias)


def _norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Norm | None]:
    if training or running_mean is None or running_var is None:
        return input, None
    return input, Norm(running_mean, running_var, weight, bias, eps)


def _fold(conv: Convolution) -> tuple[Tensor, Tensor | None]:
    if conv.norm is None:
        return conv.weight, conv.bias
    norm = conv.norm
    scale = torch.rsqrt(norm.var.double() + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -scale * (norm.mean if conv.bias is None else norm.mean - conv.bias)
    shift = shift if norm.bias is None else shift + norm.bias
    dtype = conv.weight.dtype
    return (conv.weight.double() * scale[:, None, None, None]).to(dtype), shift.to(dtype)


def _is_shift(x: Tensor, shift: Any) -> bool:
    """Whether each channel of some features in bfloat16 is shifted by a number of its own, on a CPU."""
    if not isinstance(shift, Tensor) or x.dtype != torch.bfloat16 or x.device.type != "cpu" or not by_channels(x):
        return False
    return shift.ndim >= 3 and shift.shape[-2:] == (1, 1)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)

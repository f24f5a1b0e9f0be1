"""All that code which was lent a network could have left behind in it, or in torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def traces(model: nn.Module) -> dict[str, Any]:
    """To be compared before and after; what was edited in place and put back shows too."""
    found: dict[str, Any] = {
        "rng": _bytes(torch.get_rng_state()),
        "grad": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "inference": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": torch.get_default_dtype(),
    }
    for name, module in model.named_modules():
        found[f"{name} mode"] = module.training
        found[f"{name} fields"] = {key: _field(value) for key, value in vars(module).items() if key != "training"}
        found[f"{name} hooks"] = [
            list(hooks.values()) for field, hooks in vars(module).items() if field.endswith("_hooks")
        ]
    plain = [(key, value) for key, value in vars(model).items() if isinstance(value, Tensor)]
    for name, t in [*model.named_parameters(), *model.named_buffers(), *plain]:
        found[name] = (id(t), _bytes(t), t.requires_grad, t._version)
        found[f"{name}.grad"] = None if t.grad is None else (id(t.grad), _bytes(t.grad), t.grad._version)
    return found


def _field(value: object) -> object:
    """A number or a word as it is, as it may be a count of calls; of anything else its class."""
    return repr(value) if isinstance(value, bool | int | float | str) else type(value)


def _bytes(t: Tensor) -> bytes:
    return t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()

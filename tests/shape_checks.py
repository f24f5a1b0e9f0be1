"""The types of awnet/types.py, checked at every call of the package while tests run (jaxtyping with beartype).

The package imports its annotations from `__future__`, so jaxtyping sees strings: it checks those that can be evaluated
when the function is defined, and takes one that names something defined later in its file (or imported for type checkers
only) as `Any`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from beartype import BeartypeConf, beartype
from beartype.door import is_bearable
from beartype.roar import BeartypeDecorHintException

CONF = BeartypeConf(is_pep484_tower=True)  # 1 is a float


def typecheck(function: Callable[..., Any]) -> Callable[..., Any]:
    """`beartype`, made gentle in two places; jaxtyping calls it for each function and dataclass of the package."""
    function.__annotations__ = {name: _checkable(hint) for name, hint in function.__annotations__.items()}
    checked = beartype(conf=CONF)(function)

    @functools.wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        # torch.compile would trace into the check, where its stand-ins for tensors fail
        return (function if torch.compiler.is_compiling() else checked)(*args, **kwargs)

    return check


def _checkable(hint: Any) -> Any:
    """The hint, or `Any` for what cannot be checked at run time (`Self`, a protocol that is not runtime_checkable)."""
    try:
        is_bearable(None, hint, conf=CONF)
    except BeartypeDecorHintException:
        return Any
    return hint

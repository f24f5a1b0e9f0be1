"""The types of awnet/types.py, checked while tests run (jaxtyping with beartype).

A check costs more than many a function. Of each function a test checks the first calls and then one of so many: what an
attack does a thousand times is of the same shapes the thousandth time. AWNET_CHECK_ALL=1 checks every call. A function inside
of another one is made anew at each call of that: its check, which is slow to make, is made where it is due.

The package imports its annotations from `__future__`, so jaxtyping sees strings: it checks those that can be evaluated when
the function is first called, and takes one that names something imported for type checkers only as `Any`.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from types import CodeType
from typing import Any
from weakref import WeakSet

import jaxtyping
import torch
from beartype import BeartypeConf, beartype
from beartype.door import is_bearable
from beartype.roar import BeartypeDecorHintException

CONF = BeartypeConf(is_pep484_tower=True)  # 1 is a float
FIRST, THEN = 8, 32  # so many calls of a function are checked in each test, and later each of so many
ALL = bool(os.environ.get("AWNET_CHECK_ALL"))

calls: Counter[CodeType] = Counter()  # of the test that runs
spared: WeakSet[Callable[..., Any]] = WeakSet()  # the functions that are checked at some of their calls
_jaxtyped = jaxtyping.jaxtyped


def install() -> None:
    """Check the package, which nothing may have imported yet."""
    jaxtyping.jaxtyped = sparing
    jaxtyping.install_import_hook("awnet", "shape_checks.typecheck")


def sparing(*, typechecker: Any) -> Callable[[Any], Any]:
    """`jaxtyped`, on some of the calls."""

    def decorate(what: Any) -> Any:
        if isinstance(what, type) and what.__init__ in spared:  # it is checked, after what a setting says of it
            return what
        if ALL or isinstance(what, type):
            return _jaxtyped(typechecker=typechecker)(what)
        checked: Callable[..., Any] | None = None

        @functools.wraps(what)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal checked
            if torch.compiler.is_compiling():
                return what(*args, **kwargs)
            calls[what.__code__] += 1
            if calls[what.__code__] > FIRST and calls[what.__code__] % THEN:
                return what(*args, **kwargs)
            checked = checked or _jaxtyped(typechecker=typechecker)(what)
            return checked(*args, **kwargs)

        spared.add(call)
        return call

    return decorate


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

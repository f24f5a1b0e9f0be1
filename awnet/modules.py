"""A user's own network by name: `package.module:attribute`, or `timm:name` where timm is installed."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from awnet.errors import Mistake

NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.\-/]*")


def is_module(name: str | Path) -> bool:
    """Whether this names an attribute of a module, and not a folder."""
    return bool(NAMED.fullmatch(str(name))) and not Path(name).exists()


def load_module(name: str, device: str | torch.device) -> Any:
    """The network: the attribute, or what it returns when it is called without arguments.

    Raises:
        Mistake: no such module or attribute, one that raises, or anything but an `nn.Module`.
    """
    home, _, attribute = name.partition(":")
    if home == "timm":
        return _timm(attribute).to(device)
    with _here():
        made = _made(home, attribute, name)
    if any(t.is_meta for t in (*made.parameters(), *made.buffers())):
        raise Mistake(
            f"{name} has tensors without numbers (on the meta device); load its weights, or make it on {device}"
        )
    return made.to(device)


def _made(home: str, attribute: str, name: str) -> Any:
    from torch import nn

    found: Any = _imported(home)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise Mistake(
                f"{home} has no {attribute}; expected an nn.Module, or a function without arguments that returns one"
            )
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise Mistake(f"{name} is a {type(found).__name__}, expected an nn.Module or a function that returns one")
        try:
            found = found()
        except Exception as error:  # a user's code can raise anything
            raise Mistake(f"{name}() raises {_said(error)}; it is called without arguments") from None
    if not isinstance(found, nn.Module):
        raise Mistake(f"{name}() returns a {type(found).__name__}, expected an nn.Module")
    return found


def _imported(home: str) -> Any:
    try:
        return importlib.import_module(home)
    except Exception as error:  # a user's code can raise anything
        raise Mistake(f"importing {home} (in {Path.cwd()}) raises {_said(error)}") from None


@contextmanager
def _here() -> Iterator[None]:
    """Modules are sought where the command was typed first, as `python -m` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _timm(name: str) -> Any:
    """A pretrained network of timm, with its normalisation as the first layer."""
    from torch import nn

    from awnet.models.model import Normalize

    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise Mistake(f"timm:{name} needs timm, which is not installed; pip install timm") from None
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # an unknown name, no network, no such weights
        raise Mistake(f"timm cannot make {name}: {_said(error)}") from None
    about = model.pretrained_cfg
    return nn.Sequential(Normalize(tuple(about["mean"]), tuple(about["std"]), len(about["mean"])), model)


def _said(error: Exception) -> str:
    text = (str(error).strip() or "without a word").splitlines()[0]
    return f"{type(error).__name__}: {text}"

"""What is known of an attack by its name: how strong its kind is by design, and whether it knows of a router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What is weaker by design than each kind of attack, going by the first word of its name. Kinds that find different
# things (cross-entropy and margin, FAB and PGD) are not compared.
WEAKER = {"noise": set[str](), "square": {"noise"}, "fgsm": {"noise"}}
WEAKER |= {kind: {"noise", "fgsm", "square"} for kind in ("pgd", "cw")}
WEAKER |= {"fab": set(), "apgd": WEAKER["pgd"] | {"pgd"}}
WEAKER |= {"autoattack": WEAKER.keys() - {"autoattack"}}
FEEBLE = {"noise", "square", "fgsm"}
ALIASES = {"auto": "autoattack", "aa": "autoattack"}
BLIND = {*WEAKER, "transfer", "deepsloth", "deep"}  # they do not know of a router,
AWARE = ("router", "adaptive", "type", "gate", "branch", "signal", "joint")  # unless a word of the name says so


def kind(attack: str) -> str:
    """The kind of an attack, a key of `WEAKER` where its design is known here."""
    first = attack.lower().split("-")[0]
    return ALIASES.get(first, first)


def knows_the_router(attack: str) -> bool:
    """Whether an attack is none of the usual ones, going by its name."""
    return kind(attack) not in BLIND or any(word in attack.lower() for word in AWARE)


def kinds_within(settings: Any) -> set[str]:
    """Every kind of setting that is named in a result's settings: the attack's, its loss's, those of a suite's members."""
    if isinstance(settings, Mapping):
        own = {str(settings["kind"])} if "kind" in settings else set[str]()
        return own.union(*map(kinds_within, settings.values()))
    return set[str]().union(*map(kinds_within, settings)) if isinstance(settings, (list, tuple)) else set()

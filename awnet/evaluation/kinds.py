"""What is known of an attack by its name and its settings: how strong it is by design, and whether it knows of a router.

The order is that of Carlini et al. (2019, https://arxiv.org/abs/1902.06705, section 5.4): who iterates finds no less than who
takes one step, who sees the gradient no less than transferred images, Square or RayS, and all no less than noise. Little of it
is a theorem. Two parts are experience alone, and found otherwise they are a reason to look, not a fault (`USUALLY_WEAKER`):
transferred images of a network that is unlike this one may do less than noise of the same size; and FAB, which looks for the
nearest image, may fail in ways of its own and leave the rest of an evaluation sound. One part is not here: that transferred
images find no less than Square. How much they find says how like the surrogate is, and of a robust network Square mostly finds
more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What is weaker by design than each kind of attack, going by the first word of its name. Kinds that find different
# things (cross-entropy and margin, FAB and PGD) are not compared.
WEAKER = {"noise": set[str](), "square": {"noise"}, "fgsm": {"noise"}}
WEAKER |= {"transfer": set(), "rays": {"noise"}}
WEAKER |= {kind: {"noise", "fgsm", "square", "rays", "transfer"} for kind in ("pgd", "cw", "diversified")}
WEAKER |= {"fab": {"noise"}, "apgd": WEAKER["pgd"] | {"pgd"}}
WEAKER |= {"autoattack": WEAKER.keys() - {"autoattack", "diversified"}}
# What mostly is, by experience: see above.
USUALLY_WEAKER = {"transfer": {"noise"}, "fab": {"fgsm", "square", "rays", "transfer"}}
FEEBLE = {"noise", "square", "fgsm"}
ALIASES = {"auto": "autoattack", "aa": "autoattack", "standard": "autoattack"}
STEERING = {"Steer", "PaperAdaptive"}  # the attacks here that push the decision, as settings name them
# words by which other people's say that they do
AWARE = {"router", "adaptive", "type", "gate", "branch", "signal", "joint"}
FROM = " from "  # between the names of a transferred attack and of the network that it was made for


def kind(attack: str) -> str:
    """The kind of an attack, a key of `WEAKER` where its design is known here."""
    if FROM in attack:
        return "transfer"
    first = _words(attack)[0]
    return ALIASES.get(first, first)


def knows_the_router(attack: str, settings: Any = None) -> bool:
    """Whether an attack goes for the decision too: its settings or a word of its name say so.

    An attack of which neither says anything does not count as one: it must not silence a doubt.
    """
    return bool(STEERING & kinds_within(settings) or AWARE & {*_words(attack.split(FROM)[0])})


def _words(attack: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", attack.lower())


def kinds_within(settings: Any) -> set[str]:
    """Every kind of setting that is named in a result's settings: the attack's, its loss's, those of a suite's members."""
    if isinstance(settings, Mapping):
        own = {str(settings["kind"])} if "kind" in settings else set[str]()
        return own.union(*map(kinds_within, settings.values()))
    return set[str]().union(*map(kinds_within, settings)) if isinstance(settings, (list, tuple)) else set()

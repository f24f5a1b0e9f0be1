"""An attack with more effort: what it finds then and did not before says how far it was from having converged.

Carlini et al. (2019, https://arxiv.org/abs/1902.06705), section 5.4.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

from awnet.attacks.attack import Attack
from awnet.attacks.eot import EOT


def more(attack: Attack, *, steps: int = 1, runs: int = 1) -> Attack:
    """With so many times the steps, of each leg where there are two, and so many times the runs, where it has any."""
    if isinstance(attack, EOT):
        return replace(attack, attack=cast(Any, more(attack.attack, steps=steps, runs=runs)))
    setting = cast(Any, attack)  # every attack is a frozen dataclass
    own = {field.name: getattr(setting, field.name) for field in fields(setting)}
    times = {"steps": steps, "then": steps, "restarts": runs}
    return replace(setting, **{name: many * own[name] for name, many in times.items() if name in own})

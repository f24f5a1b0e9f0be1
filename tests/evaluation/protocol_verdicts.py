"""What each protocol is and does to a small fixed network: verdicts that must be the same in two years, on any machine.

    PYTHONPATH=tests:. python tests/evaluation/protocol_verdicts.py [PROTOCOL...]        # adds to tests/golden/protocols.json

The weights are in closed form, and only images count whose verdict is the same at 0.9, 1 and 1.1 times the radius: what is
broken there is broken by far, so that no rounding decides. Each attack of a suite is also looked at by itself: behind stronger
ones it could become weaker unseen.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awnet.attacks import Attack, Engine, Suite, TensorExamples
from awnet.config import to_json
from awnet.evaluation.protocol import attacks_of, protocols
from awnet.models.model import Decision
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel

GOLDEN = Path(__file__).parents[1] / "golden" / "protocols.json"
BALLS: tuple[ThreatModel, ...] = (Linf(0.008), L2(0.06), L1(0.2))
AROUND = (0.9, 1.0, 1.1)
N, CLASSES = 24, 5


def weights(*shape: int, seed: int) -> Tensor:
    """Uniform numbers in [-1, 1), counted and so the same everywhere, over the root of how many are summed."""
    number = Noise(seed, torch.arange(shape[0])).uniform(0, shape[1:])
    return (2 * number - 1) * (3 / number[0].numel()) ** 0.5


class Fixed(nn.Module):
    """Two convolutional networks and a smooth switch between them."""

    forms = ("clean", "adversarial")

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ParameterList([weights(8, 1, 3, 3, seed=seed) for seed in (1, 2)])
        self.second = nn.ParameterList([weights(12, 8, 3, 3, seed=seed) for seed in (3, 4)])
        self.last = nn.ParameterList([weights(CLASSES, 12 * 9, seed=seed) for seed in (5, 6)])
        self.switch = nn.Parameter(weights(1, 64, seed=7))

    def expert(self, x: Tensor, k: int) -> Tensor:
        z = nn.functional.conv2d(x - 0.5, self.first[k], padding=1).relu()
        z = nn.functional.conv2d(z, self.second[k], stride=2).relu()
        return 8 * nn.functional.linear(z.flatten(1), self.last[k])

    def forward(self, x: Tensor) -> Tensor:
        return self.decide(x, x, "", torch.zeros(len(x), dtype=torch.bool)).logits

    def decide(self, x: Tensor, seen: Tensor, form: str, forced: Tensor) -> Decision:
        log_odds = 6 * nn.functional.linear(seen.flatten(1) - 0.5, self.switch)[:, 0]
        p = torch.where(forced, float(form == "clean"), log_odds.sigmoid())[:, None]
        return Decision(p * self.expert(x, 0) + (1 - p) * self.expert(x, 1), log_odds)


def examples(model: nn.Module) -> TensorExamples:
    """Grey images of 8 pixels with coarse structure, and what the network says of them."""
    ids = torch.arange(N)
    coarse = Noise(11, ids).uniform(0, (1, 4, 4)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = 0.15 + 0.7 * (0.7 * coarse + 0.3 * Noise(12, ids).uniform(0, (1, 8, 8)))
    with torch.no_grad():
        return TensorExamples(x, model(x).argmax(1), ids)


def verdicts(attack: Attack | Suite, ids: Tensor) -> Tensor:
    """Which of these images stand."""
    model = Fixed()
    x, y, all_ids = examples(model)
    return Engine(batch_size=N).run(attack, model, TensorExamples(x[ids], y[ids], all_ids[ids])).correct


def named(protocol: str, threat: ThreatModel, ids: Tensor) -> str:
    """The verdicts of all attacks of a protocol in 16 hexadecimal digits."""
    found = [(name, verdicts(attack, ids).tolist()) for name, attack in attacks_of(protocol, threat).items()]
    return digest(found)


def settings(protocol: str, threat: ThreatModel) -> str:
    """Every setting of all attacks of a protocol in 16 hexadecimal digits."""
    return digest([(name, to_json(attack)) for name, attack in attacks_of(protocol, threat).items()])


def digest(found: list[tuple[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def clear(protocol: str, threat: ThreatModel) -> Tensor:
    """The images whose verdict is the same nearby."""
    everybody = torch.arange(N)
    around = [attacks_of(protocol, type(threat)(scale * threat.eps)).values() for scale in AROUND]
    of = torch.stack([torch.stack([verdicts(attack, everybody) for attack in attacks]) for attacks in around])
    return everybody[(of == of[1]).flatten(0, 1).all(0)]


def members(protocol: str, threat: ThreatModel) -> dict[str, Attack]:
    """The attacks of a protocol's suites by name."""
    suites = [suite for suite in attacks_of(protocol, threat).values() if isinstance(suite, Suite)]
    return {name: attack for suite in suites for name, attack in suite.members}


@cache
def marks(attack: Attack) -> str:
    """What an attack by itself does to each image: 1 stands, 0 does not, . is not the same nearby."""
    ball, everybody = attack.threat, torch.arange(N)
    of = [verdicts(attack.within(type(ball)(scale * ball.eps)), everybody).tolist() for scale in AROUND]
    return "".join(str(int(first)) if {first} == {*others} else "." for first, *others in zip(*of, strict=True))


def as_marked(attack: Attack, known: str) -> bool:
    """Whether an attack does to the images what it did."""
    stands = verdicts(attack, torch.arange(N)).tolist()
    return all(mark in (".", str(int(stand))) for mark, stand in zip(known, stands, strict=True))


def already(found: dict[str, Any], threat: ThreatModel) -> dict[Attack, str]:
    """The marks of attacks that are in other protocols too."""
    by_protocol = {protocol: by_threat.get(str(threat), {}).get("members", {}) for protocol, by_threat in found.items()}
    return {
        a: known[name] for p, known in by_protocol.items() for name, a in members(p, threat).items() if name in known
    }


def main(chosen: list[str]) -> None:
    """Add what is missing; no verdict is ever edited."""
    found: dict[str, Any] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for protocol, threat in product(chosen or protocols(), BALLS):
        entry = found.setdefault(protocol, {}).setdefault(str(threat), {})
        if "ids" not in entry:
            ids = clear(protocol, threat)
            entry["ids"] = ids.tolist()
            entry["stand"] = [int(verdicts(attack, ids).sum()) for attack in attacks_of(protocol, threat).values()]
            entry["verdicts"] = named(protocol, threat, ids)
        if "settings" not in entry:
            entry["settings"] = settings(protocol, threat)
        if "members" not in entry:
            known = already(found, threat)
            entry["members"] = {name: known.get(a) or marks(a) for name, a in members(protocol, threat).items()}
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
        sys.stdout.write(f"{protocol}, {threat}: {entry}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])

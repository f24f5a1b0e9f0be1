"""How long AutoAttack, standard, takes here and elsewhere, on the same network and images.

    python benchmarks/auto_attack.py --reference PATH --network runs/cifar10/pgd-at --images 256 --out auto_attack.json

PATH is a checkout of https://github.com/fra31/auto-attack. The network is one that was trained, for without training all
images are broken at once. torchattacks and ART are asked for the four attacks with as many steps as the others (their own
"standard" is ten steps, and another choice of attacks). Robust accuracies stand beside the times; the verdicts of ours and
the reference's are compared image by image in `benchmarks/agreement.py`. The last line tells how far ours is from the
floor: the multiplications of all its forward passes, and of as large backward passes, at the rates of a matrix product:
in float32 for FAB and a quarter of APGD, else in bfloat16.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import rivals
import torch
from torch import Tensor

from awnet.attacks import APGD, FAB, Engine, Outcome, Square, Suite, TensorExamples
from awnet.losses import TargetedDLR
from awnet.threat_model import Linf

IN_FLOAT32 = (0.25, 0.25, 1.0, 0.0)  # the share of each member's passes


def suite(threat: Linf, steps: int, square_steps: int) -> Suite:
    """AutoAttack, standard, with other numbers of steps."""
    return Suite(
        members=(
            ("apgd-ce", APGD(threat=threat, steps=steps)),
            ("apgd-t", APGD(threat=threat, steps=steps, loss=TargetedDLR(), targets=9)),
            ("fab-t", FAB(threat=threat, steps=steps)),
            ("square", Square(threat=threat, steps=square_steps)),
        )
    )


def reference(options: argparse.Namespace, model: Any, threat: Linf) -> rivals.Attacker:
    """The authors' code."""
    sys.path.insert(0, str(options.reference.resolve()))
    with redirect_stdout(StringIO()):
        theirs = rivals.imported("autoattack").AutoAttack(
            model, norm="Linf", eps=threat.eps, seed=0, version="standard", device=options.device
        )
    for apgd in (theirs.apgd, theirs.apgd_targeted):
        apgd.n_iter = options.steps
        apgd.n_iter_2 = max(int(0.22 * options.steps), 1)
        apgd.n_iter_min = max(int(0.06 * options.steps), 1)
        apgd.size_decr = max(int(0.03 * options.steps), 1)
        apgd.n_iter_orig = options.steps
    theirs.fab.n_iter, theirs.square.n_queries = options.steps, options.square_steps

    def run(x: Tensor, y: Tensor) -> Tensor:
        with redirect_stdout(StringIO()):
            return theirs.run_standard_evaluation(x, y, bs=options.batch)

    return run


def torchattacks(options: argparse.Namespace, model: Any, threat: Linf) -> rivals.Attacker:
    """The four attacks of torchattacks, each on who still stands."""
    ta, shared = rivals.imported("torchattacks"), {"norm": "Linf", "eps": threat.eps, "seed": 0}
    attacks = [
        ta.APGD(model, steps=options.steps, loss="ce", **shared),
        ta.APGDT(model, steps=options.steps, n_classes=10, **shared),
        ta.FAB(model, steps=options.steps, multi_targeted=True, n_classes=10, **shared),
        ta.Square(model, n_queries=options.square_steps, **shared),
    ]
    return rivals.in_batches(ta.MultiAttack(attacks), options.batch)


def art(options: argparse.Namespace, model: Any, threat: Linf, x: Tensor) -> rivals.Attacker:
    """ART's own choice of four: APGD on two losses, DeepFool and Square."""
    evasion = rivals.imported("art.attacks.evasion")
    classifier = rivals.art_classifier(model, x, options.device)
    shared = {"batch_size": options.batch, "verbose": False}
    ball = {"eps": threat.eps, "norm": "inf"}
    climb = {**ball, **shared, "eps_step": 2 * threat.eps, "max_iter": options.steps, "nb_random_init": 1}
    attacks = [
        evasion.AutoProjectedGradientDescent(classifier, loss_type="cross_entropy", **climb),
        evasion.AutoProjectedGradientDescent(classifier, loss_type="difference_logits_ratio", **climb),
        evasion.DeepFool(classifier, max_iter=options.steps, epsilon=1e-3, nb_grads=10, **shared),
        evasion.SquareAttack(classifier, max_iter=options.square_steps, p_init=0.8, nb_restarts=1, **ball, **shared),
    ]
    norm = {"norm": "inf", "eps": threat.eps, "eps_step": 2 * threat.eps}
    return rivals.art_attacker(evasion.AutoAttack(classifier, attacks=attacks, batch_size=options.batch, **norm))


def main() -> None:
    """Times all that are there, prints a table and writes the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    rivals.common(parser)
    parser.add_argument("--reference", type=Path, help="a checkout of fra31/auto-attack")
    parser.add_argument("--steps", type=int, default=100, help="of APGD and FAB")
    parser.add_argument("--square-steps", type=int, default=5000)
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--without", nargs="*", default=[], help="rivals that are left out")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    threat = Linf(options.eps)
    model, x, y = rivals.network(options.network, options.images, options.data_dir, options.device)
    outcomes: dict[str, Outcome] = {}

    def searched(precision: str) -> rivals.Attacker:
        engine = Engine(batch_size=options.batch, precision=precision)  # pyright: ignore[reportArgumentType]

        def run(x: Tensor, y: Tensor) -> Tensor:
            examples = TensorExamples(x.cpu(), y.cpu(), torch.arange(len(x)))
            attack = suite(threat, options.steps, options.square_steps)
            outcomes[precision] = engine.run(attack, model, examples)
            return outcomes[precision].x_adv.to(x)

        return run

    teams: dict[str, rivals.Attacker] = {"awnet, bfloat16": searched("bfloat16"), "awnet, float32": searched("float32")}
    versions = {name: rivals.installed(*rivals.PACKAGES[name]) for name in ("torchattacks", "ART")}
    versions = {"the reference": options.reference and "a checkout", **versions}
    if options.reference:
        teams["the reference"] = reference(options, model, threat)
    if versions["torchattacks"]:
        teams["torchattacks"] = torchattacks(options, model, threat)
    if versions["ART"]:
        teams["ART"] = art(options, model, threat, x)
    teams = {name: team for name, team in teams.items() if name not in options.without}
    found = rivals.took_turns(teams, x, y, options.runs)
    right = {name: rivals.standing(model, threat, x, y, took.x_adv) for name, took in found.items()}
    cost = rivals.multiplications(model, x)
    rates = {str(dtype): rivals.rate(dtype, options.device) for dtype in (torch.float32, torch.bfloat16)}
    passes = outcomes["bfloat16"].spent.sum((0, 2)).tolist()
    floor = sum(
        n * cost * (share / rates["torch.float32"] + (1 - share) / rates["torch.bfloat16"])
        for n, share in zip(passes, IN_FLOAT32, strict=True)
    )
    rivals.write(
        options,
        found,
        versions,
        right,
        x,
        floor=floor,
        threat=str(threat),
        multiplications=cost,
        **{"passes of each attack of ours": passes},
        **{"multiplications a second": rates},
    )


if __name__ == "__main__":
    main()

"""How long PGD-20 takes here and elsewhere, on the same network and images.

    python benchmarks/pgd.py --network resnet18 --images 256 --out pgd.json

PGD as the AW-Net paper runs it: 20 steps of 2/255 at eps 8/255 from a random start, the last iterate, no early stop.
Images that are misclassified as they are need no attack, and ours begins with asking for them; the rivals attack them too.
The network is a checkpoint, whose robust accuracy shows that like is compared with like, or one without training, whose
steps cost the same. The last line tells how far ours is from the floor: the multiplications of its forward passes and of
as large backward passes, at the rate of a matrix product in bfloat16.
"""

from __future__ import annotations

import argparse

import rivals
import torch
from torch import Tensor

from awnet.attacks import PGD, Engine, Suite, TensorExamples
from awnet.threat_model import Linf


def main() -> None:
    """Times all that are installed, prints a table and writes the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    rivals.common(parser)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    threat, size = Linf(8 / 255), 2 / 255
    model, x, y = rivals.network(options.network, options.images, options.data_dir, options.device)
    attack = PGD(threat=threat, steps=options.steps, step_size=size, unit="pixel")

    def searched(precision: str) -> rivals.Attacker:
        engine = Engine(batch_size=options.batch, precision=precision)  # pyright: ignore[reportArgumentType]

        def run(x: Tensor, y: Tensor) -> Tensor:
            examples = TensorExamples(x.cpu(), y.cpu(), torch.arange(len(x)))
            return engine.run(Suite(members=(("pgd", attack),)), model, examples).x_adv.to(x)

        return run

    teams: dict[str, rivals.Attacker] = {"awnet, bfloat16": searched("bfloat16"), "awnet, float32": searched("float32")}
    versions = {name: rivals.installed(*package) for name, package in rivals.PACKAGES.items()}
    if versions["torchattacks"]:
        pgd = rivals.imported("torchattacks").PGD(model, eps=threat.eps, alpha=size, steps=options.steps)
        teams["torchattacks"] = rivals.in_batches(pgd, options.batch)
    if versions["Foolbox"]:
        foolbox = rivals.imported("foolbox")
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=options.device)
        linf = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=options.steps)
        teams["Foolbox"] = rivals.in_batches(lambda x, y: linf(wrapped, x, y, epsilons=threat.eps)[1], options.batch)
    if versions["ART"]:
        evasion = rivals.imported("art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch")
        teams["ART"] = rivals.art_attacker(
            evasion.ProjectedGradientDescentPyTorch(
                rivals.art_classifier(model, x, options.device),
                eps=threat.eps,
                eps_step=size,
                max_iter=options.steps,
                num_random_init=1,
                batch_size=options.batch,
                verbose=False,
            )
        )
    if versions["adversarial-library"]:
        pgd_linf = rivals.imported("adv_lib.attacks").pgd_linf
        settings = {"ε": threat.eps, "steps": options.steps, "absolute_step_size": size}
        teams["adversarial-library"] = rivals.in_batches(lambda x, y: pgd_linf(model, x, y, **settings), options.batch)

    few = slice(0, 8)
    rivals.took_turns(teams, x[few], y[few], 1)  # warm up
    found = rivals.took_turns(teams, x, y, options.runs)
    right = {name: rivals.standing(model, threat, x, y, took.x_adv) for name, took in found.items()}
    with torch.no_grad():
        attacked = int((torch.cat([model(part).argmax(1) for part in x.split(64)]) == y).sum())
    cost = rivals.multiplications(model, x)
    rates = {str(dtype): rivals.rate(dtype, options.device) for dtype in (torch.float32, torch.bfloat16)}
    floor = attacked * options.steps * 2 * cost / rates["torch.bfloat16"]
    rivals.write(
        options,
        found,
        versions,
        right,
        x,
        floor=floor,
        threat=str(threat),
        multiplications=cost,
        attacked=attacked,
        **{"multiplications a second": rates},
    )


if __name__ == "__main__":
    main()

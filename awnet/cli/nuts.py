"""awnet nuts: the nonlinear static mixture of two checkpoints, its settings found on validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import images_for, load_pair, save_made_of


@dataclass(frozen=True, kw_only=True)
class Nuts:
    """Make the MixedNUTS of two checkpoints: the robust one is attacked, and the mixture set so that it keeps its say."""

    clean: tyro.conf.Positional[Path]
    """The accurate network."""
    robust: tyro.conf.Positional[Path]
    """The robust network."""
    out: Path
    """The new checkpoint's folder."""
    keep: float = 0.985
    """The share of the robust network's correct answers under attack that must outweigh the accurate one's."""
    attack: str = "apgd-ce"
    """On the robust network."""
    limit: int = 1000
    """How many images."""
    split: Literal["test", "validation", "train"] = "validation"
    """Which images; not those that either network was trained on, or that the mixture is judged on."""
    data: str | None = None
    """Another data set than that of the robust network's training, with the same classes."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    seed: int = 0
    """Of the images and the attack."""
    device: str = "cpu"
    """cpu or cuda."""


def nuts(argv: Sequence[str]) -> None:
    """Write the nonlinear static mixture of two checkpoints."""
    import torch

    from awnet.attacks import ATTACKS, Engine
    from awnet.config import from_json, to_json
    from awnet.evaluation.mixed_nuts import Search, logits_of, search
    from awnet.models.mixed_nuts import MixedNUTS, MixedNUTSConfig
    from awnet.models.model import Architecture
    from awnet.threat_model import ThreatModel

    options = parse(Nuts, argv, "awnet nuts")
    (clean, about_clean), (robust, about) = load_pair(options.clean, options.robust, options.out, options.device)
    grid = Search(keep=options.keep)
    threat: ThreatModel = from_json(about["threat"], ThreatModel, "threat")
    images = images_for(about, options).sample(options.limit, seed=options.seed)
    x, y = images.batch(torch.arange(len(images)))
    x_adv = Engine().run(ATTACKS[options.attack](threat), robust, images, seed=options.seed).x_adv
    on_clean, attacked = (logits_of(robust, batch.to(options.device)).cpu() for batch in (x, x_adv))
    found = search(on_clean, attacked, y, grid)
    parts = (from_json(a["architecture"], Architecture, "architecture") for a in (about_clean, about))
    config = MixedNUTSConfig(
        **dict(zip(("clean", "robust"), parts, strict=True)), alpha=found.alpha, transform=found.transform
    )
    mixture = MixedNUTS(clean, robust, alpha=found.alpha, transform=found.transform)
    how = {"on": f"{len(images)} {options.split} images", "attack": options.attack, "grid": to_json(grid)}
    save_made_of(options.out, mixture, config, about, (options.clean, options.robust), search=how)
    print(
        f"alpha {found.alpha:.3f}, scale {found.transform.scale:g}, power {found.transform.power:g}, offset "
        f"{found.transform.offset:g}: {found.kept:.1%} of its correct answers under attack outweigh the accurate network, and "
        f"{found.overruled:.1%} of its wrong ones unattacked"
    )
    print(f"mixture: {options.out}; next: awnet evaluate {options.out}, and awnet mix for the attack's second network")

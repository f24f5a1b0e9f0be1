"""Loss curves of 20 small steps, in double precision, where rounding does not grow into other numbers elsewhere.

`PYTHONPATH=.:tests python -m training.curves` writes them anew, when a change of the numbers is meant.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from awnet.data.augment import Augment
from awnet.models import create
from awnet.threat_model import Linf
from awnet.training import JointConfig, MTARDConfig, PGDATConfig, TRADESConfig, TrainingConfig, train
from awnet.training.objective import ObjectiveConfig
from awnet.training.optimizer import StepDecay
from awnet.training.train import Validation
from training.tiny import CLASSES, DYNAMIC, NARROW, Doubles, dataset, teachers

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_curves.json"

OBJECTIVES: dict[str, ObjectiveConfig] = {
    "awnet joint mtard": JointConfig(over=MTARDConfig(steps=3)),
    "static mtard": MTARDConfig(steps=3, tau=2.0),
    "trades": TRADESConfig(steps=3),
    "pgd-at": PGDATConfig(steps=3),
}


def curve(name: str, folder: Path) -> dict[str, list[float]]:
    """What the log says of 20 epochs of one step each."""
    config = OBJECTIVES[name]
    data = dataset(12)
    model = create(DYNAMIC if isinstance(config, JointConfig) else NARROW, classes=CLASSES, channels=1, seed=1).double()
    history = train(
        model,
        config.build(Linf(0.15), {r: t.double() for r, t in teachers().items()}),
        Doubles(data, batch_size=12, seed=2, augment=Augment(padding=1, flip=False)),
        TrainingConfig(epochs=20, batch_size=12, schedule=StepDecay(), eps_warm_up=0.3, ema=0.5, validate_every=20),
        out=folder,
        save=lambda folder, model, about: None,
        validate=lambda model: Validation(0, 0, 0),
        seed=3,
        quiet=True,
    )
    return {name: [row[name] for row in history] for name in history[0] if name != "epoch"}


def write() -> None:
    """Replace the stored curves."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: curve(name, Path(folder) / name) for name in OBJECTIVES}
    lines = [
        f'  "{name}": {{\n'
        + ",\n".join(f'    "{k}": {[float(f"{v:.10g}") for v in found[name][k]]}' for k in found[name])
        for name in found
    ]
    GOLDEN.write_text("{\n" + "\n  },\n".join(lines) + "\n  }\n}\n")


if __name__ == "__main__":
    write()

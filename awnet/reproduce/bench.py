"""Train and attack what the paper's tables are about, at one scale, and go on with what is there.

Everything lies in one folder: a run by its recipe's name, and beside the runs `SCALE/records/DATA/SYSTEM/BATTERY`, a record for
each battery of attacks. A run that is whole is not trained again, a record that is whole is not made again, and public weights
that `awnet import` has put where a run would be are used as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import awnet.recipes  # noqa: F401 - fills RECIPES
from awnet.attacks import ATTACKS, Attack, Engine, Suite, transferred
from awnet.checkpoint import load, read_about
from awnet.data import DataConfig
from awnet.data import load as load_data
from awnet.errors import Mistake
from awnet.evaluation.evaluate import evaluate
from awnet.evaluation.preflight import Cleared
from awnet.evaluation.record import Record
from awnet.experiment import RECIPES, Experiment, check_fits, complete, ensure, imported
from awnet.recipes.paper import At, trainings
from awnet.recipes.scale import Scale
from awnet.reproduce.printed import SURROGATE, WHITE, Table

BATTERIES: dict[str, tuple[str, ...]] = {
    "white": WHITE,
    "aa": ("aa",),
    "transfer": SURROGATE,
    "adaptive-paper": ("adaptive-paper",),
    "adaptive": ("adaptive",),
    "deep-sloth": ("deep-sloth",),
}
EXPENSIVE = ("aa", "adaptive")


def battery(attack: str) -> str:
    """The battery that an attack belongs to."""
    return next(name for name, attacks in BATTERIES.items() if attack in attacks)


class Job(NamedTuple):
    """One network, in one seed, and what it has to face."""

    data: str
    system: str
    seed: int
    batteries: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.data}/{self.system}" + (f", seed {self.seed}" if self.seed else "")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where, and how large.

    Args:
        out: the folder of everything.
        scale: of networks, trainings and image counts.
        data_dir: of the data sets' files; by default they are sought as everywhere.
        device: "cpu" or "cuda".
    """

    out: Path
    scale: Scale
    data_dir: str | None = None
    device: str = "cpu"

    def seeds(self, data: str, system: str) -> range:
        """Of a system: several where the paper's claims rest on it."""
        return range(trainings(self.scale, system, data))

    def experiment(self, name: str) -> Experiment:
        """A recipe with this bench's data folder."""
        found = RECIPES[name]()
        return replace(found, data=replace(found.data, data_dir=self.data_dir or found.data.data_dir))

    def run_folder(self, data: str, system: str, seed: int = 0) -> Path:
        """Where a system's run is, or will be."""
        return self.out / At(data, self.scale).name(system, seed)

    def record_folder(self, data: str, system: str, seed: int, battery: str) -> Path:
        """Where the record of one battery is, or will be."""
        name = system + (f"-seed{seed}" if seed else "")
        return self.out / self.scale.name / "records" / data / name / battery

    def record(self, data: str, system: str, seed: int, battery: str) -> Record | None:
        """The record of one battery, where it is there and whole."""
        folder = self.record_folder(data, system, seed, battery)
        if not (folder / "record.json").exists():
            return None
        found = Record.load(folder)
        return found if set(BATTERIES[battery]) <= set(found.attacks) else None

    def train(self, data: str, system: str, seed: int = 0, watch: Callable[[str], None] = lambda what: None) -> Path:
        """The run of a system, trained to its end if it was not.

        Raises:
            Mistake: there is no such system, its folder holds another experiment, or public weights for other images.
        """
        return self._trained(At(data, self.scale).name(system, seed), watch)

    def _trained(self, name: str, watch: Callable[[str], None]) -> Path:
        if name not in RECIPES:
            raise Mistake(f"there is no recipe {name}: the paper has no such system on this data set, or we have not")
        experiment, out = self.experiment(name), self.out / name
        if imported(out):
            images = load_data(experiment.data).test
            check_fits(out, "the network", classes=len(images.classes), channels=images.shape[0])
            watch(f"uses the public weights in {out}")
        elif not complete(out, experiment):
            watch(f"trains {name}")
        return ensure(experiment, out, device=self.device, quiet=True)

    def attack(self, job: Job, watch: Callable[[str], None] = lambda what: None) -> None:
        """Train what a job is about, and make the records that it lacks."""
        missing = [name for name in job.batteries if self.record(*job[:3], name) is None]
        if not missing:
            return
        path = self.train(*job[:3], watch)
        about, model = read_about(path), load(path, device=self.device)
        config = DataConfig(name=job.data, data_dir=self.data_dir)
        test = load_data(config).test
        threat = Experiment().threat
        for name in missing:
            attacks: dict[str, Attack | Suite] = {}
            if name == "transfer":
                surrogate = self._trained(self.scale.surrogates[job.data], watch)
                attacks = {f"{one} from surrogate": a for one, a in transferred(threat, str(surrogate)).items()}
            else:
                attacks = {one: ATTACKS[one](threat) for one in BATTERIES[name]}
            watch(f"attacks {job} ({name})")
            evaluate(
                model,
                test,
                attacks,
                threat=threat,
                engine=Engine(batch_size=128 if self.device == "cpu" else 1000, precision="bfloat16"),
                limit=self.scale.few if name in EXPENSIVE else self.scale.images,
                label=str(job),
                about={"checkpoint": At(job.data, self.scale).name(job.system, job.seed), **_told(about)},
                samples=0,
                keep_adversarials=False,
                out=self.record_folder(*job[:3], name),
                resume=True,
                cleared=Cleared(model),
            )


def _told(about: dict[str, Any]) -> dict[str, Any]:
    kept = (
        "architecture", "parameters", "selection", "history", "experiment", "given", "epoch", "weights", "detector", "public",
    )  # fmt: skip
    return {name: about[name] for name in kept if name in about}


def needs(bench: Bench, tables: Iterable[Table], only: Iterable[str] = ()) -> list[Job]:
    """What some tables need, each network once, in their order, further seeds last; `only` some systems."""
    found: dict[tuple[str, str, int], dict[str, None]] = {}
    for table, data, system in _asked(tables):
        if only and system not in only:
            continue
        for seed in bench.seeds(data, system):
            found.setdefault((data, system, seed), {}).update(dict.fromkeys(map(battery, table.attacks)))
    return sorted((Job(*key, tuple(batteries)) for key, batteries in found.items()), key=lambda job: job.seed)


def _asked(tables: Iterable[Table]) -> Iterator[tuple[Table, str, str]]:
    for table in tables:
        for line in table.lines:
            yield table, line.data or table.data, line.system

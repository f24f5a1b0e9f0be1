"""awnet train: from a recipe to a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from awnet.cli.arguments import parse
from awnet.errors import Mistake


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a recipe; any field of its experiment can be given anew."""

    out: Path | None = None
    """The run's folder; runs/RECIPE by default."""
    resume: bool = False
    """Go on where the run in this folder stopped."""
    device: str = "cpu"
    """cpu, cuda or auto."""
    data_dir: str | None = None
    """The folder of the data set's files."""


def train(argv: Sequence[str]) -> None:
    """Train a recipe or a saved experiment."""
    import awnet.recipes  # noqa: F401
    from awnet.experiment import RECIPES, Experiment, read, run

    usage = "`awnet train RECIPE`, a name of `awnet list recipes` or a saved experiment.json"
    if argv and argv[0] in ("-h", "--help"):
        print(
            f"usage: {usage}\n\n{Train.__doc__}\n\n  awnet train RECIPE --help lists them, with what they are in the recipe."
        )
        return
    if not argv or argv[0].startswith("-"):
        raise Mistake(f"expected {usage}")
    name, rest = argv[0], argv[1:]
    if name not in RECIPES and (Path(name).exists() or name.endswith(".json")):
        experiment = read(Path(name))
    else:
        experiment = RECIPES[name]()
    experiment = _with_architecture(experiment, rest)

    flat = Annotated[Experiment, tyro.conf.arg(name="")]
    options = make_dataclass("Train", [("experiment", flat, experiment)], bases=(Train,), frozen=True, kw_only=True)
    options.__doc__ = Train.__doc__
    options = parse(options, rest, f"awnet train {name}")
    experiment = options.experiment
    if options.data_dir is not None:
        experiment = replace(experiment, data=replace(experiment.data, data_dir=options.data_dir))
    out = run(experiment, options.out or Path("runs") / experiment.name, resume=options.resume, device=options.device)
    print(f"trained: {out}; next: awnet evaluate {out}")


def _with_architecture(experiment: Any, argv: Sequence[str]) -> Any:
    """The experiment with the network of the checkpoint that --init names, before any field is given anew."""
    from awnet.checkpoint import read_architecture
    from awnet.experiment import read

    given = {name: _value(argv, name) for name in ("--init", "--out")}
    if not given["--init"]:
        return experiment
    out = Path(given["--out"] or Path("runs") / experiment.name)
    if "--resume" in argv and (out / "experiment.json").exists():  # the checkpoint may be gone by now
        return replace(experiment, model=read(out).model)
    return replace(experiment, model=read_architecture(given["--init"]))


def _value(argv: Sequence[str], option: str) -> str | None:
    for argument, following in zip(argv, [*argv[1:], None], strict=False):
        if argument == option:
            return following
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return None

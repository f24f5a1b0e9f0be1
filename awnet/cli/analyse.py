"""awnet analyse: how training has spread the filters of networks, and what an AW-Net's signals do to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import check_device, images_for, load_checkpoint
from awnet.cli.subject import label_of
from awnet.cli.waiting import waiting
from awnet.errors import Mistake
from awnet.modules import is_module, load_module

if TYPE_CHECKING:
    from torch import nn

    from awnet.analysis.dynamic import Dynamic
    from awnet.analysis.weights import Filters
    from awnet.report.weights import Panel

FORMAT = 1
TITLES = {"weights": "filter means", "filter": "over their filter's size"}  # the two panels of a layer


@dataclass(frozen=True, kw_only=True)
class Analyse:
    """Write the distributions of networks' filters as numbers and as a figure, each network against the first."""

    what: tyro.conf.Positional[Literal["weights"]]
    """weights: the means of the filters, layer by layer (Fig. 1 and 3 of the AW-Net paper); of an AW-Net also those that clean
    and attacked images meet, and what of omega survives the batch norms; of a checkpoint also both sides of Eq. 8."""
    checkpoints: tyro.conf.Positional[tuple[Path, ...]]
    """Checkpoints or runs, the standard one first; or networks of your own as package.module:attribute, weights alone."""
    layers: tuple[int, ...] = (1, 2)
    """Which convolutions the figure shows, counted from 1; the numbers are of all."""
    limit: int = 500
    """So many images for what depends on them, chosen by the seed; 0 for the weights alone."""
    gradients: int = 16
    """So many of these images for both sides of Eq. 8."""
    attack: str = "pgd-sat"
    """What attacks them (awnet list attacks)."""
    eps: float | None = None
    """The radius, such as 8/255; that of its training by default."""
    split: Literal["test", "validation", "train"] = "test"
    """Which images."""
    data: str | None = None
    """Another data set than that of its training, with the same classes."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    out: Path = Path("weights")
    """Where weights.json, weights.safetensors and weights.svg go."""
    seed: int = 0
    """Of the attack, the images and the intervals."""
    batch_size: int = 128
    """Images at a time."""
    device: str = "cpu"
    """cpu or cuda."""


def analyse(argv: Sequence[str]) -> None:
    """Look at the filters of networks, print what is found and write it."""
    from awnet.analysis.weights import figures, filters_of
    from awnet.attacks import ATTACKS

    options = parse(Analyse, argv, "awnet analyse")
    if not options.checkpoints:
        raise Mistake("name one checkpoint or more to look at; awnet analyse --help tells more")
    ATTACKS[options.attack]  # known, before anything takes time
    if (options.out / "weights.json").exists():
        raise Mistake(f"{options.out} holds an analysis already; choose another --out")
    if options.limit < 0 or options.limit == 1 or options.gradients < 0:
        raise Mistake(
            f"--limit counts images, 0 or at least 2, and --gradients 0 or more; got {options.limit} and {options.gradients}"
        )
    check_device(options.device)
    loaded = _loaded(options.checkpoints, options.device)
    networks = {name: filters_of(model) for name, (model, _) in loaded.items()}
    most = max(len(filters.layers) for filters in networks.values())
    if not options.layers or not all(1 <= layer <= most for layer in options.layers):
        raise Mistake(
            f"--layers counts convolutions from 1 to {most}, got {', '.join(map(str, options.layers)) or 'none'}"
        )
    dynamics: dict[str, Dynamic] = {}
    more: dict[str, dict[str, Any]] = {}
    with waiting() as say:
        for name, (model, about) in loaded.items():
            say(name)
            more[name] = {"class": type(model).__name__}
            if about is not None and options.limit:
                found, one = _on_images(model, about, options)
                more[name] |= found
                dynamics |= {} if one is None else {name: one}
    panels = _panels(networks, dynamics, options.layers)
    found = {**figures(networks, seed=options.seed), "on images": more}
    _save(options, networks, dynamics, found, panels)
    for table in _tables(found, list(networks)):
        Console().print(table)
    print(f"analysis: {options.out}")


def _loaded(paths: Sequence[Path], device: str) -> dict[str, tuple[nn.Module, dict[str, Any] | None]]:
    """The networks, and what their checkpoints say of them, by the names that they go by here."""
    found: dict[str, tuple[nn.Module, dict[str, Any] | None]] = {}
    for path in paths:
        model, about = (load_module(str(path), device), None) if is_module(path) else load_checkpoint(path, device)
        name = str(path) if about is None else label_of(about, path, None)
        name = str(path) if name in found else name
        if name in found:
            raise Mistake(f"{path} is named twice; each network is looked at once")
        found[name] = model, about
    return found


def _on_images(model: nn.Module, about: dict[str, Any], options: Analyse) -> tuple[dict[str, Any], Dynamic | None]:
    """What is said of a network on images, and of an AW-Net with signals all that it was said from."""
    import torch

    from awnet.analysis.dynamic import dynamic
    from awnet.analysis.first_order import first_order
    from awnet.analysis.survival import Types
    from awnet.attacks import ATTACKS, Engine
    from awnet.config import from_json
    from awnet.models import AWNet
    from awnet.threat_model import ThreatModel

    threat: ThreatModel = from_json(about["threat"], ThreatModel, "threat")
    threat = threat if options.eps is None else replace(threat, eps=options.eps)
    dataset = images_for(about, options).sample(options.limit, options.seed)
    x, y = dataset.batch(torch.arange(len(dataset)))
    found: dict[str, Any] = {"data": f"{len(y)} {dataset.split} images of {dataset.name}", "threat": str(threat)}
    if options.gradients:
        few = slice(options.gradients)
        x_few, y_few = x[few].to(options.device), y[few].to(options.device)
        found["Eq. 8"] = {}
        for part in (1, 10, 100):  # to the first order in eps: a smaller one must fit better, if it is to hold
            sides = first_order(model, x_few, y_few, threat=replace(threat, eps=threat.eps / part))
            found["Eq. 8"]["eps" if part == 1 else f"eps/{part}"] = {
                "residual": sides.residual,
                "cosine": sides.cosine,
                "correlation of filter means": sides.filter_mean_correlation,
            }
    if not isinstance(model, AWNet):
        return found, None
    if not model.knob.omega:
        return {**found, "omega": "its knob sets omega = 1: every image meets the filters as they are"}, None
    engine, attack = Engine(batch_size=options.batch_size), ATTACKS[options.attack](threat)
    train = images_for(about, replace(options, split="train")).sample(options.limit, options.seed)
    x_fit, _ = train.batch(torch.arange(len(train)))
    attacked, fit_attacked = (engine.run(attack, model, part, seed=options.seed).x_adv for part in (dataset, train))
    fit = Types(x_fit, fit_attacked)
    one = dynamic(model, Types(x, attacked), y, seed=options.seed, batch_size=options.batch_size, fit=fit)
    return {**found, "attack": options.attack, **one.figures()}, one


def _panels(
    networks: Mapping[str, Filters], dynamics: Mapping[str, Dynamic], layers: Sequence[int]
) -> list[list[Panel]]:
    """A row a layer: the means, and the means over their filter's size."""
    from awnet.analysis.filter_means import Per
    from awnet.report.weights import Panel

    rows = []
    for layer in layers:
        shown = {name: filters.layers[layer - 1] for name, filters in networks.items() if layer <= len(filters.layers)}
        row, pers = [], tuple[Per, ...](("weights", "filter"))
        for per in pers:
            samples = {name: networks[name].means[per][module] for name, module in shown.items()}
            if per == "weights":  # over its own size, a filter is the same for every image
                for name, one in dynamics.items():
                    means = {type_: one.means(type_) for type_ in one.filters}
                    samples |= {f"{name}, {t}": m[shown[name]] for t, m in means.items() if shown.get(name) in m}
            row.append(Panel(f"convolution {layer}: {TITLES[per]}", samples))
        rows.append(row)
    return rows


def _save(
    options: Analyse,
    networks: Mapping[str, Filters],
    dynamics: Mapping[str, Dynamic],
    found: Mapping[str, Any],
    panels: list[list[Panel]],
) -> None:
    from safetensors.torch import save_file

    from awnet.folders import replace_folder
    from awnet.provenance import provenance
    from awnet.report.svg import standalone
    from awnet.report.weights import filter_densities

    arrays = {
        f"{name}/{per}/{layer}": means
        for name, filters in networks.items()
        for per, by_layer in filters.means.items()
        for layer, means in by_layer.items()
    }
    for name, one in dynamics.items():
        for type_, by_layer in one.filters.items():
            arrays |= {f"{name}/{type_}/{layer}": of_layer.means for layer, of_layer in by_layer.items()}
        for way, answers in one.answers.items():
            for type_, said in answers.items():
                arrays |= {f"{name}/omega replaced/{way}/{type_}/{what}": t for what, t in vars(said).items()}
    asked = {name: [str(p) for p in v] if name == "checkpoints" else v for name, v in asdict(options).items()}
    said = {"format": FORMAT, "asked": {**asked, "out": str(options.out)}, **found, "provenance": provenance()}

    def write(place: Path) -> None:
        save_file({name: t.contiguous().clone() for name, t in arrays.items()}, place / "weights.safetensors")
        (place / "weights.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        (place / "weights.svg").write_text(standalone(filter_densities(panels)), encoding="utf-8")

    replace_folder(options.out, write)


def _tables(found: Mapping[str, Any], names: Sequence[str]) -> list[Table | str]:
    """How wide the others' filter means are, both sides of Eq. 8, and what omega does."""
    tables: list[Table | str] = []
    if others := found[f"against {names[0]}"]:
        wide = _table(f"how many times as wide as {names[0]}", "", "", "all layers", "narrower", "wider", "of")
        for name, by_per in others.items():
            for k, (per, against) in enumerate(by_per.items()):
                one = against["all layers"]
                counts = [str(one[what]) for what in ("narrower", "wider", "layers")]
                compared = [f"{one['ratio']:.2f}", *counts] if one["layers"] else ["other shapes"]
                wide.add_row("" if k else name, _PER[per], *compared)
        tables.append(wide)
    more = found["on images"]
    if any("Eq. 8" in one for one in more.values()):
        sides = _table("Eq. 8: how far its two sides are apart", "", "eps", "eps/10", "eps/100")
        for name, one in more.items():
            if "Eq. 8" in one:
                sides.add_row(name, *(f"{100 * at['residual']:.1f} %" for at in one["Eq. 8"].values()))
        tables.append(sides)
    for name, one in more.items():
        if "omega replaced" in one:
            tables += [_narrow(name, one), _replaced(name, one)]
        elif isinstance(one.get("omega"), str):
            tables.append(f"{name}: {one['omega']}")
    return tables


def _narrow(name: str, one: Mapping[str, Any]) -> Table:
    title = f"{name}: filter means on attacked images, how many times as wide as on clean ones; var(omega) between"
    table = _table(title, "", "as they are", "norm-free", "narrower", "between")
    for layer, about in one["effective filters"].items():
        raw, free = (about["attacked over clean"][k] for k in ("deviation of the means", "of the means, norm-free"))
        between = one["share of omega's variance between types"][layer]
        ratios = [f"{r['ratio']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in (raw, free)]
        table.add_row(layer, *ratios, f"{raw['share']:.0%}", f"{between:.0%}")
    return table


def _replaced(name: str, one: Mapping[str, Any]) -> Table:
    title = f"{name}: with omega replaced, % right and % in another class on clean and attacked images"
    table = _table(title, "", "right", "attacked", "changed", "attacked", "logits by")
    for way, by_type in one["omega replaced"].items():
        clean, attacked = by_type["clean"], by_type["attacked"]
        shares = [100 * said[what] for what in ("accuracy", "class changed") for said in (clean, attacked)]
        changes = f"{clean['change of logits']:.2f}, {attacked['change of logits']:.2f}"
        table.add_row(way, *(f"{share:.1f}" for share in shares), changes)
    return table


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", title_style="bold", box=None, header_style="bold")


_PER = {"weights": "means", "filter": "over their filter's size", "layer": "over their layer's size"}

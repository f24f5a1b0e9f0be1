"""One HTML page from records: the headline, what to doubt, the table, and everything that it rests on.

The page is one file without scripts. It loads nothing: styles, drawings and images lie inside it, and its content
security policy forbids the rest. It is a pure function of the records, so the same records give the same page.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from awnet.config import from_json
from awnet.detection.operating_point import OperatingPoint, looks_attacked
from awnet.errors import Mistake
from awnet.evaluation.metrics import auc
from awnet.evaluation.record import Record
from awnet.report import checks, figures
from awnet.report.alike import attack_names, seed_groups
from awnet.report.differences import differences, points
from awnet.report.headline import headline
from awnet.report.images import BUDGET, Sample, samples
from awnet.report.rigour import SHOWN, checked
from awnet.report.svg import COLOURS
from awnet.report.tables import WORST, Table, front_names, millions, names, series, table

OPEN = 2  # how many of several like sections are unfolded
MOST_NAMES = 4  # of the records that a doubt concerns
HERE = Path(__file__).parent


def write_page(
    records: Sequence[Record],
    out: Path,
    *,
    title: str = "Robustness report",
    note: str = "",
    images: bool = True,
    gamma_nat: float = 0.5,
    gamma_adv: float = 0.5,
) -> Path:
    """Write the report of these records.

    Args:
        records: in the order of the table's rows; the first one is what others are compared with.
        out: the HTML file; replaced in one piece.
        title: of the page.
        note: a sentence or two in plain words, put under the headline.
        images: whether to show the records' sample images.
        gamma_nat, gamma_adv: the weights of A_w (Eq. 23).

    Returns:
        The file.

    Raises:
        Mistake: where there is no record, or `out` cannot be written.
    """
    text = page(records, title=title, note=note, images=images, gamma_nat=gamma_nat, gamma_adv=gamma_adv)
    path = Path(out)
    if path.is_dir():
        raise Mistake(f"{path} is a folder; name the file that the report goes to, such as {path / 'report.html'}")
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise Mistake(f"the report cannot be written to {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # below a file there is nothing to remove
            part.unlink()
    return path


def page(
    records: Sequence[Record],
    *,
    title: str = "Robustness report",
    note: str = "",
    images: bool = True,
    gamma_nat: float = 0.5,
    gamma_adv: float = 0.5,
) -> str:
    """The page itself; see `write_page`."""
    if not records:
        raise Mistake("a report needs at least one record, got none; `awnet evaluate` makes them")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    jinja = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,  # labels, classes and notes are a user's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    weights = {"gamma_nat": gamma_nat, "gamma_adv": gamma_adv}
    found = table(records, gamma_nat=gamma_nat, gamma_adv=gamma_adv)
    return jinja.get_template("page.html.jinja").render(
        title=title,
        note=note,
        style="".join((HERE / sheet).read_text(encoding="utf-8") for sheet in ("figure.css", "page.css")),
        setting=_setting(records),
        headline=headline(records, found),
        checked=list(checked(records)),
        shown=SHOWN,
        doubts=[(doubt, _who(doubt.of, records)) for doubt in checks.doubts(records)],
        table=found,
        weighed=_weighed(table(records, gamma_nat=gamma_nat, gamma_adv=gamma_adv, per_attack=True)),
        records=records,
        names=names(records),
        colours=_colours(records),
        attacks=attack_names(records),
        millions=millions,
        points=points,
        differences=[(row, differences(records, row, found.main[0])) for row in found.main[1:]],
        tradeoff=figures.tradeoff(records, **weights),
        tradeoff_narrow=figures.tradeoff(records, width=370, height=400, **weights),
        by_attack=figures.by_attack(records),
        by_attack_narrow=figures.by_attack(records, width=300, across=1),
        over_eps=figures.over_eps(records),
        knobs=any(sum(r.front == front for r in records) > 1 for front in front_names(records)),
        types=list(_types(records)),
        signals=list(_signals(records)),
        pictures=_pictures(records) if images else [],
        training=_training(records),
        settings=_attack_settings(records),
        costs=_costs(records),
        origins=[_origin(record) for record in records],
        made=max((str(r.provenance.get("time") or "") for r in records), default=""),
        open=OPEN,
    )


def _colours(records: Sequence[Record]) -> list[str]:
    """The style sheet's classes of each record's colour and shape."""
    return [f"c{number % COLOURS} s{number // COLOURS % 4}" for number in series(records)]


def _setting(records: Sequence[Record]) -> list[str]:
    """What the numbers are of, where all records agree on it."""

    def data(record: Record) -> str:
        parts = " ".join(str(record.data.get(key) or "") for key in ("name", "split")).strip()
        return f"{parts + ', ' if parts else ''}{len(record):,} images"

    lines = [{data(r) for r in records}, {str(r.threat.get("text") or "") for r in records}]
    return [*(line.pop() for line in lines if len(line) == 1 and line != {""}), "brackets: 95\u00a0% intervals"]


def _who(of: Sequence[str], records: Sequence[Record]) -> str:
    """The records that a doubt concerns, in few words: whole fronts by their name, almost all by those that are not."""
    titles = names(records)
    others = [name for name in titles if name not in of]
    if of and len(of) > 3 and len(others) <= 2:
        return f"all but {' and '.join(others)}"
    said = list(of)
    for front, title in front_names(records).items():
        whole = [name for name, record in zip(titles, records, strict=True) if record.front == front]
        if len(whole) > 1 and set(whole) <= set(said):
            said[said.index(whole[0])] = f"{title} ({len(whole)} settings)"
            said = [name for name in said if name not in whole]
    for group in seed_groups(records):
        whole = [titles[i] for i in group]
        if set(whole) <= set(said):
            said[said.index(whole[0])] = f"{records[group[0]].label} ({len(whole)} seeds)"
            said = [name for name in said if name not in whole]
    return " · ".join(said[:MOST_NAMES]) + (f" · {len(said) - MOST_NAMES} more" if len(said) > MOST_NAMES else "")


# --- P(clean) ---


@dataclass(frozen=True, kw_only=True)
class _Separation:
    """How P(clean) tells one attack's images from clean ones; `attack` is "" for the clean images themselves."""

    attack: str
    look: str
    strip: str
    area: float | None
    successful: int
    area_of_successful: float | None


@dataclass(frozen=True, kw_only=True)
class _Types:
    name: str
    colour: str
    roc: str
    rows: tuple[_Separation, ...]
    thresholds: tuple[str, ...]

    @property
    def range(self) -> str:
        areas = [row.area for row in self.rows if row.area is not None]
        low, high = f"{min(areas):.3f}", f"{max(areas):.3f}"
        return f"AUC {low}" + (f" to {high}" if high != low else "")


def _types(records: Sequence[Record]) -> Iterator[_Types]:
    for name, colour, record in zip(names(records), _colours(records), records, strict=True):
        if not record.tells_type or not len(record) or not record.attacks:
            continue
        if any(result.p_clean.isnan().any() for result in record.attacks.values()):
            continue  # checks.py says so
        clean = record.clean.p_clean
        strip = figures.histogram(clean, "bar c7", f"P(clean) of clean images, mean {clean.mean():.2f}")
        rows = [_Separation(attack="", look="c7", strip=strip, area=None, successful=0, area_of_successful=None)]
        for k, (attack, result) in enumerate(record.attacks.items()):
            won = record.clean.correct & ~result.correct
            rows.append(
                _Separation(
                    attack=attack,
                    look=figures.attack_class(k, ""),
                    strip=figures.histogram(
                        result.p_clean,
                        figures.attack_class(k, "bar"),
                        f"P(clean) under {attack}, mean {result.p_clean.mean():.2f}",
                    ),
                    area=auc(clean, result.p_clean),
                    successful=int(won.sum()),
                    # the same images before and after
                    area_of_successful=auc(clean[won], result.p_clean[won]) if won.any() else None,
                )
            )
        thresholds = tuple(_at_thresholds(record))
        yield _Types(name=name, colour=colour, roc=figures.roc_curves(record), rows=tuple(rows), thresholds=thresholds)


def _at_thresholds(record: Record) -> Iterator[str]:
    """What the operating points stored with the checkpoint come to on these images, a sentence each."""
    for stored in record.model.get("detector") or ():
        point: OperatingPoint = from_json(stored, OperatingPoint, "detector")
        alarms = looks_attacked(record.clean.p_clean, point)
        noticed = []
        for attack, result in record.attacks.items():
            won = record.clean.correct & ~result.correct
            if won.any():
                share = looks_attacked(result.p_clean[won], point).double().mean().item()
                noticed.append(f"{attack} {100 * share:.1f} %")
        yield (
            f"P(adversarial) above {1 - point.threshold:.2g}, set for {100 * point.false_alarms:g} % of false alarms on "
            f"{point.images:,} {point.split} images: {100 * alarms.double().mean().item():.1f} % of these clean images are "
            "called attacked" + (f"; of the images that fooled it, {', '.join(noticed)}." if noticed else ".")
        )


# --- omega ---


@dataclass(frozen=True, kw_only=True)
class _Signals:
    """How an attack moves the signals of one record."""

    name: str
    colour: str
    attack: str
    figure: str
    narrow: str
    said: str


def _signals(records: Sequence[Record]) -> Iterator[_Signals]:
    for name, colour, record in zip(names(records), _colours(records), records, strict=True):
        measured = [attack for attack, result in record.attacks.items() if result.omega and record.clean.omega]
        if not measured:
            continue
        strongest = min(measured, key=lambda attack: record.robust_accuracy(attack).value)
        yield _Signals(
            name=name,
            colour=colour,
            attack=strongest,
            figure=figures.omegas(record, strongest),
            narrow=figures.omegas(record, strongest, width=330),
            said=_shifts(record, strongest, [attack for attack in measured if attack != strongest]),
        )


def _shifts(record: Record, attack: str, others: Sequence[str]) -> str:
    """How far the attacks move an image's signals, in units of their deviation between clean images."""
    ratios = {layer: figures.shift_ratio(record, attack, layer) for layer in record.clean.omega}
    known = {layer: ratio for layer, ratio in ratios.items() if ratio is not None}
    if not known:
        return "The signals are the same for all clean images: a shift has no unit here."
    low, high = min(known, key=lambda layer: known[layer]), max(known, key=lambda layer: known[layer])
    said = (
        f"Under {attack}, an image's signals move by {mean(known.values()):.2f} deviations on average over the layers"
    )
    if low != high:
        said += f", least in {low} ({known[low]:.2f}) and most in {high} ({known[high]:.2f})"
    means = [
        f"{other} {mean(figures.shift_ratio(record, other, layer) or 0 for layer in known):.2f}" for other in others
    ]
    return f"{said}. {'Under the other attacks: ' + ', '.join(means) + '.' if means else ''}".strip()


# --- images, training ---


def _pictures(records: Sequence[Record]) -> list[tuple[str, str, str, list[Sample]]]:
    """Name, colour, attack and samples of each record that has some; fewer of each, where there are many."""
    having = sum(record.samples is not None for record in records)
    found = []
    for name, colour, record in zip(names(records), _colours(records), records, strict=True):
        if record.samples and (shown := samples(record, BUDGET // having)):
            found.append((name, colour, record.samples.attack, shown))
    return found


def _training(records: Sequence[Record]) -> list[tuple[str, str, list[str]]]:
    """Names, colour and panels; records of one training, such as the settings of a knob, share theirs."""
    histories: list[tuple[list[int], Any]] = []
    for i, record in enumerate(records):
        history = record.model.get("history")
        if not isinstance(history, (list, tuple)) or not all(isinstance(entry, dict) for entry in history):
            continue
        same = next((of for of, other in histories if other == history), None)
        if same is None:
            histories.append(([i], history))
        else:
            same.append(i)
    titles = names(records)
    found = []
    for of, history in histories:
        fronts = {records[i].front for i in of}
        one_model = len(fronts) == 1 and len(of) > 1 and fronts != {""}
        panels = figures.training(history)
        if panels:
            title = front_names(records)[fronts.pop()] if one_model else ", ".join(titles[i] for i in of)
            found.append((title, _colours(records)[of[0]], panels))
    return found


# --- details ---


def _weighed(found: Table) -> dict[str, Any]:
    """The columns of A_w alone."""
    places = [k for k, column in enumerate(found.columns) if column.weighed]
    return {
        "titles": [found.columns[k].attack or WORST.title for k in places],
        "rows": [(row, [row.cells[k] for k in places]) for row in found.main],
    }


def _attack_settings(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Each attack, and its settings in words (more than one where records differ in them)."""
    found = []
    for attack in attack_names(records):
        results = [record.attacks[attack] for record in records if attack in record.attacks]
        found.append((attack, list(dict.fromkeys(plain(r.settings) for r in results if r.settings))))
    return found


def _costs(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """For each record, and each attack: forward and backward passes an image, and seconds."""
    found = []
    for name, record in zip(names(records), records, strict=True):
        cells = []
        for attack in attack_names(records):
            result = record.attacks.get(attack)
            if result is None or not len(record):
                cells.append("–")
                continue
            passes = [f"{float(count.double().mean()):,.4g}" for count in (result.forwards, result.backwards)]
            cells.append(f"{passes[0]} + {passes[1]}\n{result.seconds:,.3g} s")
        found.append((name, cells))
    return found


def _origin(record: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """Where a record comes from: groups of names and values."""
    model = {key: value for key, value in record.model.items() if key != "history"}
    about = {key: value for key, value in record.provenance.items() if key != "versions"}
    command = about.get("command")
    if isinstance(command, (list, tuple)):
        about["command"] = shlex.join(map(str, command))
    groups: dict[str, dict[str, Any]] = {
        "model": {"label": record.label, **({"front": record.front} if record.front else {}), **model},
        "data": {**record.data, "examples": len(record), "classes": len(record.classes)},
        "threat": record.threat,
        "run": record.run,
        "provenance": about,
        "versions": record.provenance.get("versions") or {},
    }
    return [
        (group, [(key, plain(value)) for key, value in values.items()]) for group, values in groups.items() if values
    ]


def plain(value: Any) -> str:
    """A value as it would be typed: settings by their kind, without quotes."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key}={plain(item)}" for key, item in value.items() if key != "kind")
        return f"{value['kind']}({inner})" if "kind" in value else f"{{{inner}}}" if inner else "–"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(plain, value))})"
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)

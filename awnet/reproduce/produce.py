"""From the names of tables and figures to their pages: run what is missing, show what is there."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.markdown import Markdown

from awnet.errors import Mistake
from awnet.folders import replace_file
from awnet.report.svg import standalone
from awnet.reproduce import table5
from awnet.reproduce.bench import Bench, needs
from awnet.reproduce.figures import by_line, weight_figure
from awnet.reproduce.measured import claims, measured
from awnet.reproduce.printed import FIGURES, TABLE5, TABLES, TITLES
from awnet.reproduce.show import markdown, rich_measured, sentence

ALL = (*(f"table{k}" for k in range(1, 12)), "fig1", "fig3", "fig4", "fig5", "own-best", "rivals")
assert set(ALL) == {*TABLES, TABLE5.name, *FIGURES}

Watch = Callable[[str], None]


class Work(NamedTuple):
    """Something to train or attack, apart from all else: what it is, for people, and a function that a process can be sent."""

    what: str
    do: Callable[[Watch], Any]


def produce(
    bench: Bench, names: Sequence[str], *, console: Console, only: Sequence[str] = (), run: bool = True, jobs: int = 1
) -> None:
    """Run what some tables and figures need, print each and write it as a page.

    Args:
        bench: where, and how large.
        names: of tables and figures.
        console: where they are printed.
        only: these systems alone.
        run: whether what is missing is trained and attacked.
        jobs: pieces of work at a time.

    Raises:
        Mistake: a name of `only` is in none of them, or nothing is run; or a training or an evaluation failed.
    """
    tables = [TABLES[name] for name in names if name in TABLES]
    folder = bench.out / bench.scale.name
    if only and not run:
        raise Mistake("--only chooses what is run, and nothing is; what is there is shown whole")
    if run:
        todo = list(missing(bench, names, only))
        if only and not todo:
            raise Mistake(f"none of {', '.join(only)} is in {', '.join(names)}")
        _run(todo, console, jobs)
    for table in tables:
        found = measured(bench, table)
        console.print(f"[bold]{table.name}: {table.title}[/] (scale: {bench.scale.name})\n", highlight=False)
        for shown in rich_measured(found):
            console.print(shown, "")
        for claim in claims(found):
            console.print(f"- {sentence(claim)}", highlight=False)
        page = markdown(bench, found, folder)
        if table.name.startswith("fig"):
            replace_file(folder / f"{table.name}.svg", standalone(by_line(found)))
            page += f"\n![{table.title}]({table.name}.svg)\n"
        replace_file(folder / f"{table.name}.md", page)
    if TABLE5.name in names:
        page = table5.page(bench, folder)
        console.print(Markdown(page), "")
        replace_file(folder / f"{TABLE5.name}.md", page)
    for name in names:
        if name in FIGURES:
            console.print(Markdown(weight_figure(bench, FIGURES[name], folder)), "")
    replace_file(folder / "README.md", _everything(bench, folder))


def _everything(bench: Bench, folder: Path) -> str:
    """One page of all tables and figures that have one, opened by how many of the paper's claims hold here."""
    of_paper = [table for table in TABLES.values() if table.name.startswith(("table", "fig"))]
    verdicts = Counter((c.attack, c.verdict) for table in of_paper for c in claims(measured(bench, table)))
    said = ("holds", "not distinguishable", "does not hold", "not run")
    rows = [f"| claims under | {' | '.join(said)} |", f"| --- |{' ---: |' * len(said)}"]
    for attack in dict.fromkeys(attack for attack, _ in verdicts):
        rows.append(f"| {_title(attack)} | {' | '.join(str(verdicts[attack, verdict]) for verdict in said)} |")
    pages = [folder / f"{name}.md" for name in ALL]
    opening = (
        f"# The paper's tables and figures at scale `{bench.scale.name}`\n\n{bench.scale.says}\n\n"
        f"`awnet reproduce --scale {bench.scale.name}` makes this page, runs what is missing and resumes what is there. "
        "A claim is that a system has a higher A_w under an attack than the best of its rivals in a table. It holds here where "
        "the difference, paired by image and with its 95 % interval over images (and over trainings, where there are several), "
        "lies above zero. It says nothing of any other attack.\n\n"
    )
    opening = opening.replace("A_w", "A\\_w") + "\n".join(rows) + "\n\n"
    return opening + "\n".join(page.read_text(encoding="utf-8") for page in pages if page.exists())


def _title(attack: str) -> str:
    surrogate = " of another network" if attack.endswith("surrogate") else ""
    return TITLES[attack].replace("_", "\\_") + surrogate


def missing(bench: Bench, names: Sequence[str], only: Sequence[str]) -> Iterator[Work]:
    """All that tables and figures need; what is there already is found to be so when its turn comes."""
    for job in needs(bench, [TABLES[name] for name in names if name in TABLES], only):
        yield Work(str(job), partial(bench.attack, job))
    for system in table5.watched() if TABLE5.name in names else ():
        if not only or system in only:
            yield Work(f"the detectors on {system}", partial(table5.judge, bench, system))
    for figure in [FIGURES[name] for name in names if name in FIGURES]:
        for system in [system for group in figure.groups.values() for system in group]:
            if not only or system in only:
                yield Work(f"{figure.data}/{system}", partial(bench.train, figure.data, system, 0))


def _run(todo: Sequence[Work], console: Console, jobs: int) -> None:
    """One after the other or several at a time; the first failure ends it, once what had begun is done."""

    def said(what: str) -> None:
        console.print(what, highlight=False)

    if jobs == 1:
        for work in todo:
            work.do(said)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        running = {pool.submit(_do, work): work for work in todo}
        try:
            for future in as_completed(running):
                future.result()
                said(f"done: {running[future].what}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _do(work: Work) -> None:
    def said(what: str) -> None:
        sys.stdout.write(f"{what}\n")
        sys.stdout.flush()

    work.do(said)


def _one_thread() -> None:
    torch.set_num_threads(1)

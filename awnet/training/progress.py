"""What a person sees of a training: a bar, a line an epoch, TensorBoard's events."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

EVERY = 20  # steps between two points of TensorBoard


class Progress:
    """Shows a training while it lasts.

    Args:
        epochs, steps: of the whole training, and of an epoch.
        quiet: show nothing.
        out: the run's folder, for TensorBoard.
        step: where a resumed run begins.
    """

    def __init__(self, epochs: int, steps: int, *, quiet: bool, out: Path, step: int) -> None:
        self._epochs, self._steps, self._step = epochs, steps, step
        self._console = Console(quiet=quiet)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=self._console, disable=quiet or not sys.stdout.isatty(), transient=True)
        self._out = out
        self._images = 0
        self._began = time.monotonic()
        self._writer: Any = None

    def __enter__(self) -> Progress:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(self._out), purge_step=self._step)
        self._bar.__enter__()
        self._task = self._bar.add_task("training", total=self._epochs * self._steps, completed=self._step)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(None, None, None)
        self._writer.close()

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text)

    def advance(self, images: int, means: dict[str, float]) -> None:
        """After a step: how many images it had, and the epoch's means so far."""
        self._images += images
        self._step += 1
        epoch = (self._step - 1) // self._steps + 1
        speed = self._images / (time.monotonic() - self._began)
        self._bar.update(self._task, advance=1, description=f"epoch {epoch} · {speed:.0f} images/s · {_text(means)}")
        if self._step % EVERY == 0:
            for name, value in {**means, "images_per_second": speed}.items():
                self._writer.add_scalar(f"train/{name}", value, self._step)

    def epoch(self, row: dict[str, float]) -> None:
        """After an epoch: its row of numbers."""
        speed = self._images / max(time.monotonic() - self._began, 1e-9)
        for name, value in row.items():
            self._writer.add_scalar(f"epoch/{name}", value, int(row["epoch"]))
        shown = {name: value for name, value in row.items() if name != "epoch"}
        self._console.print(
            f"epoch {row['epoch']:.0f}/{self._epochs} · {speed:.0f} images/s · {_text(shown)}", highlight=False
        )


def _text(numbers: dict[str, float]) -> str:
    """Losses, weights and probabilities in three figures; accuracies in percent."""
    parts = []
    for name, value in numbers.items():
        if name.startswith("validation_"):
            parts.append(f"{name.removeprefix('validation_')} {100 * value:.1f} %")
        elif name.startswith("training_"):  # accuracies on training images
            parts.append(f"{name.replace('_', ' ')} {100 * value:.1f} %")
        elif name not in ("lr_factor",):
            parts.append(f"{name.removeprefix('loss_')} {value:.3g}")
    return " · ".join(parts)

"""The folder of an evaluation: record, adversarial images, where the attack under way is; and what of it is still good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import torch

from awnet.attacks.attack import Attack
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import Outcome
from awnet.checkpoint import read_state
from awnet.config import to_json
from awnet.errors import Mistake
from awnet.evaluation.adversarials import Adversarials, forget_previous, read_adversarials
from awnet.evaluation.journal import Journal
from awnet.evaluation.likeness import alike
from awnet.evaluation.preflight import RANDOM
from awnet.evaluation.record import Record, Result
from awnet.evaluation.shared import Share
from awnet.folders import alone, remove_folder, whole_folder
from awnet.json_file import read_json

JOURNAL = "journal"  # the folder, inside the record's, of the attack under way; several processes have journal-0, ...
PREDICTIONS, MARGINS = "clean predictions", "margins"
TURNED = 0.005  # of the clean predictions, between two machines


class Keeping:
    """What an evaluation leaves in its folder as it goes on. Without a folder nothing is kept, and nothing is known.

    Args:
        out: the folder.
        share: the processes that evaluate; the first one alone writes the record.
        seconds: between two times of writing a journal.
        images: whether the adversarial images are kept too.
    """

    def __init__(self, out: Path | None, share: Share, *, seconds: float, images: bool) -> None:
        self.out, self._share, self._images = out, share, images
        self._seconds = seconds if out else inf  # nothing is ever due
        self._found: Adversarials | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder against other evaluations.

        Raises:
            Mistake: another process is at work in it, or it cannot be written.
        """
        with ExitStack() as held:
            if self.out:
                folder = alone(self.out)
                self._share.first(lambda: held.enter_context(folder))
            yield

    def known(self, record: Record, attacks: Mapping[str, Attack | Suite], *, resume: bool) -> Record:
        """The record with what the one in the folder holds already and is still good.

        That is what was found of the clean images, and of attacks with the settings that are asked for. An adversarial image
        is of the first attack that broke its example; where that one is run again, so is each other that broke an example of
        which no image is left.

        Raises:
            Mistake: that is the record of another evaluation, or of this one without `resume`; or an attack has to be run
                again that was not asked for.
        """
        out = self.out
        return self._share.first(lambda: self._with_known(out, record, attacks, resume=resume)) if out else record

    def journal(self, record: Record, name: str, attack: Attack | Suite) -> Journal:
        """Of this process, on one attack; another number of processes has other shares, and goes on from none of it."""
        of = {**_identity(record), "attack": name, "settings": to_json(attack)}
        out, share, place = self.out or Path(), self._share, JOURNAL
        if share.world > 1:
            place, of = f"{JOURNAL}-{share.rank}", {**of, "process": [share.rank, share.world]}
        return Journal(out / place, _as_written(out / place, of) if self.out else of, self._seconds)

    def save(self, record: Record, name: str, outcome: Outcome) -> Record:
        """Save the record after one more attack, with the images that this one broke first, and drop its journal.

        Args:
            record: with the attack's result.
            name: of the attack.
            outcome: of all examples.

        Returns:
            The record, which names the file of the images.
        """
        out = self.out
        if not out:
            return record

        def write() -> str:
            digest = self._save_images(out, record, name, outcome) if self._images else ""
            replace(record, adversarials=digest).save(out)
            forget_previous(out)
            for journal in _journals(out):
                remove_folder(journal)
            return digest

        return replace(record, adversarials=self._share.first(write))

    def save_unattacked(self, record: Record) -> None:
        """Save a record that no attack is planned for."""
        out = self.out
        if out:
            self._share.first(lambda: record.save(out))

    def _with_known(self, out: Path, record: Record, attacks: Mapping[str, Attack | Suite], *, resume: bool) -> Record:
        if not (out / "record.json").exists():
            if not resume and _journals(out):
                raise Mistake(f"{out} holds an evaluation under way; --resume goes on, or choose another --out")
            return record
        known = Record.load(out)
        other = _differing(_identity(record), _identity(known))
        if other:
            raise Mistake(f"{out} holds another evaluation ({' and '.join(other)} differ); choose another --out")
        if not resume:
            raise Mistake(
                f"{out} holds this evaluation already; --resume adds what is missing, or choose another --out"
            )
        asked = {name: to_json(attack) for name, attack in attacks.items()}
        kept = {
            name: found for name, found in known.attacks.items() if asked.get(name, found.settings) == found.settings
        }
        if self._images and known.adversarials:
            kept = self._with_images(out, known, kept, set(asked))
        elif kept:
            self._images = False  # those of the attacks to come alone would show the record in part
        samples = known.samples if known.samples and known.samples.attack in kept else None
        rigour = known.rigour if kept.keys() == known.attacks.keys() and asked.keys() <= kept.keys() else ()
        record = record.remarked(known.model.get("remarks", ()))
        clean, adversarials = known.clean, known.adversarials  # what counts as broken is what did when images were kept
        return replace(record, clean=clean, attacks=kept, samples=samples, adversarials=adversarials, rigour=rigour)

    def _with_images(self, out: Path, known: Record, kept: dict[str, Result], asked: set[str]) -> dict[str, Result]:
        """Of the results that could be kept those that the images still show."""
        found = read_adversarials(out, known.adversarials)
        shown = found.shown({name: known.clean.correct & ~result.correct for name, result in kept.items()})
        unasked = sorted(kept.keys() - shown - asked)
        if unasked:
            raise Mistake(
                f"{out} has no adversarial image left of some examples that {' and '.join(unasked)} broke; ask for "
                f"{'them' if len(unasked) > 1 else 'it'} too, to be run again, or choose another --out"
            )
        self._found = found.of(shown)
        return {name: result for name, result in kept.items() if name in shown}

    def _save_images(self, out: Path, record: Record, name: str, outcome: Outcome) -> str:
        channels, height, width = record.data["shape"]
        before = self._found or Adversarials.none((channels, height, width))
        self._found = before.joined(name, record.ids, outcome.x_adv, record.clean.correct & ~outcome.correct)
        return self._found.save(out, before=record.adversarials)


def batch_size_in(out: Path) -> int | None:
    """The batch size of the evaluation that a folder holds, finished or under way; None where none can be read there."""
    try:
        if (out / "record.json").exists():
            run = read_json(out / "record.json")["run"]
        else:
            run = read_json(_journals(out)[0] / "training.json")["state"]["of"]["seed or engine"]
        size = run["engine"]["batch_size"]
    except (Mistake, LookupError, TypeError):
        return None
    return size if isinstance(size, int) and size > 0 else None


def _journals(out: Path) -> list[Path]:
    """Those of all processes, the ones before where a process died in writing included."""
    return sorted(path for path in out.glob(f"{JOURNAL}*") if path.suffix != ".part")


def _as_written(folder: Path, of: dict[str, Any]) -> dict[str, Any]:
    """What a journal says that it is of, where that is the same but for rounding."""
    if not (whole_folder(folder) / "training.json").exists():
        return of
    known = read_state(folder).get("of")
    return known if isinstance(known, dict) and not _differing(of, known) else of


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The names of what differs; margins and clean predictions only tell where all else is the same."""
    answers = (MARGINS, PREDICTIONS)
    other = [name for name in {**theirs, **ours} if name not in answers and ours.get(name) != theirs.get(name)]
    if other:
        return other
    for name, same in zip(answers, (alike, _agree), strict=True):
        a, b = ours.get(name), theirs.get(name)
        if a is not None and b is not None and not same(a, b):  # an earlier version wrote none
            return [name]
    return []


def _agree(ours: list[int], theirs: list[int]) -> bool:
    if len(ours) != len(theirs):
        return False
    return float((torch.tensor(ours) != torch.tensor(theirs)).double().mean()) <= TURNED


def _identity(record: Record) -> dict[str, Any]:
    """What has to be the same for results to stand in one record.

    Margins and clean predictions tell a network whose settings are no tensors; not one that draws random numbers.
    """
    model = {name: record.model.get(name) for name in ("class", "fingerprint", "knob")}
    drawn = any(remark.startswith(RANDOM) for remark in record.model.get("remarks", ()))
    return {
        "network": model,
        "images": record.data,
        "threat model": record.threat,
        "seed or engine": record.run,
        MARGINS: None if drawn else record.model.get("margins"),
        PREDICTIONS: None if drawn else record.clean.prediction.tolist(),
    }

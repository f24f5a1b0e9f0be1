"""The folder of an evaluation: record, adversarial images, where the attack under way is; and what of it is still good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from awnet.attacks.attack import Attack
from awnet.attacks.engine import Outcome
from awnet.attacks.suite import Suite
from awnet.config import to_json
from awnet.errors import Mistake
from awnet.evaluation.adversarials import Adversarials, forget_previous, read_adversarials
from awnet.evaluation.journal import Journal
from awnet.evaluation.record import Record
from awnet.evaluation.shared import Share
from awnet.folders import alone, remove_folder
from awnet.json_file import read_json

JOURNAL = "journal"  # the folder, inside the record's, of the attack under way; several processes have journal-0, ...


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
        """The record with what the one in the folder holds already.

        Raises:
            Mistake: that is the record of another evaluation, or of this one without `resume`.
        """
        out = self.out
        if not out:
            return record
        record = self._share.first(lambda: _with_known(out, record, attacks, resume=resume))
        if self._share.leads and self._images and record.adversarials:
            self._found = read_adversarials(out, record.adversarials).of(set(record.attacks))
        return record

    def journal(self, record: Record, name: str, attack: Attack | Suite) -> Journal:
        """Of this process, on one attack; another number of processes has other shares, and goes on from none of it."""
        of = {**_identity(record), "attack": name, "settings": to_json(attack)}
        out, share = self.out or Path(), self._share
        if share.world == 1:
            return Journal(out / JOURNAL, of, self._seconds)
        return Journal(out / f"{JOURNAL}-{share.rank}", {**of, "process": [share.rank, share.world]}, self._seconds)

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


def _with_known(out: Path, record: Record, attacks: Mapping[str, Attack | Suite], *, resume: bool) -> Record:
    if not (out / "record.json").exists():
        if not resume and _journals(out):
            raise Mistake(f"{out} holds an evaluation under way; --resume goes on, or choose another --out")
        return record
    known = Record.load(out)
    ours, theirs = _identity(record), _identity(known)
    other = [name for name in ours if ours[name] != theirs[name]]
    if other:
        raise Mistake(f"{out} holds another evaluation ({' and '.join(other)} differ); choose another --out")
    if not resume:
        raise Mistake(f"{out} holds this evaluation already; --resume adds what is missing, or choose another --out")
    asked = {name: to_json(attack) for name, attack in attacks.items()}
    kept = {name: found for name, found in known.attacks.items() if asked.get(name, found.settings) == found.settings}
    samples = known.samples if known.samples and known.samples.attack in kept else None
    rigour = known.rigour if kept.keys() == known.attacks.keys() and asked.keys() <= kept.keys() else ()
    record = record.remarked(known.model.get("remarks", ()))
    return replace(record, attacks=kept, samples=samples, adversarials=known.adversarials, rigour=rigour)


def _identity(record: Record) -> dict[str, Any]:
    """What has to be the same for results to stand in one record."""
    model = {name: record.model.get(name) for name in ("class", "fingerprint", "knob")}
    return {"network": model, "images": record.data, "threat model": record.threat, "seed or engine": record.run}

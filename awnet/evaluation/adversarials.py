"""The adversarial images of a record: for each example that an attack broke the very image, so that anybody can look.

A file `adversarials.safetensors` beside `record.json`, which names its digest. A record is read without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from awnet.errors import Mistake
from awnet.folders import replace_file
from awnet.types import Hits, Images

FILE, PREVIOUS = "adversarials.safetensors", "adversarials.previous.safetensors"


@dataclass(frozen=True, kw_only=True)
class Adversarials:
    """One image for each of k broken examples: of the first attack that broke it.

    Attributes:
        attacks: names.
        positions: which examples of the record they are, rising, shape (k,).
        ids: their places in their split.
        by: of each image the place of its attack in `attacks`.
        x_adv: the images as they were judged, float32.
    """

    attacks: tuple[str, ...]
    positions: Tensor
    ids: Tensor
    by: Tensor
    x_adv: Images

    @staticmethod
    def none(shape: tuple[int, int, int]) -> Adversarials:
        """Before the first attack."""
        nobody = torch.empty(0, dtype=torch.int64)
        return Adversarials(attacks=(), positions=nobody, ids=nobody, by=nobody, x_adv=torch.empty(0, *shape))

    def __len__(self) -> int:
        return len(self.positions)

    def joined(self, attack: str, ids: Tensor, x_adv: Images, broken: Hits) -> Adversarials:
        """With the images of another attack, where no attack before it broke the example.

        Args:
            attack: its name.
            ids: of all examples of the record, shape (n,).
            x_adv: what it made of them.
            broken: which it broke.
        """
        new = broken.clone()
        new[self.positions] = False
        positions = torch.cat([self.positions, new.nonzero()[:, 0]])
        order = positions.argsort()
        by = torch.cat([self.by, torch.full((int(new.sum()),), len(self.attacks))])
        return Adversarials(
            attacks=(*self.attacks, attack),
            positions=positions[order],
            ids=ids[positions[order]],
            by=by[order],
            x_adv=torch.cat([self.x_adv, x_adv[new]])[order],
        )

    def of(self, attacks: set[str]) -> Adversarials:
        """Those of some attacks alone."""
        names = tuple(name for name in self.attacks if name in attacks)
        place = torch.tensor([names.index(name) if name in attacks else -1 for name in self.attacks] or [-1])
        by = place[self.by]
        kept = by >= 0
        return Adversarials(
            attacks=names, positions=self.positions[kept], ids=self.ids[kept], by=by[kept], x_adv=self.x_adv[kept]
        )

    def shown(self, broke: Mapping[str, Hits]) -> set[str]:
        """The largest set of these attacks in which each example that one broke has an image, made by one of the set.

        Args:
            broke: by the names of the attacks, which examples of the record each broke.
        """
        names = set(broke)
        while True:
            positions = self.of(names).positions
            bare = {name for name in names if broke[name].index_fill(0, positions, False).any()}
            if not bare:
                return names
            names -= bare

    def save(self, folder: Path, before: str = "") -> str:
        """Write the file; the one before stays until `forget_previous`, for a reader who meets the old record.json.

        Args:
            folder: the record's.
            before: the digest that its record.json names as yet.

        Returns:
            The digest, for the record.

        Raises:
            Mistake: where the disk is full or may not be written; the old file is still there.
        """
        tensors = {name: getattr(self, name).contiguous() for name in ("positions", "ids", "by", "x_adv")}
        content = save(tensors, metadata={"attacks": json.dumps(self.attacks)})
        if before and _digest(folder / FILE) == before:
            (folder / FILE).replace(folder / PREVIOUS)
        replace_file(folder / FILE, content)
        return _digest(folder / FILE)


def forget_previous(folder: Path) -> None:
    """Remove the file before, once record.json names the new one."""
    (folder / PREVIOUS).unlink(missing_ok=True)


def read_adversarials(folder: Path, digest: str) -> Adversarials:
    """The images that belong to a record.

    Args:
        folder: the record's.
        digest: that the record names; "" where it names none.

    Raises:
        Mistake: where it names none, or there is no such file, or it is another's or damaged.
    """
    found, belongs = find_adversarials(folder, digest)
    if not belongs:
        raise Mistake(f"{folder / FILE} is not the file that the record beside it names; evaluate again")
    return found


def find_adversarials(folder: Path, digest: str) -> tuple[Adversarials, bool]:
    """The images beside a record, and whether they are those that it names.

    Raises:
        Mistake: where there are none, or their file is damaged.
    """
    if not digest:
        raise Mistake(f"the record in {folder} was made without keeping its adversarial images; evaluate again")
    paths = [path for path in (folder / FILE, folder / PREVIOUS) if path.is_file()]
    if not paths:
        raise Mistake(f"{folder / FILE} is missing, which the record beside it names")
    path = next((path for path in paths if _digest(path) == digest), None)
    return _read(path or paths[0]), path is not None


def _read(path: Path) -> Adversarials:
    try:
        with safe_open(path, "pt") as file:
            attacks = json.loads((file.metadata() or {})["attacks"])
            found = {name: file.get_tensor(name) for name in ("positions", "ids", "by", "x_adv")}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise Mistake(f"{path} is damaged ({error}); evaluate again") from None
    places = ("positions", "ids", "by")
    k = len(found["positions"]) if found["positions"].ndim else -1
    whole = all(found[name].dtype == torch.int64 and found[name].shape == (k,) for name in places)
    x_adv, named = found["x_adv"], isinstance(attacks, list) and all(isinstance(name, str) for name in attacks)
    if not whole or not named or x_adv.dtype != torch.float32 or x_adv.ndim != 4 or len(x_adv) != k:
        raise Mistake(f"{path} is damaged (it does not hold one image for each of its examples); evaluate again")
    if k and not 0 <= int(found["by"].min()) <= int(found["by"].max()) < len(attacks):
        raise Mistake(f"{path} is damaged (it names {len(attacks)} attacks, its images others); evaluate again")
    return Adversarials(attacks=tuple(attacks), **found)


def _digest(path: Path) -> str:
    """Of a file; "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()

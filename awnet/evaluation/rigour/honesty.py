"""C10: what a record says, and does not say, of how its numbers came about.

Carlini et al. (2019), sections 4.1 and 6: all test images, none of them used to choose the checkpoint, and everything that is
needed to repeat the evaluation. Read from the record alone, but for what another seed would have said; on the report's page it
stands for the same doubts there.
"""

from __future__ import annotations

from collections.abc import Iterator

from awnet.evaluation.metrics import accuracy
from awnet.evaluation.rigour.check import Part, Trial, check
from awnet.evaluation.rigour.seeds import seeded

FEW = 1000  # images below which an interval is wider than most differences that are claimed


@check("C10", "leakage and honesty")
def honest(trial: Trial) -> Iterator[Part]:
    """Choice of the checkpoint, images, seeds, precision, what is missing."""
    record = trial.record
    if record is None:
        yield Part("skipped", "There is no record to read it from.")
        return
    reach = accuracy(record.worst)
    half = 50 * (reach.high - reach.low)
    figures = {"images": float(len(record)), "interval of the worst case, points either way": half, "seeds": 1.0}
    missing = [name for name in record.planned if name not in record.attacks]
    if missing:
        yield Part("fail", f"{len(missing)} of its {len(record.planned)} attacks are missing.", "Go on with --resume.")
    if not record.attacks:
        yield Part(
            "fail", "No attack was run: the worst case is the clean accuracy.", "Run some, such as --attacks aa."
        )
    if record.model.get("selection") == "paper":
        text = "The checkpoint was chosen on test images, so its numbers are optimistic."
        yield Part("fail", text, "Choose it on validation images.")
    if record.data.get("split") == "train":
        yield Part("fail", "The images are those that the network was trained on.", "Evaluate on the test split.")
    if record.data.get("limit") is not None:
        text = f"Judged on a sample of {len(record):,} images, not on all of them."
        yield Part("warn", text, "Leave --limit out for a number that is to be published.")
    elif len(record) < FEW:
        yield Part(
            "warn", f"Only {len(record):,} images: the worst case is known to ±{half:.1f} points.", "Take more images."
        )
    if (record.run.get("engine") or {}).get("precision") == "bfloat16":
        text = "The search ran in bfloat16: successes were confirmed in float32, but what it missed stays unseen."
        yield Part("warn", text, "Run the strongest attack once more in float32.")
    if str(record.provenance.get("commit") or "").endswith("+"):
        yield Part("warn", "Made with changes to the code that are in no commit.", "Commit them and evaluate again.")
    lacks = [
        name
        for name, there in {
            "how the checkpoint was chosen": record.model.get("selection"),
            "the network's fingerprint": record.model.get("fingerprint"),
            "the images' fingerprint": record.data.get("fingerprint"),
            "the seed": record.run.get("seed") is not None,
            "versions": record.provenance.get("versions"),
        }.items()
        if not there
    ]
    if lacks:
        yield Part("warn", f"The record does not say {', '.join(lacks)}.", "Say it beside the number.")
    text = f"All images, chosen honestly and told in full; one seed, and the worst case is known to ±{half:.1f} points."
    yield Part("pass", text, "", figures)
    yield from seeded(trial)

"""How time and memory of an attack grow with the number of images.

    python benchmarks/scaling.py --images 1000 4000 16000 --out scaling.json

Each number of images is a process of its own: PGD of a few steps on a small network without training, as AutoAttack would run
it, in a suite. Time should grow as the images do. Memory of the device should not grow at all, for it holds one batch; the
machine's holds what comes out, an adversarial image in float32 for each image, and should grow by little more than that. The
images of the data come a batch at a time, as from a file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import torch
from torch import Tensor

from awnet.attacks import PGD, Engine, Suite
from awnet.models import ResNetConfig, create
from awnet.provenance import provenance
from awnet.threat_model import Linf
from awnet.types import Images, Labels


class Made:
    """Images that are made when they are asked for, and of which none is kept."""

    def __init__(self, images: int, pixels: int) -> None:
        self.ids, self.pixels = torch.arange(images), pixels
        self.labels = torch.zeros_like(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Tensor) -> tuple[Images, Labels]:
        ramp = torch.arange(3 * self.pixels**2).view(3, self.pixels, self.pixels)
        x = ((ramp * (indices[:, None, None, None] + 1)) % 257).float() / 256
        return x, self.labels[indices]


def arguments() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--pixels", type=int, default=32, help="of a side")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: its own choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", action="store_true", help="run the first number here and print its figures")
    parser.add_argument("--out", type=Path, help="the record, a JSON file")
    return parser.parse_args()


def measured(options: Namespace) -> dict[str, float]:
    """The figures of one number of images, in this process."""
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = create(ResNetConfig(depth=10, width=8), classes=10).to(options.device).eval()
    with torch.no_grad():
        list(model.children())[-1].bias[0] = 100  # class 0 always: no image is spared the attack
    pgd = PGD(threat=Linf(8 / 255), steps=options.steps, step_size=2 / 255, unit="pixel")
    suite, engine = Suite(members=(("pgd", pgd),)), Engine(batch_size=options.batch, precision="bfloat16")
    engine.run(suite, model, Made(2 * options.batch, options.pixels))  # what comes once only
    before, on_cuda = getrusage(RUSAGE_SELF).ru_maxrss, options.device.startswith("cuda")
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    began, worked = time.perf_counter(), time.process_time()
    outcome = engine.run(suite, model, Made(options.images[0], options.pixels))
    assert bool(outcome.correct.all())
    return {
        "images": options.images[0],
        "seconds": time.perf_counter() - began,
        "seconds of work": time.process_time() - worked,
        "machine's memory more, MiB": (getrusage(RUSAGE_SELF).ru_maxrss - before) / 2**10,
        "device's peak, MiB": torch.cuda.max_memory_allocated() / 2**20 if on_cuda else 0.0,
    }


def main() -> None:
    """Measures each number of images in a process of its own, prints a table and writes the record."""
    options = arguments()
    if options.one:
        sys.stdout.write(json.dumps(measured(options)) + "\n")
        return
    same = [f"--{name}={getattr(options, name)}" for name in ("pixels", "steps", "batch", "threads", "device")]
    rows = []
    for images in options.images:
        command = [sys.executable, __file__, "--one", f"--images={images}", *same]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    image = 3 * options.pixels**2 * 4 / 2**10
    least, most = rows[0], rows[-1]
    grown = most["machine's memory more, MiB"] - least["machine's memory more, MiB"]
    slope = grown * 2**10 / (most["images"] - least["images"])
    sys.stdout.write("| " + " | ".join(rows[0]) + " | ms of work an image |\n" + "|--:" * (len(rows[0]) + 1) + "|\n")
    for row in rows:
        each = 1e3 * row["seconds of work"] / row["images"]
        sys.stdout.write("| " + " | ".join(f"{value:.5g}" for value in row.values()) + f" | {each:.2f} |\n")
    sys.stdout.write(f"an image more: {slope:.1f} KiB, of which {image:.1f} are its adversarial image in float32\n")
    if options.out:
        settings = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
        where = {name: value for name, value in provenance().items() if name != "command"}
        record = {"settings": settings, "provenance": where, "rows": rows, "KiB an image": slope, "image, KiB": image}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

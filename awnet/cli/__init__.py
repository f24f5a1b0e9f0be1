"""The command line: awnet train | evaluate | verify | detect | analyse | calibrate | predict | import | mix | nuts |
turn | export | report | reproduce | list | demo.

Each command reads what the one before it wrote. A user's mistake gets one sentence and exit code 2, Ctrl-C 130.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from awnet.cli.analyse import analyse
from awnet.cli.arguments import number
from awnet.cli.calibrate import calibrate
from awnet.cli.demo import demo
from awnet.cli.detect import detect
from awnet.cli.evaluate import evaluate
from awnet.cli.export import export
from awnet.cli.import_public import import_public
from awnet.cli.list import list_names
from awnet.cli.mix import mix
from awnet.cli.nuts import nuts
from awnet.cli.predict import predict
from awnet.cli.report import report
from awnet.cli.reproduce import reproduce
from awnet.cli.train import train
from awnet.cli.turn import turn
from awnet.cli.verify import verify
from awnet.errors import Mistake, unknown

HELP = """awnet: train, attack and judge image classifiers

  awnet train RECIPE        train a recipe, or a saved experiment.json
  awnet evaluate RUN        attack a checkpoint and write a record
  awnet verify RECORD       re-check a record from its adversarial images, in seconds
  awnet detect RUN          judge how well it tells attacked images from clean ones
  awnet analyse weights RUN how training has spread its filters, and what omega does to them
  awnet calibrate RUN       set when an image looks attacked, on clean images
  awnet predict IMAGE...    classify images, and say whether they look attacked
  awnet import FILE         make a checkpoint of public weights in their authors' format
  awnet mix CLEAN ROBUST    make the static mixture of two checkpoints
  awnet nuts CLEAN ROBUST   make their nonlinear static mixture, MixedNUTS, set on validation images
  awnet turn RUN            choose the balance of an OAT network
  awnet export RUN          write it as ONNX, as a PyTorch program, or as a folder for the Hugging Face hub
  awnet report RECORD...    turn records into one page
  awnet reproduce [TABLE]   the paper's tables and figures, its numbers and ours side by side
  awnet list [KIND]         models, attacks, detectors, protocols, objectives, data, recipes
  awnet demo                the whole way on embedded images, in minutes

  awnet COMMAND --help tells more of each."""

COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "evaluate": evaluate,
    "verify": verify,
    "calibrate": calibrate,
    "detect": detect,
    "analyse": analyse,
    "predict": predict,
    "import": import_public,
    "mix": mix,
    "nuts": nuts,
    "turn": turn,
    "export": export,
    "report": report,
    "reproduce": reproduce,
    "list": list_names,
    "demo": demo,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: run one command and exit with 0, 2 for a user's mistake, 130 after Ctrl-C, or 141 where nobody reads on."""
    argv = [number(a) for a in (sys.argv[1:] if argv is None else argv)]
    try:
        try:
            _run(argv)
        finally:  # also where a command ends by itself, as --help does
            sys.stdout.flush()
    except Mistake as mistake:
        _say(str(mistake))
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        _say(str(interrupt) or "stopped; what was saved before is kept; run the same command again")
        sys.exit(130)
    except BrokenPipeError:  # whoever read along, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(141)


def _run(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP)
    elif argv[0] in ("-V", "--version"):
        import awnet

        print(f"awnet {awnet.__version__}")
    elif argv[0] not in COMMANDS:
        raise unknown("command", argv[0], COMMANDS)
    else:
        COMMANDS[argv[0]](argv[1:])


def _say(sentence: str) -> None:
    """One line, whatever a library in between has put into it."""
    print(f"awnet: {' '.join(sentence.split())}", file=sys.stderr)

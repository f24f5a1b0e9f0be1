"""Mistakes as a user makes them: each is told in one sentence, with exit code 2, and leaves everything as it was."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import bad
from awnet.cli import main
from conftest import REPO, TINY

TRAIN = ["train", "digits/standard", *TINY, "--out", "PLACE/new"]
AGAIN = ["train", "digits/standard", *TINY, "--out", "RUN", "--resume"]
SET = ["train", "cifar10/standard-small", "--data-dir", "PLACE/set", "--out", "PLACE/new"]
PETS = ["train", "digits/standard", *TINY, "--data.name", "PLACE/pets", "--out", "PLACE/new"]
EVALUATE = ["evaluate", "RUN", "--limit", "20", "--out", "PLACE/new", "--attacks", "fgsm"]
PREDICT = ["predict", "PLACE/image.png", "--model", "RUN"]
REPORT = ["report", "PLACE/record", "--out", "PLACE/page.html"]
DYNAMIC = ["evaluate", "PLACE/dynamic", "--attacks", "fgsm", "--limit", "20", "--out", "PLACE/new"]
STATE = "run/last/training.json"
ABOUT = "run/best/model.json"
WEIGHTS = "run/best/model.safetensors"


def recipe(*fields: str) -> list[str]:
    """A training with some fields of its own."""
    return [*TRAIN, *fields]


def awnet(*fields: str) -> list[str]:
    """The same of an AW-Net."""
    return ["train", "digits/awnet", "--out", "PLACE/new", *fields]


@dataclass(frozen=True)
class Case:
    """What a user does, and a piece of the answer.

    Args:
        argv: the command; RUN is a copy of a trained static network, PLACE the folder that it is in.
        says: what the sentence must contain.
        damage: done to PLACE before.
        breaks: what is made to fail while the command runs.
        code: the exit code.
    """

    argv: list[str]
    says: str
    damage: bad.Damage = lambda place: None
    breaks: Callable[[pytest.MonkeyPatch], None] = lambda patch: None
    code: int = 2


def full_disk(patch: pytest.MonkeyPatch) -> None:
    def fsync(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(os, "fsync", fsync)


def full_for_weights(patch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def save_file(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    patch.setattr("awnet.checkpoint.save_file", save_file)


def no_cache(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWNET_CACHE_DIR", "/dev/null/cache")


def no_sets(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWNET_DATA_DIR", "/nowhere/at/all")


def held(patch: pytest.MonkeyPatch) -> None:
    """Whatever folder is asked for, another process works in it."""
    from filelock import FileLock, Timeout

    def acquire(lock: FileLock, *args: object, **more: object) -> None:
        raise Timeout(str(lock.lock_file))

    patch.setattr("awnet.folders.FileLock.acquire", acquire)


def evaluated(place: Path) -> None:
    """The evaluation is there already."""
    main([part.replace("RUN", str(place / "run")).replace("PLACE", str(place)) for part in EVALUATE])


def ctrl_c_at(batch: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Ctrl-C is pressed while a network sees its so-manieth batch."""

    def breaks(patch: pytest.MonkeyPatch) -> None:
        from awnet.models.resnet import ResNetTrunk

        forward, seen = ResNetTrunk.forward, []

        def interrupted(self: Any, x: Any) -> Any:
            seen.append(x)
            if len(seen) == batch:
                os.kill(os.getpid(), signal.SIGINT)
            return forward(self, x)

        patch.setattr(ResNetTrunk, "forward", interrupted)

    return breaks


def early_ctrl_c(patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is pressed while images are read."""

    def load(config: object) -> None:
        raise KeyboardInterrupt  # what Python makes of the signal, also where the tests run in the background

    patch.setattr("awnet.data.load", load)
    patch.setattr("awnet.experiment.load", load)


class Evil:
    """Unpickling it leaves a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("unpickled", "w")


def lacks(*names: str) -> Callable[[dict[str, Any]], object]:
    return lambda about: [about.pop(name) for name in names]


def first_image(content: bytes) -> Callable[[list[dict[str, Any]]], object]:
    return lambda rows: rows[0]["img"].update(bytes=content)


def architecture(**changes: Any) -> bad.Damage:
    return bad.said(ABOUT, lambda about: about["architecture"].update(changes))


def experiment(change: Callable[[dict[str, Any]], object]) -> bad.Damage:
    return bad.said("run/experiment.json", lambda text: change(text["experiment"]))


MISTAKES = {
    # --- what is typed ---
    "unknown command": Case(["tain"], "did you mean train"),
    "no recipe": Case(["train"], "awnet list recipes"),
    "misspelt recipe": Case(["train", "digits/awnett"], "did you mean digits/awnet"),
    "misspelt field": Case(recipe("--training.epoch", "3"), "did you mean --training.epochs"),
    "misspelt field, deep": Case(awnet("--lr", "3"), "--training.optimizer.lr"),
    "value of the wrong type": Case(recipe("--training.epochs", "many"), "many"),
    "value missing": Case(recipe("--training.epochs"), "--training.epochs"),
    "value of none": Case(recipe("--model.depth", "7"), "'10', '18', '34', '50'"),
    "unknown kind to list": Case(["list", "modles"], "models"),
    "option missing": Case(["mix", "RUN", "RUN"], "--out"),
    "unknown device": Case(recipe("--device", "tpu"), "cpu, cuda or auto"),
    "no such device": Case(recipe("--device", "cuda"), "no CUDA device"),
    "no such device to evaluate": Case([*EVALUATE, "--device", "cuda"], "no CUDA device"),
    "unknown device to predict": Case([*PREDICT, "--device", "gpu"], "cpu or cuda"),
    "number of the wrong type": Case([*EVALUATE, "--seed", "many"], "--seed expects a whole number, got 'many'"),
    "a run that is not there": Case(["train", "missing/experiment.json"], "there is no such file"),
    "a protocol and attacks": Case([*EVALUATE, "--protocol", "quick@1"], "leave out --attacks"),
    "a budget and attacks": Case([*EVALUATE, "--budget", "1s"], "leave out --attacks"),
    "a suite to settle and attacks": Case([*EVALUATE, "--settle"], "leave out --attacks"),
    "a range that nobody doubts": Case(
        [*EVALUATE, "--trust-range"], "is for a network of your own, a surrogate or a teacher"
    ),
    "rounds of nothing": Case([*EVALUATE, "--rounds", "3"], "give --settle too"),
    "one round that settles nothing": Case([*EVALUATE[:-2], "--settle", "--rounds", "1"], "in 2 or more rounds, got 1"),
    "a suite to settle in a time": Case(
        [*EVALUATE[:-2], "--settle", "--budget", "1s"], "leave out --budget or --settle"
    ),
    "a file of no places": Case(
        [*EVALUATE, "--indices", "PLACE/no"],
        "names none of the 359 test images of digits: they have no names",
        damage=bad.put("no", b"n01/a\n"),
    ),
    "places beyond the set": Case(
        [*EVALUATE, "--indices", "PLACE/no"], "has 0 to 358", damage=bad.put("no", b"3\n359\n")
    ),
    "a size that a checkpoint knows": Case([*EVALUATE, "--image-size", "12"], "are for a network of your own"),
    "a place twice": Case([*EVALUATE, "--indices", "PLACE/no"], "each once", damage=bad.put("no", b"3\n3\n")),
    "places in no file": Case([*EVALUATE, "--indices", "PLACE/no"], "No such file"),
    "a surrogate of other images": Case(
        [*EVALUATE, "--surrogates", "PLACE/dynamic"],
        "takes images of shape (3, 8, 8), digits has (1, 8, 8)",
        damage=bad.said("dynamic/best/model.json", lambda about: about.update(shape=[3, 8, 8])),
    ),
    "a surrogate of other classes": Case(
        [*EVALUATE, "--surrogates", "PLACE/dynamic"],
        "has 5 classes, digits has 10",
        damage=bad.said("dynamic/best/model.json", lambda about: about.update(classes=list("abcde"))),
    ),
    "a surrogate that is not there": Case([*EVALUATE, "--surrogates", "missing"], "missing"),
    "a teacher of other classes": Case(
        [*EVALUATE, "--teacher", "PLACE/dynamic"],
        "has 5 classes, digits has 10",
        damage=bad.said("dynamic/best/model.json", lambda about: about.update(classes=list("abcde"))),
    ),
    "a teacher that is not there": Case([*EVALUATE, "--teacher", "missing"], "missing"),
    "a teacher within a budget": Case([*EVALUATE, "--teacher", "PLACE/dynamic", "--budget", "1s"], "--teacher"),
    # --- the threat ---
    "eps in 255ths": Case(recipe("--threat.eps", "8"), "8/255"),
    "eps negative": Case(recipe("--threat.eps", "-0.1"), "0 <= eps <= 1"),
    "eps of no number": Case([*EVALUATE, "--eps", "8/0"], "--eps expects a number such as 0.03 or 8/255, got '8/0'"),
    "eps nan": Case(recipe("--threat.eps", "nan"), "got nan"),
    "eps in 255ths to evaluate": Case([*EVALUATE, "--eps", "8"], "8/255"),
    "another norm without its eps": Case([*EVALUATE, "--norm", "l2"], "eps"),
    "L2 in 255ths": Case([*EVALUATE, "--norm", "l2", "--eps", "128"], "128/255"),
    "unknown norm": Case([*EVALUATE, "--norm", "l7"], "linf"),
    "unknown attack": Case([*EVALUATE[:-1], "pgd-satt"], "did you mean pgd-sat"),
    "attacks twice": Case(
        [*EVALUATE, "--attacks", "aa"], "--attacks is given twice; give it once, with all of its values"
    ),
    "unknown attack of the selection": Case(recipe("--selection.attack", "pgd"), "pgd-sat"),
    # --- settings that mean nothing ---
    "width 0": Case(recipe("--model.width", "0"), "1 or more, got 0"),
    "width of a machine": Case(recipe("--model.width", "100000"), "at most 1e+09"),
    "width beyond all numbers": Case(recipe("--model.width", str(10**12)), "too large to be built"),
    "std 0": Case(recipe("--model.mean", "0.5", "--model.std", "0"), "positive stds"),
    "std of three channels for grey": Case(
        recipe("--model.mean", "0", "0", "0", "--model.std", "1", "1", "1"), "each of 1 channels"
    ),
    "router of no width": Case(awnet("--model.router.backbone.width", "-3"), "1 or more, got -3"),
    "beta 0": Case(awnet("--model.beta", "0"), "positive"),
    "p_max above one": Case(awnet("--model.knob.p-max", "2"), "p_max"),
    "type_bias nan": Case(awnet("--model.knob.type-bias", "nan"), "log-odds"),
    "no epochs": Case(recipe("--training.epochs", "0"), "epochs >= 1"),
    "batch of one": Case(recipe("--training.batch-size", "1"), "batch_size >= 2"),
    "batch of none": Case(recipe("--training.batch-size", "0"), "batch_size >= 2"),
    "validation never": Case(recipe("--training.validate-every", "0"), "validate_every >= 1"),
    "ema 1": Case(recipe("--training.ema", "1"), "0 <= ema < 1"),
    "clip negative": Case(recipe("--training.clip", "-1"), "clip"),
    "warm-up longer than the training": Case(recipe("--training.eps-warm-up", "2"), "between 0 and 1"),
    "statistics of nothing": Case(recipe("--training.statistics-images", "0"), "statistics_images >= 1"),
    "saving never": Case(recipe("--training.save-seconds", "nan"), "save_seconds >= 0"),
    "negative learning rate": Case(recipe("--training.optimizer.lr", "-1"), "positive"),
    "infinite learning rate": Case(recipe("--training.optimizer.lr", "inf"), "finite"),
    "learning rate of a router": Case(awnet("--training.optimizer.router-lr", "0"), "router_lr 0"),
    "momentum 1": Case(recipe("--training.optimizer.momentum", "1"), "momentum < 1"),
    "weight decay negative": Case(recipe("--training.optimizer.weight-decay", "-1"), "weight_decay"),
    "nesterov without momentum": Case(
        recipe("--training.optimizer.momentum", "0", "--training.optimizer.nesterov"), "Nesterov"
    ),
    "warm-up of the learning rate": Case(recipe("--training.schedule.warm-up", "1.5"), "between 0 and 1"),
    "no inner steps": Case(["train", "digits/pgd-at", "--objective.steps", "0"], "at least one step"),
    "inner steps of no size": Case(["train", "digits/pgd-at", "--objective.step-size", "nan"], "positive size"),
    "clean weight negative": Case(["train", "digits/pgd-at", "--objective.clean-weight", "-1"], "clean_weight"),
    "tau 0": Case(awnet("--objective.over.tau", "0"), "tau"),
    "kd_scale negative": Case(awnet("--objective.over.kd-scale", "-1"), "kd_scale"),
    "weight_lr above 1": Case(awnet("--objective.over.weight-lr", "2"), "weight_lr <= 1"),
    "type_weight negative": Case(awnet("--objective.type-weight", "-1"), "type_weight"),
    "seed beyond 64 bits": Case(recipe("--seed", str(2**70)), "64 bits"),
    "selection on nothing": Case(recipe("--selection.limit", "0"), "at least 1 image"),
    "selection by nothing": Case(recipe("--selection.gamma-nat", "0", "--selection.gamma-adv", "0"), "weights of A_w"),
    "no teacher": Case(awnet("--objective.over.clean-teacher", ""), "clean teacher"),
    "unknown teacher": Case(awnet("--objective.over.clean-teacher", "digits/standart"), "digits/standart"),
    # --- data ---
    "unknown data": Case(recipe("--data.name", "cifar11"), "cifar10"),
    "missing data folder": Case(["train", "cifar10/standard-small", "--data-dir", "nowhere"], "nowhere"),
    "missing folder of sets": Case(["train", "cifar10/standard-small"], "AWNET_DATA_DIR", breaks=no_sets),
    "a folder for a set without": Case(recipe("--data-dir", "PLACE"), "leave it out"),
    "missing class folders": Case(recipe("--data.name", "PLACE/nowhere"), "there is no folder"),
    "image size 0": Case(recipe("--data.image-size", "0"), "8 to 8192, got 0"),
    "image size of a city": Case(recipe("--data.image-size", "1000000"), "8 to 8192"),
    "digits as photographs": Case(recipe("--data.image-size", "8000"), "up to 256"),
    "validation negative": Case(recipe("--data.validation", "-0.1"), "fraction below 1"),
    "validation of one": Case(recipe("--data.validation", "1.0"), "from 2 up, got 1"),
    "validation of none": Case(recipe("--data.validation", "0"), "--data.validation"),
    "validation of all": Case(recipe("--data.validation", "1437"), "too small"),
    "padding negative": Case(recipe("--data.padding", "-1"), "padding"),
    "padding out of sight": Case(recipe("--data.padding", "8"), "out of sight"),
    "shard cut in half": Case(SET, "train-00000-of-00001.parquet", bad.both(bad.shards, bad.cut(bad.SHARD))),
    "shard of zero bytes": Case(SET, "is it whole", bad.both(bad.shards, bad.put(bad.SHARD, b""))),
    "image cell of zero bytes": Case(SET, "image 0 of the train split", bad.shard(first_image(b""))),
    "image cell of garbage": Case(SET, "is not an image", bad.shard(first_image(b"garbage"))),
    "image cell that is cut": Case(SET, "image 0 of the train split", bad.shard(first_image(bad.half_an_image()))),
    "no image cell": Case(SET, "image 0", bad.shard(lambda rows: rows[0].update(img=None))),
    "label of no class": Case(SET, "label 7", bad.shard(lambda rows: rows[0].update(label=7))),
    "columns of another set": Case(SET, "no column 'image' or 'img'", bad.columns),
    "an empty data folder": Case(SET, "cannot be read as a data set", lambda place: (place / "set").mkdir()),
    "unreadable image": Case(
        PETS, "pets/cat/0.png is not an image", bad.both(bad.pets(cat=8, dog=8), bad.put("pets/cat/0.png", b"x"))
    ),
    "image of zero bytes": Case(
        PETS, "pets/cat/0.png is not an image", bad.both(bad.pets(cat=8, dog=8), bad.put("pets/cat/0.png", b""))
    ),
    "one class": Case(PETS, "1 class folders", bad.pets(cat=8)),
    "empty class": Case(PETS, "dog has no images", bad.pets(cat=8, dog=0)),
    "empty folder": Case(PETS, "0 class folders", lambda place: (place / "pets").mkdir()),
    "too few images": Case(PETS, "too small", bad.pets(cat=1, dog=1)),
    "images of two sizes": Case(
        PETS,
        "2 sizes",
        bad.both(bad.pets(cat=8, dog=8), lambda place: bad.scan(0, width=9).save(place / "pets/cat/0.png")),
    ),
    "cache that cannot be written": Case(PETS, "AWNET_CACHE_DIR", bad.pets(cat=8, dog=8), no_cache),
    # --- checkpoints ---
    "no checkpoint": Case(["evaluate", "nowhere"], "no checkpoint in nowhere"),
    "cut weights": Case(EVALUATE, "is the file complete", bad.cut(WEIGHTS)),
    "weights of zero bytes": Case(EVALUATE, "is the file complete", bad.put(WEIGHTS, b"")),
    "missing weights": Case(EVALUATE, "there is no such file", bad.gone(WEIGHTS)),
    "a flipped bit in the weights": Case(EVALUATE, "not those that were saved", bad.flipped(WEIGHTS, -9)),
    "a flipped bit in their header": Case(EVALUATE, "model.safetensors", bad.flipped(WEIGHTS, 7)),
    "a pickle for weights": Case(EVALUATE, "cannot read the weights", bad.put(WEIGHTS, pickle.dumps(Evil()))),
    "weights of another network": Case(EVALUATE, "those of another network", bad.weights_of("dynamic")),
    "cut description": Case(EVALUATE, "model.json", bad.cut(ABOUT)),
    "description that is not JSON": Case(PREDICT, "is the file complete", bad.put(ABOUT, b"architecture: resnet")),
    "description that is a list": Case(PREDICT, "is the file complete", bad.put(ABOUT, b"[]")),
    "description of brackets": Case(PREDICT, "nested too deeply", bad.put(ABOUT, b"[" * 100_000)),
    "checkpoint of another format": Case(EVALUATE, "format 7", bad.said(ABOUT, lambda about: about.update(format=7))),
    "unknown architecture": Case(EVALUATE, "did you mean ResNetConfig", architecture(kind="ResnetConfig")),
    "architecture of no width": Case(EVALUATE, "1 or more, got 0", architecture(width=0)),
    "architecture of another width": Case(EVALUATE, "those of another network", architecture(width=5)),
    "architecture of a city": Case(EVALUATE, "at most 1e+09", architecture(width=10**6)),
    "no class names": Case(EVALUATE, "classes", bad.said(ABOUT, lacks("classes"))),
    "one class name": Case(EVALUATE, "classes", bad.said(ABOUT, lambda about: about.update(classes=["cat"]))),
    "no threat": Case(EVALUATE, "threat", bad.said(ABOUT, lacks("threat"))),
    "no data": Case(EVALUATE, "data", bad.said(ABOUT, lacks("data"))),
    "no history": Case(EVALUATE, "history", bad.said(ABOUT, lacks("history"))),
    "images of another shape": Case(
        [*EVALUATE, "--data", "PLACE/pets"], "shape", bad.pets(**{name: 8 for name in "abcdefghij"})
    ),
    "images of other classes": Case([*EVALUATE, "--data", "PLACE/pets"], "10 classes", bad.pets(cat=30, dog=30)),
    "checkpoint of other classes": Case(
        ["evaluate", "PLACE/three", "--out", "PLACE/new"], "the model has 3 classes", bad.checkpoint("three", classes=3)
    ),
    "teacher of other classes": Case(
        awnet("--objective.over.clean-teacher", "PLACE/three"), "has 3 classes", bad.checkpoint("three", classes=3)
    ),
    "teacher of colour images": Case(
        awnet("--objective.over.clean-teacher", "PLACE/rgb"), "channels", bad.checkpoint("rgb", channels=3)
    ),
    "teacher without weights": Case(
        awnet("--objective.over.clean-teacher", "RUN/best"), "is the file complete", bad.cut(WEIGHTS)
    ),
    # --- going on, and starting anew ---
    "a run that is there already": Case(["train", "digits/standard", *TINY, "--out", "RUN"], "--resume"),
    "another experiment's folder": Case(["train", "digits/pgd-at", "--out", "RUN"], "another experiment"),
    "a folder that is a file": Case(["train", "digits/standard", *TINY, "--out", "RUN/log.csv"], "log.csv"),
    "a folder below a file": Case(["train", "digits/standard", *TINY, "--out", "RUN/log.csv/new"], "log.csv"),
    "state cut": Case(AGAIN, "training.json", bad.cut(STATE)),
    "no state": Case(AGAIN, "there is no such file", bad.gone(STATE)),
    "state of another format": Case(AGAIN, "format 7", bad.said(STATE, lambda about: about.update(format=7))),
    "state without its tensors": Case(AGAIN, "training.safetensors", bad.gone("run/last/training.safetensors")),
    "tensors of the state cut": Case(AGAIN, "is the file complete", bad.cut("run/last/training.safetensors")),
    "a flipped bit in its tensors": Case(AGAIN, "is damaged", bad.flipped("run/last/training.safetensors", -5)),
    "a flipped bit in the state": Case(AGAIN, "is damaged", bad.flipped(STATE, -40)),
    "state of another optimiser": Case(
        AGAIN,
        "does not fit this experiment",
        bad.said(STATE, lambda about: about["state"]["optimizer"]["param_groups"].append({"params": [], "lr": 1})),
    ),
    "state of no place": Case(
        AGAIN,
        "'three' and step 0 are no counts",
        bad.said(STATE, lambda about: about["state"]["place"].update(epoch="three")),
    ),
    "experiment cut": Case(AGAIN, "experiment.json", bad.cut("run/experiment.json")),
    "a saved experiment of an unknown objective": Case(
        ["train", "RUN/experiment.json", "--out", "PLACE/new"],
        "did you mean StandardConfig",
        experiment(lambda text: text["objective"].update(kind="StandartConfig")),
    ),
    "a saved experiment with a misspelt field": Case(
        ["train", "RUN/experiment.json", "--out", "PLACE/new"],
        "did you mean epochs",
        experiment(lambda text: text["training"].update(epoch=3)),
    ),
    "a saved experiment of another format": Case(
        ["train", "RUN", "--out", "PLACE/new"],
        "format 9",
        bad.said("run/experiment.json", lambda text: text.update(format=9)),
    ),
    "an experiment that is none": Case(["train", "RUN/log.csv", "--out", "PLACE/new"], "log.csv"),
    # --- while it runs ---
    "a loss that is no number": Case(
        recipe("--training.optimizer.lr", "1e30", "--training.batch-size", "16"), "epoch 1, step"
    ),
    "a full disk": Case(TRAIN, "No space left", breaks=full_disk),
    "a full disk after a run": Case(AGAIN, "No space left", breaks=full_disk),
    "a full disk for weights": Case(TRAIN, "No space left", breaks=full_for_weights),
    "a full disk for a mixture": Case(["mix", "RUN", "RUN", "--out", "PLACE/new"], "No space", breaks=full_for_weights),
    "a full disk for a record": Case(EVALUATE, "No space left", breaks=full_disk),
    "Ctrl-C in training": Case(TRAIN, "--resume goes on", breaks=ctrl_c_at(1), code=130),
    "Ctrl-C in an evaluation": Case(
        [*EVALUATE[:-1], "pgd-sat", "--batch-size", "64"],
        "--resume goes on",
        breaks=ctrl_c_at(5),
        code=130,
    ),
    "Ctrl-C while images are read": Case(TRAIN, "stopped; what was saved", breaks=early_ctrl_c, code=130),
    "two trainings in one folder": Case(AGAIN, "another process is at work in", breaks=held),
    "two evaluations in one folder": Case(EVALUATE, "another process is at work in", breaks=held),
    # --- evaluation, mixtures ---
    "an evaluation that is there already": Case(EVALUATE, "--resume adds what is missing", damage=evaluated),
    "the folder of another evaluation": Case(
        [*EVALUATE, "--seed", "1", "--resume"], "seed or engine differ", damage=evaluated
    ),
    "a static network's operating points": Case(["calibrate", "RUN"], "does not tell clean images from attacked ones"),
    "limit of nothing": Case([*EVALUATE, "--limit", "0"], "limit"),
    "a batch of none": Case([*EVALUATE, "--batch-size", "0"], "at least 1"),
    "less than no images to keep": Case([*EVALUATE, "--keep-images", "-1"], "keep"),
    "a seed beyond 64 bits": Case([*EVALUATE, "--seed", str(2**70)], "64 bits"),
    "no images of this split": Case(
        [*EVALUATE, "--split", "validation"],
        "no validation images",
        bad.said(ABOUT, lambda about: about["data"].update(validation=0)),
    ),
    "knob of a static network": Case([*EVALUATE, "--p-max", "0.5"], "AW-Net"),
    "knob beyond its range": Case([*DYNAMIC, "--p-max", "1.5"], "0 <= p_max <= 1"),
    "knob that is no number": Case([*DYNAMIC, "--type-bias", "nan"], "log-odds"),
    "a record in a file": Case([*EVALUATE[:-1], "RUN/log.csv"], "log.csv"),
    "weight of one": Case(["mix", "RUN", "RUN", "--weight", "1", "--out", "PLACE/new"], "between 0 and 1"),
    "sharpness 0": Case(["mix", "RUN", "RUN", "--sharpness", "0", "--out", "PLACE/new"], "sharpness"),
    "a detector of other classes": Case(
        ["mix", "RUN", "RUN", "--detector", "RUN", "--out", "PLACE/new"], "adversarial and clean"
    ),
    "a weight beside a detector": Case(
        ["mix", "RUN", "RUN", "--detector", "RUN", "--weight", "0.2", "--out", "PLACE/new"], "without --detector"
    ),
    "softness without a detector": Case(
        ["mix", "RUN", "RUN", "--soft", "--out", "PLACE/new"], "name one by --detector"
    ),
    "a mixture over a run": Case(["mix", "RUN", "RUN", "--out", "RUN"], "choose another --out"),
    "a mixture of other classes": Case(
        ["mix", "RUN", "PLACE/three", "--out", "PLACE/new"], "different classes", bad.checkpoint("three", classes=3)
    ),
    # --- images ---
    "no image": Case(PREDICT, "there is no image file"),
    "no images": Case(["predict", "--model", "RUN"], "at least one image"),
    "not an image": Case(["predict", "RUN/log.csv", "--model", "RUN"], "not an image"),
    "a folder for an image": Case(["predict", "RUN", "--model", "RUN"], "there is no image file"),
    "an image of zero bytes": Case(PREDICT, "not an image", bad.put("image.png", b"")),
    "an image that is cut": Case(PREDICT, "cannot be read", bad.put("image.png", bad.half_an_image())),
    "an image of absurd size": Case(PREDICT, "image.png", bad.put("image.png", bad.png(60_000, 60_000))),
    "an image larger than any camera's": Case(PREDICT, "8192", bad.put("image.png", bad.png(9_000, 8_000))),
    "an image of no pixels": Case(PREDICT, "not an image", bad.put("image.png", bad.png(0, 8))),
    "a pickle for an image": Case(PREDICT, "not an image", bad.put("image.png", pickle.dumps(Evil()))),
    # --- records ---
    "no record": Case(["report", "nowhere"], "no record"),
    "record cut": Case(REPORT, "record.json", bad.cut("record/record.json")),
    "record of another format": Case(
        REPORT, "format 9", bad.said("record/record.json", lambda about: about.update(format=9))
    ),
    "record that lacks its threat": Case(REPORT, "threat", bad.said("record/record.json", lacks("threat"))),
    "arrays cut": Case(REPORT, "do not belong together", bad.cut("record/record.safetensors")),
    "a flipped bit in the arrays": Case(REPORT, "do not belong", bad.flipped("record/record.safetensors", -1)),
    "no arrays": Case(REPORT, "do not belong together", bad.gone("record/record.safetensors")),
    "a page that is a table": Case(["report", "PLACE/record", "--out", "PLACE/t.csv"], "for a table give --table"),
    "a page in a folder": Case(["report", "PLACE/record", "--out", "RUN"], "is a folder"),
    "a page below a file": Case(["report", "PLACE/record", "--out", "RUN/log.csv/page.html"], "cannot be written"),
    "weights of A_w negative": Case([*REPORT, "--gamma-nat", "-1"], "negative"),
    "weights of A_w that are none": Case([*REPORT, "--gamma-nat", "nan"], "weights of A_w"),
}


@pytest.fixture
def place(static: Path, dynamic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a trained static network, an AW-Net and a record, where this test is at home."""
    monkeypatch.delenv("AWNET_DATA_DIR", raising=False)
    monkeypatch.setenv("AWNET_CACHE_DIR", str(tmp_path / "cache"))
    place = tmp_path / "place"
    shutil.copytree(static, place / "run")
    shutil.copytree(dynamic, place / "dynamic")
    shutil.copytree(REPO / "docs/demo/records/static-mtard", place / "record")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return place


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its content, and every folder."""
    found = {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
    return {name: content for name, content in found.items() if not passing(name)}


def passing(name: str) -> bool:
    """Whether a file says nothing of a run's state: its lock, TensorBoard's events."""
    return Path(name).name == ".lock" or Path(name).name.startswith("events.out")


def claimed(before: dict[str, bytes | None], after: dict[str, bytes | None], name: str) -> bool:
    """Whether only the provenance of a run's description is new: who resumed it, and when."""
    old, new = (json.loads(found.get(name) or b"{}") for found in (before, after))
    return Path(name).name == "experiment.json" and old.get("experiment") == new.get("experiment")


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_in_one_sentence(case, place, capsys, monkeypatch):
    mistake = MISTAKES[case]
    argv = [part.replace("RUN", str(place / "run")).replace("PLACE", str(place)) for part in mistake.argv]
    mistake.damage(place)
    before = tree(place)
    capsys.readouterr()
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        mistake.breaks(patch)
        main(argv)
    printed = capsys.readouterr()
    assert stopped.value.code == mistake.code, printed
    *noted, sentence = printed.err.splitlines()
    assert not noted or mistake.code == 130, printed.err  # a Ctrl-C is answered at once, and again when all is saved
    assert sentence.startswith("awnet: ") and mistake.says in sentence
    after = tree(place)
    changed = [name for name in before if before[name] != after.get(name) and not claimed(before, after, name)]
    assert not changed, "what was there is as it was"
    left = [*(after.keys() - before.keys()), *tree(Path.cwd())]
    assert not [name for name in left if ".part" in name or ".previous" in name or "unpickled" in name]
    if mistake.code == 2:  # a folder may have been claimed, but nothing in it looks like a result
        assert not [name for name in left if Path(name).name in ("model.json", "record.json", "page.html", "log.csv")]

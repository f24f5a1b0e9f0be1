"""What a stranger meets first: the import, the pins, the wheel, and what `make` says on a system that lacks something."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + EXTRAS["test"] + EXTRAS["export"]]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (REPO / "constraints.txt").read_text(), re.MULTILINE)
}

# --- the import ---

LEAN = """
import json, sys, time, torch
before, start = set(sys.modules), time.process_time()
import awnet
print(json.dumps([time.process_time() - start, sorted({m.split(".")[0] for m in set(sys.modules) - before})]))
assert not torch.cuda.is_initialized()
"""
HEAVY = {"datasets", "huggingface_hub", "lightning_fabric", "matplotlib", "pandas", "scipy", "sklearn", "tensorboard"}
HEAVY |= {"jinja2", "rich", "tyro", "PIL"}


def test_importing_awnet_imports_torch_and_little_else():
    run = subprocess.run([sys.executable, "-c", LEAN], cwd=REPO, capture_output=True, text=True, check=True)
    seconds, modules = json.loads(run.stdout)
    assert not HEAVY & set(modules)
    assert seconds < 2  # of processor time, beyond torch's own; 0.2 is usual


# --- the pins ---


def closure(requirements: list[Requirement], *, here: bool) -> set[str]:
    """The names that requirements lead to: `here` on this system, or on any."""
    seen: set[tuple[str, str]] = set()
    queue = [(requirement, "") for requirement in requirements]
    while queue:
        requirement, wanted = queue.pop()
        marker = requirement.marker
        if marker and not marker.evaluate({"extra": wanted}) and (here or "extra" in str(marker)):
            continue
        name = canonicalize_name(requirement.name)
        if name.startswith(("cuda-", "nvidia-", "triton")):
            continue  # a CUDA build of torch pins these itself
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                try:
                    queue += [(Requirement(line), extra) for line in requires(name) or []]
                except PackageNotFoundError:
                    assert not here, f"{name} is needed and not installed"
    return {name for name, _ in seen}


def test_constraints_pin_everything_that_is_installed_and_nothing_else():
    assert closure(DIRECT, here=True) - PINS.keys() == set()
    assert PINS.keys() - closure(DIRECT, here=False) == set()


def test_pins_are_public_versions_inside_the_ranges():
    lines = [line for line in (REPO / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) == len(PINS), "every line of constraints.txt is name==version"
    assert [pin for pin in PINS.items() if Version(pin[1]).local] == []
    outside = [r for r in DIRECT if not r.specifier.contains(PINS[canonicalize_name(r.name)])]
    assert outside == []


# --- the wheel ---


def test_the_wheel_holds_the_whole_package_and_nothing_else(tmp_path: Path):
    source = tmp_path / "source"
    shutil.copytree(REPO / "awnet", source / "awnet", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("awnet-*-py3-none-any.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {path.relative_to(REPO).as_posix() for path in (REPO / "awnet").rglob("*") if path.is_file()}
    assert names == {name for name in here if "__pycache__" not in name}


# --- make's set-up, on systems that are made of shell scripts ---

TOOLS = ("sh", "awk", "cat", "chmod", "cksum", "df", "dirname", "head", "mkdir", "rm", "tail")

PYTHON = """#!/bin/sh
# a Python that knows its version and its modules, and makes virtual environments that write down what pip is asked for
case "$*" in
    *version_info*) echo "{version}" ;;
    *ensurepip*) {ensurepip} ;;
    "-m venv .venv") mkdir -p .venv/bin && cat "$0" >.venv/bin/python && chmod +x .venv/bin/python && echo venv >>log ;;
    "-m pip"*) echo "$*" >>log; [ ! -e broken ] || {{ echo "no space left"; exit 1; }} ;;
    *) exit 1 ;;
esac
"""


class System:
    """A folder of the project's, and a PATH on which only the given programs exist."""

    def __init__(self, folder: Path) -> None:
        self.home, self.bin = folder / "awnet", folder / "bin"
        self.bin.mkdir()
        for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt"):
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, self.home / name)
        for tool in TOOLS:
            os.symlink(shutil.which(tool) or tool, self.bin / tool)

    def program(self, name: str, script: str) -> None:
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def python(self, name: str = "python3", version: str = "3 11", ensurepip: str = "true") -> None:
        self.program(name, PYTHON.format(version=version, ensurepip=ensurepip))

    def setup(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(self.home / "scripts/setup.sh"), *args]
        return subprocess.run(command, env={"PATH": str(self.bin), **variables}, capture_output=True, text=True)

    def log(self) -> list[str]:
        """What was made and installed since the last look."""
        path = self.home / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def refusal(run: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that a failed check says."""
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith("awnet: ") and run.stderr.count("\n") == 1
    return run.stderr


def test_a_good_system_is_accepted_in_silence(system: System):
    system.python()
    run = system.setup("--check")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_no_python(system: System):
    assert "no python3" in (said := refusal(system.setup("--check")))
    assert "sudo apt-get install python3 python3-venv" in said


def test_a_python_that_is_too_old(system: System):
    system.python(version="3 10")
    assert "python3 is Python 3.10 and 3.11 or newer is needed" in (said := refusal(system.setup("--check")))
    assert "sudo apt-get install python3.11 python3.11-venv" in said and "make PYTHON=" in said


def test_a_newer_python_is_found_beside_the_old_one(system: System):
    system.python(version="3 10")
    system.program("python3.11", "#!/bin/sh\nexit 127\n")  # a name without an interpreter behind it
    system.python("python3.12", version="3 12")
    assert system.setup("--check").returncode == 0
    system.python("python3.12", version="3 12", ensurepip="false")
    assert "sudo apt-get install python3.12-venv" in refusal(system.setup("--check"))


def test_a_chosen_python_is_the_only_one_tried(system: System):
    system.python()
    system.python("old", version="2 7")
    assert "old is Python 2.7" in refusal(system.setup("--check", PYTHON="old"))
    assert "missing does not run" in refusal(system.setup("--check", PYTHON="missing"))


def test_a_python_without_venv(system: System):
    system.python(ensurepip="false")
    assert "sudo apt-get install python3-venv" in refusal(system.setup("--check"))


def test_a_full_disk(system: System):
    system.python()
    system.program("df", "#!/bin/sh\necho Filesystem\necho /dev/x 100 90 1048576 99% /\n")
    assert "has 1 GB free and .venv needs 3" in refusal(system.setup("--check"))


def test_the_environment_is_made_once_refreshed_on_change_and_remade_when_half_made(system: System):
    system.python()
    pip = "-m pip install -qq --constraint constraints.txt"
    installs = [f"{pip} setuptools>=77", f"{pip} --no-build-isolation --editable .[test,export]"]

    assert system.setup().returncode == 0
    assert system.log() == ["venv", *installs]
    assert (run := system.setup()).returncode == 0 and run.stdout == ""
    assert system.log() == []

    with (system.home / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    assert "Refreshing" in system.setup().stdout
    assert system.log() == installs

    (system.home / "constraints.txt").write_text("torch==0\n")
    (system.home / "broken").touch()
    assert "pip could not install" in (run := system.setup()).stderr and run.returncode == 1
    (system.home / "broken").unlink()
    (system.home / ".venv" / "half-made").touch()
    system.log()
    assert system.setup().returncode == 0
    assert system.log() == ["venv", *installs] and not (system.home / ".venv" / "half-made").exists()

    (system.home / ".venv/bin/python").unlink()  # the Python that it was made with is gone
    assert system.setup().returncode == 0
    assert system.log() == ["venv", *installs]

    moved = system.home.rename(system.home.with_name("moved"))
    system.home = moved
    assert system.setup().returncode == 0
    assert system.log() == ["venv", *installs]

    system.python("python3.12", version="3 12")
    assert system.setup(PYTHON="python3.12", TORCH="torch==2.13.0 --index-url x", PIP_ARGS="-v").returncode == 0
    first = f"{pip} -v torch==2.13.0 --index-url x"
    assert system.log()[:2] == ["venv", first]
    assert system.setup().returncode == 0 and system.log() == []

#!/bin/sh
# Makes .venv ready: the package (editable), its tests' tools and the versions of constraints.txt. Called by make.
#
#   sh scripts/setup.sh           make, refresh or keep .venv
#   sh scripts/setup.sh --check   only say whether this system can have one
#
# PYTHON    the Python to use, otherwise the first good one of python3, python3.11, python3.12, ...
# TORCH     arguments of pip that install torch before all else, such as a CPU or CUDA build of it
# PIP_ARGS  more arguments for every call of pip
set -eu
cd "$(dirname "$0")/.."

NEED_GB=3 # of disk: .venv takes 1.9 GB with a CPU build of torch, and pip unpacks beside it
READY=.venv/ready

fail() {
    echo "awnet: $*" >&2
    exit 1
}

version() { # prints "3 11" and succeeds, if $1 is a Python that runs
    "$1" -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null
}

new_enough() {
    [ -n "$1" ] && [ "${1%% *}" -eq 3 ] && [ "${1##* }" -ge 11 ]
}

find_python() { # sets $python, or fails with one sentence that says how to mend it
    first=
    for python in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
        found=$(version "$python") || continue
        new_enough "$found" && return
        [ -n "$first" ] || first="$python is Python ${found%% *}.${found##* }"
    done
    if [ -n "$first" ]; then
        fail "$first and 3.11 or newer is needed: sudo apt-get install python3.11 python3.11-venv, or name one that you have: make PYTHON=/path/to/python3.12"
    elif [ -n "${PYTHON:-}" ]; then
        fail "$PYTHON does not run as a Python; leave PYTHON out, or name one that does: make PYTHON=/path/to/python3.12"
    fi
    fail "no python3 on the PATH: sudo apt-get install python3 python3-venv (macOS: brew install python)"
}

check() { # sets $python
    find_python
    case ${python##*/} in
        python3.*) package=${python##*/}-venv ;;
        *) package=python3-venv ;;
    esac
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python lacks the module that makes virtual environments: sudo apt-get install $package"
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
    [ "${free:-$NEED_GB}" -ge "$NEED_GB" ] ||
        fail "the disk of $(pwd) has $free GB free and .venv needs $NEED_GB: make room (df -h . shows how much there is), or move this folder to a larger disk"
}

pip_install() {
    # shellcheck disable=SC2086 # PIP_ARGS is a list of arguments
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install -qq --constraint constraints.txt ${PIP_ARGS:-} "$@" ||
        fail "pip could not install what .venv needs, its reason stands above; when that is mended, make starts afresh"
}

if [ "${1:-}" = --check ]; then
    check
    exit
fi

# .venv/ready names the place and the inputs that .venv was made for; it is there only while .venv is whole.
place=$(pwd)
inputs=$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum)
state=absent
if [ -f $READY ] && [ "$(head -n 1 $READY)" = "$place" ] && has=$(version .venv/bin/python); then
    state=stale
    [ "$(tail -n 1 $READY)" = "$inputs" ] && state=ready
    [ -z "${PYTHON:-}" ] || [ "$(version "$PYTHON")" = "$has" ] || state=absent
fi
[ $state != ready ] || exit 0

rm -f $READY
if [ $state = absent ]; then
    check
    echo "Making .venv with $python: some hundred MB to download, several GB where torch comes with CUDA (README.md has the choice)."
    rm -rf .venv
    "$python" -m venv .venv || fail "$python could not make .venv, its reason stands above"
else
    echo "Refreshing .venv: what it is made from has changed."
fi
# shellcheck disable=SC2086 # TORCH is a list of arguments
[ -z "${TORCH:-}" ] || pip_install $TORCH
pip_install "setuptools>=77" # builds the package, so that nothing is built with another version
pip_install --no-build-isolation --editable ".[test,export]"
printf '%s\n%s\n' "$place" "$inputs" >$READY
echo "Ready: .venv/bin/awnet"

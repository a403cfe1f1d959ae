#!/bin/sh
# Installs what the worker image runs, torch included, into a new environment.
# worker.Dockerfile runs it, and so does `make test-images`.
#
# Usage: docker/install-worker.sh VENV [cpu|cuda]
#   PYTHON            interpreter of the environment, with pip; default python3
#   TORCH_CPU_INDEX   index that holds torch's CPU builds; default: wherever pip looks
#
# Both devices run the release of torch in constraints.txt, the one that the tests run. `cpu` asks
# for its CPU build by name, so that a missing one is an error and not gigabytes of CUDA. `cuda`
# takes the release's default build from PyPI, which brings CUDA's libraries along.
set -eu

venv=${1:?usage: install-worker.sh VENV [cpu|cuda]}
device=${2:-cpu}
source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python3}
release=$(sed -n 's/^torch==//p' "$source/constraints.txt")

index=
case $device in
cpu)
    torch="torch==$release+cpu"
    index=${TORCH_CPU_INDEX:-}
    ;;
cuda)
    torch="torch===$release" # `==` would accept a CPU build, `===` compares the letters
    ;;
*)
    echo "install-worker.sh: unknown device '$device'; give cpu or cuda" >&2
    exit 2
    ;;
esac

"$python" -m venv --without-pip "$venv"
# Torch first and alone: of the other index nothing else is taken.
if ! "$python" -m pip --python "$venv/bin/python" install --only-binary :all: \
    --no-deps ${index:+--index-url "$index"} "$torch"; then
    echo "install-worker.sh: no $torch to be had; for a CPU build set TORCH_CPU_INDEX" >&2
    exit 1
fi
"$python" -m pip --python "$venv/bin/python" install --only-binary :all: \
    --constraint "$source/constraints.txt" "$source[worker]"

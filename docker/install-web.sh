#!/bin/sh
# Installs what the web image runs, everything but torch, into a new environment.
# web.Dockerfile runs it, and so does `make test-images`.
#
# Usage: docker/install-web.sh VENV
#   PYTHON   interpreter of the environment, with pip; default python3
set -eu

venv=${1:?usage: install-web.sh VENV}
source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python3}

"$python" -m venv --without-pip "$venv"
# Wheels alone: nothing here may need a compiler.
"$python" -m pip --python "$venv/bin/python" install --only-binary :all: \
    --constraint "$source/constraints.txt" "$source[server]"

#!/bin/sh
# Makes .triton-venv: the public Triton client, in an environment of its own because it needs protobuf below 7.
# Called by `make triton` and by CI; the conformance suite of the Open Inference Protocol runs in it.
set -eu
cd "$(dirname "$0")/.."
lock=tests/conformance/triton/requirements.lock

cmp -s "$lock" .triton-venv/.made-from 2>/dev/null && exit 0
rm -rf .triton-venv
.venv/bin/python -m venv --without-pip .triton-venv
if uv --version >/dev/null 2>&1; then
    uv pip install --quiet --python .triton-venv/bin/python --require-hashes -r "$lock"
else
    .venv/bin/python -m pip --python .triton-venv/bin/python install --quiet --disable-pip-version-check \
        --require-hashes -r "$lock"
fi
cp "$lock" .triton-venv/.made-from
echo "set up .triton-venv"

#!/bin/sh
# Runs every check, all of them even when one fails, and says which failed. Called by `make check`.
cd "$(dirname "$0")/.." || exit 1
PATH=$PWD/.venv/bin:$PATH
failed=""

run() {
    echo "== $1"
    name=$1
    shift
    "$@" || failed="$failed $name"
}

breaking() {
    # Against every release: what any of them stored must be read for ever.
    for released in tests/golden/*.binpb; do
        echo "against ${released##*/}"
        buf breaking --against "$released" || return 1
    done
}

run format ruff format --check --quiet .
run lint ruff check --quiet .
run types mypy
run imports lint-imports --no-logo
run protos buf lint
run breaking breaking
run tidy pytest -q tests/tidy

if [ -n "$failed" ]; then
    echo "check failed:$failed" >&2
    exit 1
fi
echo "check passed"

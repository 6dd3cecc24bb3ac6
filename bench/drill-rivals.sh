#!/usr/bin/env bash
# The same drill against phalanx and against the reloads of others: Node's cluster with the usual SIGUSR2
# recipe, PM2 reload, gunicorn HUP, Puma phased restart. One Markdown table on standard output, the reports
# as JSON and SVG in OUTPUT. What is not installed is left out, and said so.
#
#   bench/drill-rivals.sh [OUTPUT]           PHALANX (target/release/phalanx), RUST (target/release/examples/axum_app),
#   FOR=60s RELOADS=5 SETTLE=8s RATE=500     PM2 (a pm2 program) and the environment's other variables as shown
set -euo pipefail
cd "$(dirname "$0")/.."

output=${1:-target/drill-rivals}
phalanx=${PHALANX:-target/release/phalanx}
pm2=${PM2:-$(command -v pm2 || true)}
# Large uploads are left out: the small WSGI and Rack apps do not read bodies, and their servers then lose some in
# calm too, which is not what this is about.
mix=new,keep-alive,idle,pipelined,slow-upload,slow-reader
load=(--mix "$mix" --for "${FOR:-60s}" --reloads "${RELOADS:-5}" --rate "${RATE:-500}" --clients 16)
settle=${SETTLE:-8s}
mkdir -p "$output"
scratch=$(mktemp -d)
server=

finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    [ -z "$pm2" ] || PM2_HOME="$scratch/pm2" "$pm2" kill >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap finish EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

until_it_answers() { # PORT
    local end=$((SECONDS + 30))
    until curl -so /dev/null "http://127.0.0.1:$1/"; do
        ((SECONDS < end)) || { echo "nothing answers on port $1" >&2; return 1; }
    done
}

# Runs a drill, and prints its row. A drill that finds something exits with 1, which is its result.
row() { # NAME TITLE DRILL...
    local name=$1 title=$2
    shift 2
    "$phalanx" drill --json --svg "$output/$name.svg" "${load[@]}" "$@" >"$output/$name.json" 2>"$output/$name.log" || true
    python3 - "$title" "$output/$name.json" <<'PYTHON'
import json, sys
title, path = sys.argv[1:]
report = json.load(open(path))
def quantile(phase):
    of = report["latency_ms"][phase]
    return f"{of['p50']:.1f} / {of['p99']:.0f}" if of else "–"
def causes():
    both = {}
    for kind in ("causes", "retry_causes"):
        for cause, count in report[kind].items():
            both[cause] = both.get(cause, 0) + count
    return ", ".join(f"{count} {cause.replace('_', ' ')}" for cause, count in sorted(both.items())) or "–"
failed = f" ({report['reloads_failed']} failed)" if report["reloads_failed"] else ""
print(f"| {title} | {report['requests']:,} | {report['reloads']}{failed} | {report['lost']} | {report['retried']} "
      f"| {causes()} | {quantile('calm')} | {quantile('reload')} |")
PYTHON
}

foreign() { # NAME TITLE PORT RELOAD-COMMAND
    until_it_answers "$3"
    row "$1" "$2" --url "http://127.0.0.1:$3" --reload-command "$4" --settle "$settle"
}

stop() {
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

echo "| server and its reload | requests | reloads | lost | cut off on the wire | causes | calm: median / p99 ms | in reload |"
echo "|---|---|---|---|---|---|---|---|"

row phalanx-node "phalanx, Node script" -n 2 --kills 0 --scales 0 -- fixtures/http.js
row phalanx-rust "phalanx, Rust example" -n 2 --kills 0 --scales 0 --upload-path /upload \
    -- "${RUST:-target/release/examples/axum_app}" 127.0.0.1:0

port=$(free_port)
PORT=$port WORKERS=2 node fixtures/node-cluster.js >"$output/node-cluster.out" 2>&1 &
server=$!
foreign node-cluster "Node cluster, SIGUSR2 recipe" "$port" "kill -USR2 $server"
stop

if [ -n "$pm2" ]; then
    port=$(free_port)
    export PM2_HOME="$scratch/pm2"
    PORT=$port "$pm2" start fixtures/http.js -i 2 --name drilled >"$output/pm2.out" 2>&1
    foreign pm2 "PM2, \`pm2 reload\`" "$port" "$pm2 reload drilled"
    "$pm2" kill >/dev/null 2>&1
else
    echo "NOT RUN: PM2 is not installed (npm install pm2; PM2=…/node_modules/.bin/pm2)" >&2
fi

if command -v gunicorn >/dev/null; then
    port=$(free_port)
    gunicorn --chdir fixtures/programs --bind "127.0.0.1:$port" --workers 2 --worker-class gthread --threads 16 \
        --keep-alive 15 wsgi:app >"$output/gunicorn.out" 2>&1 &
    server=$!
    foreign gunicorn "gunicorn (gthread), HUP" "$port" "kill -HUP $server"
    stop
else
    echo "NOT RUN: gunicorn is not installed" >&2
fi

if command -v puma >/dev/null; then
    port=$(free_port)
    puma --workers 2 --threads 16:16 --bind "tcp://127.0.0.1:$port" fixtures/programs/config.ru >"$output/puma.out" 2>&1 &
    server=$!
    foreign puma "Puma, phased restart (SIGUSR1)" "$port" "kill -USR1 $server"
    stop
else
    echo "NOT RUN: Puma is not installed" >&2
fi

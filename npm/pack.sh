#!/usr/bin/env bash
# Packs phalanx-cluster, and the package of the program for one processor, as npm would publish them.
# usage: npm/pack.sh BINARY DIRECTORY [CPU]     BINARY is static, so that one file serves every Linux of its processor; CPU is what
# Node calls that: x64 or arm64, this machine's by default.
set -euo pipefail
binary=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
here=$(dirname "$(realpath "$0")")
version=$(node -p "require('$here/phalanx-cluster/package.json').version")
cpu=${3:-$(node -p process.arch)}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

mkdir -p "$stage/bin"
install -m 755 "$binary" "$stage/bin/phalanx"
cp "$here/../LICENSE-MIT" "$here/../LICENSE-APACHE" "$stage/"
cat > "$stage/package.json" <<JSON
{
  "name": "@phalanx-rs/linux-$cpu",
  "version": "$version",
  "description": "The program of phalanx-cluster for Linux on $cpu",
  "license": "MIT OR Apache-2.0",
  "repository": { "type": "git", "url": "git+https://github.com/phalanx-rs/phalanx.git" },
  "os": ["linux"],
  "cpu": ["$cpu"],
  "preferUnplugged": true,
  "files": ["bin", "LICENSE-MIT", "LICENSE-APACHE"]
}
JSON
npm pack --silent --pack-destination "$out" "$stage"
npm pack --silent --pack-destination "$out" "$here/phalanx-cluster"

#!/usr/bin/env python3
"""Runs the tests of Node's own suite that use `cluster`: natively, and with phalanx-cluster registered.

NODE_TESTS (or --tests) names the directory `test` of a checkout or a source package of Node. What passes natively must
pass with us. Exits with 1 when something passes natively only.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT_S = 60
# Has workers speak V8's own format where a test does not say otherwise.
ADVANCED = """
const childProcess = require('child_process');
const { fork } = childProcess;
childProcess.fork = (script, args, options) => fork(script, args,
  options?.env?.NODE_UNIQUE_ID ? { ...options, serialization: options.serialization ?? 'advanced' } : options);
"""


def tests_in(directory, only):
    for place in ("parallel", "sequential"):
        for path in sorted((directory / place).glob("test-*.js")):
            name = path.stem
            uses = name.startswith("test-cluster-") or re.search(r"require\('(node:)?cluster'\)", path.read_text())
            if uses and (not only or re.search(only, name)):
                yield path


def flags_of(path):
    found = re.search(r"^// Flags: (.*)$", path.read_text(), re.MULTILINE)
    return found.group(1).split() if found else []


def run(node, path, variables, slot):
    # A suite may be of another version than the Node, which has other globals.
    env = {**os.environ, **variables, "NODE_TEST_KNOWN_GLOBALS": "0", "TEST_THREAD_ID": str(slot), "NODE_TEST_DIR": f"/tmp/node-suite-{os.getpid()}"}
    os.makedirs(env["NODE_TEST_DIR"], exist_ok=True)
    child = subprocess.Popen([node, *flags_of(path), str(path)], env=env, cwd=path.parent, start_new_session=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = child.communicate(timeout=LIMIT_S)
        return child.returncode == 0, output.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return False, "hangs"
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", default=os.environ.get("NODE_TESTS"))
    parser.add_argument("--node", action="append", default=[], help="a Node; may be repeated")
    parser.add_argument("--binary", default=str(ROOT / "target/debug/phalanx"))
    parser.add_argument("--dispatch", action="append", default=[])
    parser.add_argument("--serialization", choices=["json", "advanced"], default="json")
    parser.add_argument("--only", help="names that match this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    if not args.tests:
        sys.exit("NODE_TESTS=DIR has to name the directory `test` of Node's source, such as that of Debian's package:\n"
                 "apt-get source --download-only nodejs && tar xf nodejs_*.orig.tar.xz --wildcards '*/test/*'")
    paths = list(tests_in(pathlib.Path(args.tests), args.only))
    preload = ""
    if args.serialization == "advanced":
        script = tempfile.NamedTemporaryFile("w", suffix=".cjs")
        script.write(ADVANCED)
        script.flush()
        preload = f"--require={script.name}"
    register = f"--require={ROOT}/npm/phalanx-cluster/register.cjs"
    # What is loaded last is called first, and cluster takes what is there when it is loaded.
    plain = {"NODE_OPTIONS": preload}
    ours = {"NODE_OPTIONS": f"{register} {preload}".strip(), "PHALANX_BINARY": args.binary}
    is_bad = False
    print(f"Serialization: {args.serialization}\n")
    print(f"| Node | dispatch | of {len(paths)}, natively | with phalanx-cluster | natively, and not with it |\n|---|---|---|---|---|")
    for node in args.node or ["node"]:
        version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()

        def all_of(variables):
            with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
                jobs = [pool.submit(run, node, path, variables, slot) for slot, path in enumerate(paths, 1)]
                return {path.stem: job.result() for path, job in zip(paths, jobs)}

        native = all_of(plain)
        # Others on the machine may have been in its way; so below.
        for path in (path for path in paths if not native[path.stem][0]):
            native[path.stem] = run(node, path, plain, 1)
            if args.verbose and not native[path.stem][0]:
                print(f"--- {path.stem}, natively\n{native[path.stem][1]}", file=sys.stderr)
        for dispatch in args.dispatch or ["auto", "handoff"]:
            variables = {**ours, "PHALANX_DISPATCH": dispatch}
            with_us = all_of(variables)
            missed = []
            for path in paths:
                name = path.stem
                if not native[name][0] or with_us[name][0]:
                    continue
                passed, output = run(node, path, variables, 1)
                if not passed:
                    missed.append(name)
                    if args.verbose:
                        print(f"--- {name}\n{output}", file=sys.stderr)
            is_bad |= bool(missed)
            passed = sum(ok for ok, _ in native.values())
            gained = passed - len(missed)
            print(f"| {version} | {dispatch} | {passed} | {gained} | {', '.join(missed) or 'none'} |", flush=True)
    sys.exit(int(is_bad))


if __name__ == "__main__":
    main()

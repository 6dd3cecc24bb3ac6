"""What the primary takes while its workers are idle: 64 Node workers and everything on that looks after them.

Run as `python3 -B bench/idle.py target/release/phalanx [MORE…] [--seconds S] [--rounds N] [--workers N] [--options WORDS]`. Each program runs an app
of its own, all at the same time, so that each is measured beside the same other work. It prints the processor time of each primary (in
nanoseconds, `/proc/PID/task/TID/schedstat`), how often it waited, and its system calls, where perf(1) may count them. Exits with 1 if
the median of the first is above the bound.
"""
import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import processes

CPU_BOUND = 0.5
START_LIMIT = 300
# The first seconds after the start are not idle: files are read ahead, heaps are collected, predecessors forgotten.
SETTLE = 15
EVERYTHING = ['--hang-timeout', '30s', '--max-memory', '1G', '--max-age', '12h', '--max-requests', '1000000', '--spares', '2',
              '--metrics', '127.0.0.1:0']
SERVER = "require('http').createServer((request, response) => response.end('hello\\n')).listen(0, '127.0.0.1');\n"


class App:
    """A running app, and what its primary has taken."""

    def __init__(self, phalanx, place, workers, options):
        self.phalanx, self.env = phalanx, {**os.environ, 'XDG_RUNTIME_DIR': place, 'PHALANX_RUNTIME_DIR': place}
        script = os.path.join(place, 'server.js')
        with open(script, 'w', encoding='utf-8') as file:
            file.write(SERVER)
        self.log = open(os.path.join(place, 'log'), 'w+', encoding='utf-8')
        words = [phalanx, 'run', '--name', 'idle', '-n', str(workers), *options, '--', 'node', script]
        self.process = subprocess.Popen(words, env=self.env, stdout=subprocess.DEVNULL, stderr=self.log)
        self.wanted = workers + int(options[options.index('--spares') + 1] if '--spares' in options else 0)

    def settled(self):
        words = [self.phalanx, 'status', '--name', 'idle', '--json']
        answer = subprocess.run(words, env=self.env, capture_output=True, text=True, check=False)
        workers = json.loads(answer.stdout)['workers'] if answer.returncode == 0 else []
        return sum(worker['state'] in ('ready', 'spare') for worker in workers) >= self.wanted

    def wait_settled(self):
        deadline = time.monotonic() + START_LIMIT
        while not self.settled():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.log.seek(0)
                sys.exit('the workers are not ready in time:\n' + self.log.read()[-2000:])
            time.sleep(0.5)

    def waits(self):
        """How often its threads gave the processor away by themselves."""
        count = 0
        for task in os.listdir(f'/proc/{self.process.pid}/task'):
            with open(f'/proc/{self.process.pid}/task/{task}/status', encoding='ascii') as status:
                count += next(int(line.split()[1]) for line in status if line.startswith('voluntary_ctxt'))
        return count

    def taken(self):
        return time.monotonic(), processes.cpu_seconds(self.process.pid), self.waits()

    def stop(self):
        processes.end(self.process)
        self.log.close()


def system_calls(app, seconds):
    """A process that counts them and is to be waited for; nothing where that is not possible."""
    if not shutil.which('perf'):
        return None
    words = ['perf', 'stat', '-x', ',', '-e', 'raw_syscalls:sys_enter', '-p', str(app.process.pid), '--', 'sleep', str(seconds)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def count_of(counting):
    if counting is None:
        return None
    first = counting.communicate()[1].split(',')[0]
    return int(first) if first.isdigit() else None


def measure(apps, seconds):
    """For each: percent of a processor, waits and system calls a second. Counting calls costs time, so it is done afterwards."""
    before = [app.taken() for app in apps]
    time.sleep(seconds)
    rows = []
    for app, (began, used, waited) in zip(apps, before):
        ended, used_then, waited_then = app.taken()
        span = ended - began
        rows.append([100 * (used_then - used) / span, (waited_then - waited) / span])
    counting = [system_calls(app, seconds) for app in apps]
    for row, one in zip(rows, counting):
        count = count_of(one)
        row.append(float('nan') if count is None else count / seconds)
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('phalanx', nargs='+', type=os.path.abspath)
    parser.add_argument('--seconds', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--workers', type=int, default=64)
    parser.add_argument('--options', default=' '.join(EVERYTHING), help='of `phalanx run`')
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        apps = []
        for phalanx in args.phalanx:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix='px'))
            app = App(phalanx, place, args.workers, args.options.split())
            stack.callback(app.stop)
            app.wait_settled()
            apps.append(app)
        time.sleep(SETTLE)
        rounds = []
        for number in range(args.rounds):
            rounds.append(measure(apps, args.seconds))
            for app, (percent, waits, calls) in zip(apps, rounds[-1]):
                print(f'{number + 1} {percent:6.3f} % of a processor, {waits:6.1f} waits/s, {calls:7.1f} calls/s  {app.phalanx}', flush=True)
    medians = [[statistics.median(column) for column in zip(*rows)] for rows in zip(*rounds)]
    for phalanx, (percent, waits, calls) in zip(args.phalanx, medians):
        print(f'median: {percent:.3f} % of a processor (bound {CPU_BOUND}), {waits:.1f} waits/s, {calls:.1f} calls/s  {phalanx}')
    sys.exit(medians[0][0] > CPU_BOUND)


if __name__ == '__main__':
    main()

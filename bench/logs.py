"""What it costs that workers' output goes through the primary to its log file: four workers that print 50,000 lines a second each,
beside the same four that write to a file by themselves, in turns.

Run as `nice python3 -B bench/logs.py target/release/phalanx [--seconds S] [--rate N] [--turns N] [OPTION...]`; options are for
`phalanx run`. It prints the processor time of all processes together, the lines that were lost or broken, and the quotient of the
medians. Exits with 1 if a line was lost or broken, or the quotient is above the bound.
"""
import argparse
import collections
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, '..', 'fixtures', 'programs', 'lines.c')
WORKERS, LENGTH, BOUND = 4, 100, 1.15
# How long the last lines may take to arrive.
PATIENCE = 20


def wait_for_size(path, size, deadline):
    while time.monotonic() < deadline:
        if os.path.exists(path) and os.path.getsize(path) >= size:
            return
        time.sleep(0.05)


def spent(process):
    """The processor time of a process and all that it has reaped, in seconds."""
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime


def by_themselves(program, rate, seconds, path):
    words = [program, str(rate), str(seconds)]
    workers = [subprocess.Popen(words, env={**os.environ, 'LOG_TO': path}) for _ in range(WORKERS)]
    wait_for_size(path, WORKERS * rate * seconds * LENGTH, time.monotonic() + seconds + PATIENCE)
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    return sum(spent(worker) for worker in workers)


def through_the_primary(phalanx, options, program, rate, seconds, path, place):
    words = [phalanx, 'run', '--name', 'lines', '-n', str(WORKERS), '--adopt', 'none', '--log-file', path,
             '--log-file-size', '0', *options, '--', program, str(rate), str(seconds)]
    primary = subprocess.Popen(words, env={**os.environ, 'XDG_RUNTIME_DIR': place}, stderr=subprocess.DEVNULL)
    wait_for_size(path, WORKERS * rate * seconds * LENGTH, time.monotonic() + seconds + PATIENCE)
    primary.send_signal(signal.SIGTERM)
    return spent(primary)


def faults(path, rate, seconds):
    """Lines that are missing, and lines that are broken or not in their order."""
    next_of, broken = collections.Counter(), 0
    with open(path, 'rb') as log:
        for line in log:
            at = line.find(b'line ')
            if at < 0:
                continue
            words = line[at:].split()
            if len(words) != 4 or len(line) - at != LENGTH or int(words[2]) != next_of[words[1]]:
                broken += 1
                continue
            next_of[words[1]] += 1
    return WORKERS * rate * seconds - sum(next_of.values()), broken


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('phalanx')
    parser.add_argument('--seconds', type=int, default=10)
    parser.add_argument('--rate', type=int, default=50_000, help='lines a second of each worker')
    parser.add_argument('--turns', type=int, default=3)
    asked, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix='px', dir='/tmp') as place:
        program = os.path.join(place, 'lines')
        subprocess.run(['cc', '-O2', '-o', program, SOURCE], check=True)
        costs, is_whole = {'by themselves': [], 'through phalanx': []}, True
        for turn in range(asked.turns):
            for way, costs_of_way in costs.items():
                path = os.path.join(place, f'{turn}-{len(way)}.log')
                common = (program, asked.rate, asked.seconds, path)
                if way == 'by themselves':
                    cost = by_themselves(*common)
                else:
                    cost = through_the_primary(os.path.abspath(asked.phalanx), options, *common, place)
                lost, broken = faults(path, asked.rate, asked.seconds)
                os.remove(path)
                costs_of_way.append(cost)
                is_whole = is_whole and not lost and not broken
                print(f'{way:16} {cost:6.2f} s of processor time, {lost} lines lost, {broken} broken', flush=True)
    medians = [statistics.median(one) for one in costs.values()]
    quotient = medians[1] / medians[0]
    lines = WORKERS * asked.rate
    print(f'{lines:,} lines a second for {asked.seconds} s: {quotient:.2f} times the processor time (bound {BOUND})')
    sys.exit(0 if is_whole and quotient <= BOUND else 1)


if __name__ == '__main__':
    main()

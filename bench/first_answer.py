"""When the first answer comes, and when all workers are ready: `phalanx run -n 8` beside the same server alone, in turns.

Run as `python3 -B bench/first_answer.py target/release/phalanx [--rounds N] [--workers N] [--server FILE] [OPTION...]`; options
are for `phalanx run`. On a busy machine give it the processors: `chrt -r 10`, or `nice -n -15`. It prints the least and the median of each time, the quotient of
the medians of the first answer, and exits with 1 if the quotient or the time until all are ready is above its bound.
"""
import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
RATIO_BOUND, ALL_READY_BOUND = 1.3, 0.541
# How long a server may take at all, and how often it is asked.
PATIENCE, PAUSE = 30, 0.0005
REQUEST = b'GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n'


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as found:
        return found.getsockname()[1]


def answer(port):
    """Whether the server answers: what refuses has not begun, what accepts is waited for."""
    try:
        with socket.create_connection(('127.0.0.1', port), PATIENCE) as connection:
            connection.sendall(REQUEST)
            return connection.recv(4096).startswith(b'HTTP/1.1 200')
    except ConnectionError:
        return False


def wait_for(what):
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            sys.exit('the server does not answer')
        time.sleep(PAUSE)


def ready(place):
    """How many workers are ready, by the control socket."""
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(f'{place}/phalanx/first.sock')
            control.sendall(b'GET /v1/status HTTP/1.0\r\nHost: phalanx\r\n\r\n')
            with control.makefile('rb') as reply:
                status = json.loads(reply.read().partition(b'\r\n\r\n')[2])
    except (OSError, ValueError):
        return 0
    return sum(one['state'] == 'ready' for one in status['workers'])


def start(words, port, place):
    environment = {**os.environ, 'PORT': str(port), 'XDG_RUNTIME_DIR': place}
    silence = subprocess.DEVNULL
    return subprocess.Popen(words, env=environment, stdin=silence, stdout=silence, stderr=silence)


def alone(server):
    """The time until the server answers by itself."""
    port = free_port()
    with tempfile.TemporaryDirectory() as place:
        begun = time.monotonic()
        process = start(['node', server], port, place)
        wait_for(lambda: answer(port))
        first = time.monotonic() - begun
        process.kill()
        process.wait()
    return first


def under_phalanx(phalanx, options, workers, server):
    """The times until the app answers, and until all its workers are ready."""
    port = free_port()
    words = [phalanx, 'run', '--name', 'first', '-n', str(workers), *options, '--', 'node', server]
    with tempfile.TemporaryDirectory() as place:
        begun = time.monotonic()
        process = start(words, port, place)
        wait_for(lambda: answer(port))
        first = time.monotonic() - begun
        wait_for(lambda: ready(place) == workers)
        every = time.monotonic() - begun
        process.send_signal(signal.SIGTERM)
        process.wait()
    return first, every


def told(name, times):
    print(f'{name:20} least {min(times) * 1e3:4.0f} ms, median {statistics.median(times) * 1e3:4.0f} ms')


def main():
    arguments = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    arguments.add_argument('phalanx')
    arguments.add_argument('--rounds', type=int, default=20)
    arguments.add_argument('--workers', type=int, default=8)
    arguments.add_argument('--server', default=os.path.join(HERE, '..', 'fixtures', 'http.js'))
    known, options = arguments.parse_known_args()
    bare, first, every = [], [], []
    for _ in range(known.rounds):
        bare.append(alone(known.server))
        of_first, of_all = under_phalanx(known.phalanx, options, known.workers, known.server)
        first.append(of_first)
        every.append(of_all)
    told('bare Node', bare)
    told('first answer', first)
    told('all are ready', every)
    ratio = statistics.median(first) / statistics.median(bare)
    print(f'first answer / bare Node: {ratio:.2f} of medians, {min(first) / min(bare):.2f} of the least')
    sys.exit(ratio > RATIO_BOUND or statistics.median(every) > ALL_READY_BOUND)


if __name__ == '__main__':
    main()

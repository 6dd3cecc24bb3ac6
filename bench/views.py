"""What it costs the primary that it is looked at: the web view is open, metrics are scraped each second and `phalanx logs -f` runs, beside
the same app that nobody looks at, in turns. 64 Node workers print a line a second each and are under full load (wrk).

Run as `python3 -B bench/views.py target/release/phalanx [--seconds S] [--turns N] [--workers N]`. It prints the processor time and the
resident memory of the primary, and the differences of the medians. Exits with 1 if it takes more processor time than the bound, or has more
memory in all.
"""
import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import processes

CPU_BOUND, MEMORY_BOUND = 2.0, 20_000_000
START_LIMIT = 180
SERVER = """
const http = require('http');
const server = http.createServer((request, response) => response.end('hello\\n'));
setInterval(() => console.log(`worker ${process.pid} is there`), 1000);
server.listen(Number(process.env.PORT), '127.0.0.1');
"""


class App:
    """A running app, and what is asked of its primary."""

    def __init__(self, phalanx, place, workers, options):
        self.phalanx, self.env = phalanx, {**os.environ, 'XDG_RUNTIME_DIR': place, 'PHALANX_RUNTIME_DIR': place, 'PORT': '0'}
        script = os.path.join(place, 'server.js')
        with open(script, 'w', encoding='utf-8') as file:
            file.write(SERVER)
        words = [phalanx, 'run', '--name', 'looked-at', '-n', str(workers), *options, '--', 'node', script]
        self.process = subprocess.Popen(words, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.lines = []
        threading.Thread(target=self.read, daemon=True).start()
        self.wait_ready(workers)

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def status(self):
        words = [self.phalanx, 'status', '--name', 'looked-at', '--json']
        answer = subprocess.run(words, env=self.env, capture_output=True, text=True, check=False)
        return json.loads(answer.stdout) if answer.returncode == 0 else {'workers': []}

    def wait_ready(self, workers):
        deadline = time.monotonic() + START_LIMIT
        while sum(worker['state'] == 'ready' for worker in self.status()['workers']) < workers:
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.stop()
                sys.exit('the workers are not ready in time:\n' + ''.join(self.lines[-20:]))
            time.sleep(0.5)

    def address_after(self, words):
        line = next(line for line in self.lines if words in line)
        return line.split('http://')[1].split('/')[0].strip()

    def cpu_seconds(self):
        with open(f'/proc/{self.process.pid}/stat', encoding='ascii') as stat:
            fields = stat.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def memory_bytes(self):
        with open(f'/proc/{self.process.pid}/status', encoding='ascii') as status:
            line = next(line for line in status if line.startswith('VmRSS:'))
        return int(line.split()[1]) << 10

    def stop(self):
        processes.end(self.process)


class Lookers:
    """Everybody who looks: the page, Prometheus, a terminal."""

    def __init__(self, app):
        self.ended = threading.Event()
        view, metrics = app.address_after('web view on '), app.address_after('metrics: ')
        words = [app.phalanx, 'logs', '-f', '--name', 'looked-at']
        self.logs = subprocess.Popen(words, env=app.env, stdout=subprocess.DEVNULL)
        self.answers = 0
        for address, path in [(view, '/v1/metrics.json'), (metrics, '/metrics')]:
            threading.Thread(target=self.poll, args=(address, path), daemon=True).start()
        for path in ['/v1/events', '/v1/logs?follow=true']:
            threading.Thread(target=self.follow, args=(view, path), daemon=True).start()

    def poll(self, address, path):
        connection = http.client.HTTPConnection(address, timeout=30)
        while not self.ended.wait(1):
            connection.request('GET', path)
            answer = connection.getresponse()
            answer.read()
            self.answers += answer.status == 200

    def follow(self, address, path):
        connection = http.client.HTTPConnection(address, timeout=30)
        connection.request('GET', path)
        answer = connection.getresponse()
        while not self.ended.is_set() and answer.readline():
            pass

    def stop(self):
        self.ended.set()
        self.logs.terminate()
        self.logs.wait()


def turn(args, is_looked_at):
    """Percent of a processor, bytes, requests a second, answers to those that look."""
    with tempfile.TemporaryDirectory(prefix='px') as place:
        options = ['--admin', '127.0.0.1:0', '--metrics', '127.0.0.1:0'] if is_looked_at else []
        app = App(args.phalanx, place, args.workers, options)
        try:
            lookers = Lookers(app) if is_looked_at else None
            address = app.status()['listeners'][0]['address']
            words = ['wrk', '-t', '1', '-c', str(args.workers * 2), '-d', f'{args.seconds + 4}s', f'http://{address}/']
            load = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            time.sleep(2)
            before, began = app.cpu_seconds(), time.monotonic()
            time.sleep(args.seconds)
            percent = 100 * (app.cpu_seconds() - before) / (time.monotonic() - began)
            memory = app.memory_bytes()
            output = load.communicate()[0]
            rate = next(float(line.split()[1]) for line in output.splitlines() if 'Requests/sec' in line)
            if lookers:
                lookers.stop()
            return percent, memory, rate, lookers.answers if lookers else 0
        finally:
            app.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('phalanx', type=os.path.abspath)
    parser.add_argument('--seconds', type=int, default=20)
    parser.add_argument('--turns', type=int, default=3)
    parser.add_argument('--workers', type=int, default=64)
    args = parser.parse_args()
    taken = {False: [], True: []}
    for number in range(args.turns):
        for is_looked_at in (False, True):
            percent, memory, rate, answers = turn(args, is_looked_at)
            taken[is_looked_at].append((percent, memory))
            words = 'looked at' if is_looked_at else 'alone'
            print(f'{number + 1} {words:9} {percent:5.1f} % of a processor, {memory / (1 << 20):5.1f} MiB, '
                  f'{rate:7.0f} requests/s, {answers} answers', flush=True)
    medians = {key: [statistics.median(column) for column in zip(*rows)] for key, rows in taken.items()}
    cpu, memory = (more - less for more, less in zip(medians[True], medians[False]))
    whole = medians[True][1]
    print(f'more: {cpu:.1f} % of a processor (bound {CPU_BOUND}), {memory / (1 << 20):.1f} MiB; in all {whole / 1e6:.1f} MB '
          f'(bound {MEMORY_BOUND / 1e6:.0f})')
    sys.exit(cpu > CPU_BOUND or whole > MEMORY_BOUND)


if __name__ == '__main__':
    main()

"""The drop-in for Node's `cluster` beside plain Node: the same program, with and without the package registered, in turns.

    python3 -B bench/dropin.py cpu target/release/phalanx [--node PATH...] [--rounds 3] [--dispatch kernel]
    python3 -B bench/dropin.py restarts target/release/phalanx [--node PATH...] [--restarts 20] [--clients 50]

Run as root for dispatch in the kernel, and on a busy machine with precedence: `nice -n -15`. The program is `examples/node/main.js`.
`cpu` has it answer with a word and loads it with a connection a request (wrk), in turns with and without the package, and prints the processor time of
all its processes a request: primary, workers, engine and holder, as /proc tells it. It exits with 1 if a quotient is above its bound.
`restarts` sends SIGUSR2 again and again, each time when the restart before is over, under clients with kept connections that
pause for a moment after each answer, and prints the requests that got no answer. A client opens another connection after some requests
(`--kept`): without that a restart of plain Node does not end, because a worker that is asked to leave waits for kept connections that are used.
"""
import argparse
import collections
import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import processes

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(HERE)
RATIO_BOUND, PATIENCE = 0.5, 60
REGISTER = f'{REPO}/npm/phalanx-cluster/register.mjs'
HELLO = "require('http').createServer((_, response) => response.end('hello\\n'))\n" \
        "  .listen(Number(process.env.PORT), () => console.log(`Started process ${process.pid}`));\n"
REQUEST = b'GET / HTTP/1.1\r\nHost: bench\r\n\r\n'
PR_SET_CHILD_SUBREAPER = 36


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as found:
        return found.getsockname()[1]


class App:
    """The example's primary and all that it starts; what outlives its parent becomes a child of this process."""

    def __init__(self, node, binary, options, place):
        self.port, self.options, self.begun, self.output = free_port(), options, 0, b''
        environment = {**os.environ, 'PORT': str(self.port), 'WORKERS': str(options.workers), 'PHALANX_BINARY': binary,
                       'PHALANX_DISPATCH': options.dispatch}
        self.words = [node, 'main.js']
        self.environment, self.place, self.process = environment, place, None

    def start(self, with_phalanx):
        flag = ['--import', REGISTER] if with_phalanx else []
        words = [self.words[0], *flag, *self.words[1:]]
        self.process = subprocess.Popen(words, env=self.environment, cwd=self.place, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        os.set_blocking(self.process.stdout.fileno(), False)
        if not self.wait_for_starts(self.options.workers):
            sys.exit(f'the workers do not start: {self.output[-500:]!r}')

    def wait_for_starts(self, count):
        """Waits until so many more workers serve. False if that takes too long."""
        self.begun += count
        deadline = time.monotonic() + PATIENCE
        while len(re.findall(rb'^Started process', self.output, re.M)) < self.begun:
            if self.process.poll() is not None:
                sys.exit(f'the primary has ended: {self.output[-500:]!r}')
            if time.monotonic() > deadline:
                return False
            select.select([self.process.stdout], [], [], 1)
            with contextlib.suppress(BlockingIOError, TypeError):
                self.output += self.process.stdout.read() or b''
        return True

    def cpu(self, load=None):
        """Of all processes but this one and the load."""
        others = (os.getpid(), load)
        return sum(processes.cpu_seconds(one) for one in processes.tree(os.getpid()) if one not in others)

    def stop(self):
        """Ends all of it, and waits until nothing is left."""
        for one in processes.tree(os.getpid())[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        deadline = time.monotonic() + PATIENCE
        while len(rest := processes.tree(os.getpid())) > 1:
            if time.monotonic() > deadline:
                sys.exit(f'still there: {rest}')
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            time.sleep(0.01)


def wrk(port, seconds, clients):
    words = ['wrk', '-t1', f'-c{clients}', f'-d{seconds}s', '-H', 'Connection: close', f'http://127.0.0.1:{port}/']
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def cpu_a_request(node, binary, options, place, with_phalanx):
    """(processor time a request in µs, requests a second)"""
    app = App(node, binary, options, place)
    app.start(with_phalanx)
    try:
        wrk(app.port, 2, options.connections).communicate()
        before, load = app.cpu(), wrk(app.port, options.seconds, options.connections)
        said = load.stdout.read()
        after = app.cpu(load.pid)
        load.wait()
    finally:
        app.stop()
    found = re.search(r'(\d+) requests in ([\d.]+)s', said)
    if not found or re.search(r'Non-2xx|Socket errors: connect [1-9]', said):
        sys.exit(f'the load failed: {said}')
    count = int(found[1])
    return (after - before) / count * 1e6, count / float(found[2])


def measure_cpu(options):
    above = False
    print(f'| Node | plain Node | with phalanx ({options.dispatch}) | quotient | requests a second, plain | with phalanx |')
    print('|---|---|---|---|---|---|', flush=True)
    for node in options.node:
        each = {False: [], True: []}
        with tempfile.TemporaryDirectory() as place:
            shutil.copy(f'{REPO}/examples/node/main.js', place)
            with open(f'{place}/server.js', 'w', encoding='utf-8') as server:
                server.write(HELLO)
            for _ in range(options.rounds):
                for with_phalanx in (False, True):
                    each[with_phalanx].append(cpu_a_request(node, options.binary, options, place, with_phalanx))
        cpu, rate = ([{way: [one[i] for one in each[way]] for way in each} for i in (0, 1)])
        middle = {way: statistics.median(cpu[way]) for way in cpu}
        quotient = middle[True] / middle[False]
        above |= quotient > RATIO_BOUND

        def shown(way):
            return f'{middle[way]:.0f} µs ({min(cpu[way]):.0f} to {max(cpu[way]):.0f})'
        print(f'| {version(node)} | {shown(False)} | {shown(True)} | {quotient:.2f} | {statistics.median(rate[False]):.0f} '
              f'| {statistics.median(rate[True]):.0f} |', flush=True)
    return above


class Clients:
    """Kept connections, each with a request on its way or about to be sent. A request that ends without a whole answer is lost."""

    def __init__(self, port, count, pause, kept):
        self.address, self.pause, self.kept, self.answered, self.lost, self.refused = ('127.0.0.1', port), pause, kept, 0, 0, 0
        self.epoll, self.each, self.resting = select.epoll(), {}, collections.deque()
        for _ in range(count):
            self.connect()

    def connect(self):
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(self.address)
        self.each[connection.fileno()] = [connection, False, b'', 0]
        self.epoll.register(connection.fileno(), select.EPOLLOUT)

    def again(self, number, was_asked):
        self.lost += was_asked
        self.epoll.unregister(number)
        self.each.pop(number)[0].close()
        self.connect()

    def ask(self, number):
        """Sends the next request on a connection."""
        one = self.each[number]
        one[1:] = True, b'', one[3] + 1
        try:
            one[0].send(REQUEST)
            self.epoll.modify(number, select.EPOLLIN)
        except OSError as error:
            self.refused += isinstance(error, ConnectionRefusedError)
            self.again(number, True)

    def turn(self):
        now = time.monotonic()
        while self.resting and self.resting[0][0] <= now:
            _, number, connection = self.resting.popleft()
            # One that was closed meanwhile has a successor.
            if number in self.each and self.each[number][0] is connection:
                self.ask(number)
        wait = max(self.resting[0][0] - now, 0) if self.resting else 0.05
        for number, _ in self.epoll.poll(min(wait, 0.05)):
            self.hear(number)

    def hear(self, number):
        connection, asked, text, count = one = self.each[number]
        if not asked and not self.is_resting(number, connection):
            return self.ask(number)
        try:
            chunk = connection.recv(65536)
        except BlockingIOError:
            return None
        except OSError as error:
            self.refused += isinstance(error, ConnectionRefusedError)
            return self.again(number, asked)
        if not chunk:
            return self.again(number, asked)
        one[2] = text = text + chunk
        head, end, body = text.partition(b'\r\n\r\n')
        length = re.search(rb'\r\ncontent-length: (\d+)', head, re.I)
        if not end or (length and len(body) < int(length[1])) or (not length and not body.endswith(b'0\r\n\r\n')):
            return None
        self.answered += 1
        if count == self.kept or re.search(rb'\r\nconnection: close', head, re.I):
            return self.again(number, False)
        if not self.pause:
            return self.ask(number)
        one[1] = False
        self.resting.append((time.monotonic() + self.pause, number, connection))
        return None

    def is_resting(self, number, connection):
        return any(one[1:] == (number, connection) for one in self.resting)

    def stop(self):
        for connection, *_ in self.each.values():
            connection.close()
        self.epoll.close()


def load_until(port, options, ended, told):
    """In a process of its own: loads until it is told, then says what became of the requests."""
    clients = Clients(port, options.clients, options.pause / 1000, options.kept)
    while not select.select([ended], [], [], 0)[0]:
        clients.turn()
    os.write(told, f'{clients.answered} {clients.lost} {clients.refused}'.encode())
    clients.stop()


def restarts(node, binary, options, place, with_phalanx):
    app = App(node, binary, options, place)
    app.start(with_phalanx)
    (ended, end), (read, told) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        load_until(app.port, options, ended, told)
        os._exit(0)
    os.close(told)
    began, done = time.monotonic(), 0
    try:
        while done < options.restarts:
            app.process.send_signal(signal.SIGUSR2)
            if not app.wait_for_starts(options.workers):
                break
            done += 1
        took = time.monotonic() - began
        os.close(end)
        answered, lost, refused = map(int, os.read(read, 100).split())
        os.waitpid(child, 0)
    finally:
        os.close(read)
        os.close(ended)
        app.stop()
    return done, answered, lost, refused, took


def measure_restarts(options):
    lost_any = False
    print('| Node | | restarts done | requests answered | lost | of these refused | time |')
    print('|---|---|---|---|---|---|---|', flush=True)
    for node in options.node:
        with tempfile.TemporaryDirectory() as place:
            for name in ('main.js', 'server.js'):
                shutil.copy(f'{REPO}/examples/node/{name}', place)
            for with_phalanx in (False, True):
                done, answered, lost, refused, took = restarts(node, options.binary, options, place, with_phalanx)
                lost_any |= with_phalanx and lost > 0
                what = f'with phalanx ({options.dispatch})' if with_phalanx else 'plain Node'
                print(f'| {version(node)} | {what} | {done} | {answered} | {lost} | {refused} | {took:.1f} s |', flush=True)
    return lost_any


def version(node):
    return subprocess.run([node, '--version'], capture_output=True, text=True, check=True).stdout.strip().lstrip('v')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['cpu', 'restarts'])
    parser.add_argument('binary', type=os.path.abspath)
    parser.add_argument('--node', nargs='+', default=[shutil.which('node')])
    parser.add_argument('--dispatch', default='kernel')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=int, default=8)
    parser.add_argument('--connections', type=int, default=16)
    parser.add_argument('--restarts', type=int, default=20)
    parser.add_argument('--clients', type=int, default=50)
    parser.add_argument('--kept', type=int, default=50, help='requests on a connection; 0: without end')
    parser.add_argument('--pause', type=float, default=10, help='of a client after an answer, in ms')
    options = parser.parse_args()
    options.node = [os.path.abspath(node) for node in options.node]
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit('cannot become a reaper of what its children start')
    measure = {'cpu': measure_cpu, 'restarts': measure_restarts}[options.what]
    sys.exit(1 if measure(options) else 0)


if __name__ == '__main__':
    main()

"""A small HTTP client for where wrk does not reach: a connection per request, begun at given times or so many at once,
each answer with the process id of the worker that gave it.

Latency counts from the moment at which a request was *due* (open loop), so that a server that stalls is charged for
all that had to wait, and not only for the requests that a stalled client happened to send.
"""

import errno
import os
import re
import select
import signal
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

PID = re.compile(rb"pid = (\d+)")
REQUEST = "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
LIMIT_SECONDS = 15


@dataclass
class Answer:
    path: str
    due: float
    began: float
    ended: float
    pid: int | None  # None: there was no whole answer

    @property
    def latency_ms(self):
        return (self.ended - self.due) * 1e3


class Engine:
    """Requests in flight, each on a connection of its own."""

    def __init__(self, port):
        self.address, self.epoll, self.flying = ("127.0.0.1", port), select.epoll(), {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection, *_ in self.flying.values():
            connection.close()
        self.epoll.close()

    def begin(self, path, due, source=None):
        connection = socket.socket()
        connection.setblocking(False)
        if source:
            connection.bind((source, 0))
        state = connection.connect_ex(self.address)
        if state not in (0, errno.EINPROGRESS):
            raise OSError(state, "connect")
        number = connection.fileno()
        self.flying[number] = (connection, path, due, time.perf_counter(), bytearray())
        # On loopback the handshake is over when connect(2) returns, unless the queue is full.
        sent = self._send(connection, path)
        self.epoll.register(number, select.EPOLLIN if sent else select.EPOLLOUT)

    def _send(self, connection, path):
        try:
            connection.send(REQUEST.format(path=path).encode())
            return True
        except (BlockingIOError, BrokenPipeError):
            return False
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            return False

    def wait(self, seconds):
        """The requests that end within this time; returns as soon as there are any."""
        ended = []
        for number, events in self.epoll.poll(max(seconds, 0)):
            connection, path, due, began, text = self.flying[number]
            try:
                if events & select.EPOLLOUT:
                    self._send(connection, path)
                    self.epoll.modify(number, select.EPOLLIN)
                    continue
                chunk = connection.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                chunk, text = b"", b""
            if chunk:
                text += chunk
                continue
            ended.append(self._end(number, text))
        return ended

    def _end(self, number, text):
        connection, path, due, began, _ = self.flying.pop(number)
        # Closing is not enough: a program that another thread starts just now has a copy, and epoll would go on about it.
        self.epoll.unregister(number)
        connection.close()
        found = PID.search(text) if text.startswith(b"HTTP/1.1 200") else None
        return Answer(path, due, began, time.perf_counter(), int(found.group(1)) if found else None)

    def abandon(self):
        """What is still in flight, as requests without an answer."""
        return [self._end(number, b"") for number in list(self.flying)]


def closed_loop(port, count, clients, sources=None):
    """`count` requests, `clients` at a time; each from its own address where `sources` are given."""
    answers, begun, deadline = [], 0, time.monotonic() + LIMIT_SECONDS
    with Engine(port) as engine:
        while len(answers) < count and time.monotonic() < deadline:
            while begun < count and len(engine.flying) < clients:
                engine.begin("/", time.perf_counter(), sources[begun] if sources else None)
                begun += 1
            answers += engine.wait(1)
        return answers + engine.abandon()


def open_loop(port, arrivals):
    """One request for each (seconds from now, path), begun at its time whatever became of the others."""
    answers, index, zero = [], 0, time.perf_counter()
    deadline = arrivals[-1][0] + LIMIT_SECONDS
    with Engine(port) as engine:
        while index < len(arrivals) or engine.flying:
            now = time.perf_counter() - zero
            if now > deadline:
                break
            while index < len(arrivals) and arrivals[index][0] <= now:
                at, path = arrivals[index]
                engine.begin(path, zero + at)
                index += 1
            pause = arrivals[index][0] - (time.perf_counter() - zero) if index < len(arrivals) else 1
            answers += engine.wait(pause)
        return answers + engine.abandon()


def poisson(chance, rate, seconds, path=lambda: "/"):
    """Arrival times of many independent clients: exponential gaps, `rate` a second on average."""
    arrivals, at = [], chance.expovariate(rate)
    while at < seconds:
        arrivals.append((at, path()))
        at += chance.expovariate(rate)
    return arrivals


@contextmanager
def punctual():
    """Puts this thread before everything else, where that is allowed (root): a client that is late measures itself, and
    sends what it owes in bursts, which no policy can share out well."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Stutter:
    """Stops one of our processes again and again: `stopped` seconds of every `period`."""

    def __init__(self, pidfd, stopped=0.2, period=0.6):
        self.pidfd, self.stopped, self.running = pidfd, stopped, period - stopped
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.over.is_set():
            signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)
            self.over.wait(self.stopped)
            signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)
            self.over.wait(self.running)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

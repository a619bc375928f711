"""A real server process and a small client, for the tests beside this file. Python's standard library only."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.environ.get("DISCNT_SERVER", os.path.join(ROOT, "target/release/discnt-server"))

# Longest start, loading included.
START_LIMIT_SECS = 60


class Refused(Exception):
    """An error reply."""


def free_port():
    """Free for clients, and for the bus at 10,000 above it; both below those that the system gives to outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(11_000, 22_000)
        try:
            for candidate in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        return port


class Client:
    """One connection. `send` and `receive` apart allow pipelines."""

    def __init__(self, port, timeout=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, *requests):
        self.socket.sendall(b"".join(encode(request) for request in requests))

    def line(self):
        while b"\r\n" not in self.buffer:
            self.fill()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def fill(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server has closed the connection")
        self.buffer += data

    def receive(self):
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise Refused(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            length = int(rest)
            if length < 0:
                return None
            while len(self.buffer) < length + 2:
                self.fill()
            text, self.buffer = self.buffer[:length], self.buffer[length + 2 :]
            return text
        if kind == b"*":
            return [self.receive() for _ in range(int(rest))]
        raise ValueError("unknown reply: %r" % line)

    def __call__(self, *words):
        self.send(words)
        return self.receive()

    def info(self, section="persistence"):
        text = self("INFO", section).decode()
        return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


def encode(words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Node:
    """A server on a directory. Starting and stopping it leaves the directory."""

    def __init__(self, directory, *options):
        self.directory = str(directory)
        self.options = [str(option) for option in options]
        self.port = free_port()
        self.process = None
        self.environment = {}
        self.log_path = os.path.join(self.directory, "server.log")

    def start(self, *more, wait=True):
        command = [PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory, "--pidfile", ""]
        with open(self.log_path, "ab") as log:
            at = log.tell()
            self.process = subprocess.Popen(
                command + self.options + [str(option) for option in more],
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        if wait:
            self.wait_for(r"ready to accept connections", at)
        return self

    def log(self, at=0):
        with open(self.log_path, "rb") as log:
            log.seek(at)
            return log.read().decode(errors="replace")

    def wait_for(self, pattern, at=0, limit=START_LIMIT_SECS):
        deadline = time.monotonic() + limit
        while not re.search(pattern, self.log(at)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the log does not show %r:\n%s" % (pattern, self.log(at)))
            time.sleep(0.005)

    def client(self, timeout=30):
        return Client(self.port, timeout)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def refuses_to_start(self, *more):
        """What it says when it does not start."""
        with open(self.log_path, "ab") as log:
            at = log.tell()
        self.start(*more, wait=False)
        status = self.process.wait(START_LIMIT_SECS)
        assert status == 1, "exit status %s\n%s" % (status, self.log(at))
        return self.log(at)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process and self.process.poll() is None:
            self.kill()


def run_tool(*args):
    """Exit status and output of the program run as a tool."""
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def run_all(tests, names):
    """Runs the tests whose names contain one of the words, or all; exits with 1 if one fails."""
    failed = 0
    for test in tests:
        if names and not any(name in test.__name__ for name in names):
            continue
        began = time.monotonic()
        try:
            said = test() or ""
            print("ok    %-60s %6.1f s  %s" % (test.__name__, time.monotonic() - began, said), flush=True)
        except Exception as error:  # a test's failure, whatever it is, must not hide the others'
            failed += 1
            line = traceback.extract_tb(error.__traceback__)[-1]
            where = "%s:%s" % (os.path.basename(line.filename), line.lineno)
            print("FAIL  %s: %s: %s: %s" % (test.__name__, where, type(error).__name__, error), flush=True)
    sys.exit(1 if failed else 0)

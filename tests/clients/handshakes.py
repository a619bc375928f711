"""What clients of other languages send when they connect, byte by byte, and what they must read back.

  python3 handshakes.py SERVER_PROGRAM

Go (go-redis 9), Java (Jedis 6, Lettuce 6) and .NET (StackExchange.Redis 2) are not at hand where the tests run, so their
opening conversations stand here as their public sources write them: the words, their case, and what goes into one
write. Each is held with a server that is ready and with one that still loads its counters: then the handshake must be
answered as ever, and only commands about counters, PING among them, are put off with -LOADING.

Run by tests/clients/run; needs Python's standard library only.
"""

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Any dump will do: it is what the server waits for while it loads.
DUMP = ROOT / "engine" / "tests" / "fixtures" / "ddb" / "single-node.ddb"
PATIENCE_SECS = 20
# The bus listens on the port + 10000.
HIGHEST_PORT = 55_535

# Replies, as patterns over their bytes.
OK = rb"\+OK\r\n"
PONG = rb"\+PONG\r\n"
ID = rb":[1-9]\d*\r\n"
LOADING = rb"-LOADING [^\r\n]*\r\n"
UNKNOWN_COMMAND = rb"-ERR unknown command '[^\r\n]*'\r\n"
# Clients that ask for what only some servers have go on when it is an error, and try again later when it is -LOADING.
UNKNOWN_SUBCOMMAND = rb"-ERR Syntax error, try CLIENT [^\r\n]*\r\n"
GREETING = (rb"\$6\r\nserver\r\n\$6\r\ndiscnt\r\n\$7\r\nversion\r\n\$\d+\r\n[0-9.]+\r\n\$5\r\nproto\r\n:%d\r\n"
            rb"\$2\r\nid\r\n:[1-9]\d*\r\n\$4\r\nmode\r\n\$10\r\nstandalone\r\n\$4\r\nrole\r\n\$6\r\nmaster\r\n"
            rb"\$7\r\nmodules\r\n\*0\r\n")
HELLO_3 = rb"%7\r\n" + GREETING % 3
HELLO_2 = rb"\*14\r\n" + GREETING % 2


def bulk(text):
    """The pattern of one bulk."""
    text = text.encode()
    return re.escape(b"$%d\r\n%s\r\n" % (len(text), text))


def bulk_with(pattern):
    """The pattern of a bulk, or in RESP3 a text, that holds this somewhere."""
    return rb"[$=]\d+\r\n(?s:.*)" + pattern + rb"(?s:.*)\r\n"


def confirmed(what, name, count, kind=rb"\*"):
    """The pattern of the answer to SUBSCRIBE and its kin."""
    return kind + rb"3\r\n" + bulk(what) + bulk(name) + b":%d\r\n" % count


# A conversation is a list of writes, a write a list of (words, reply, reply while loading if that is another one).
# What stands in one write is sent at once, without waiting for replies between.

GO_REDIS = [
    [(["hello", "3"], HELLO_3)],
    [(["client", "maint_notifications", "on", "moving-endpoint-type", "internal-ip"], UNKNOWN_SUBCOMMAND)],
    [(["client", "setinfo", "lib-name", "go-redis(,go1.24.5)"], OK),
     (["client", "setinfo", "lib-ver", "9.14.0"], OK)],
    [(["incr", "go"], bulk("1"), LOADING)],
    [(["incrbyfloat", "go", "0.5"], bulk("1.5"), LOADING)],
    [(["ping"], PONG, LOADING)],
]
GO_REDIS_SUBSCRIBER = [
    *GO_REDIS[:3],
    [(["subscribe", "go:plays"], confirmed("subscribe", "go:plays", 1, b">"))],
    # Sent after three quiet seconds, to see whether the connection still lives.
    [(["ping"], PONG, LOADING)],
    [(["unsubscribe", "go:plays"], confirmed("unsubscribe", "go:plays", 0, b">"))],
]
GO_REDIS_WITH_NAME_AND_DATABASE = [
    [(["hello", "3", "setname", "app"], HELLO_3)],
    [(["client", "setname", "app"], OK)],
    [(["select", "0"], OK)],
    [(["client", "getname"], bulk("app"))],
]

JEDIS = [
    [(["CLIENT", "SETINFO", "LIB-NAME", "jedis"], OK), (["CLIENT", "SETINFO", "LIB-VER", "6.2.0"], OK)],
    # A pool asks before it lends the connection.
    [(["PING"], PONG, LOADING)],
    [(["INCRBYFLOAT", "jedis", "1.5"], bulk("1.5"), LOADING)],
    [(["MGET", "jedis", "jedis:none"], rb"\*2\r\n" + bulk("1.5") + bulk("0"), LOADING)],
    [(["QUIT"], OK)],
]
JEDIS_RESP3 = [
    [(["HELLO", "3"], HELLO_3)],
    [(["CLIENT", "SETNAME", "app"], OK), (["CLIENT", "SETINFO", "LIB-NAME", "jedis"], OK),
     (["CLIENT", "SETINFO", "LIB-VER", "6.2.0"], OK)],
    [(["CLIENT", "MAINT_NOTIFICATIONS", "ON"], UNKNOWN_SUBCOMMAND)],
]

LETTUCE = [
    [(["HELLO", "3", "SETNAME", "app"], HELLO_3)],
    [(["CLIENT", "SETINFO", "lib-name", "Lettuce"], OK), (["CLIENT", "SETINFO", "lib-ver", "6.8.1.RELEASE/abcdef0"], OK)],
    [(["INCRBYFLOAT", "lettuce", "2"], bulk("2"), LOADING)],
    [(["PING"], PONG, LOADING)],
    [(["SUBSCRIBE", "lettuce:plays"], confirmed("subscribe", "lettuce:plays", 1, b">"))],
    [(["GET", "lettuce"], bulk("2"), LOADING)],
]
LETTUCE_RESP2 = [
    [(["PING"], PONG, LOADING)],
    [(["CLIENT", "SETNAME", "app"], OK)],
    [(["CLIENT", "SETINFO", "lib-name", "Lettuce"], OK), (["CLIENT", "SETINFO", "lib-ver", "6.8.1.RELEASE/abcdef0"], OK)],
    [(["SUBSCRIBE", "lettuce:plays2"], confirmed("subscribe", "lettuce:plays2", 1))],
    [(["PING"], rb"\*2\r\n" + bulk("pong") + bulk(""), LOADING)],
]


def stack_exchange_names(suffix):
    """What both of its connections say of themselves."""
    return [
        (["CLIENT", "SETNAME", "HOST(SE.Redis-v2.8.58)" + suffix], OK),
        (["CLIENT", "SETINFO", "lib-name", "SE.Redis"], OK),
        (["CLIENT", "SETINFO", "lib-ver", "2.8.58.0"], OK),
        (["CLIENT", "ID"], ID),
    ]


# 16 random bytes; no text.
IDENTITY = b"\x93\x1f\x00\r\n\xfe\x42\x8a\x01\x02\x03\x04\x05\x06\x07\x08"
ECHOED = re.escape(b"$16\r\n" + IDENTITY + b"\r\n")
STACK_EXCHANGE_DISCOVERY = [
    (["CONFIG", "GET", "timeout"], rb"(\*2|%1)\r\n" + bulk("timeout") + bulk("0")),
    (["CONFIG", "GET", "slave-read-only"], rb"[*%]0\r\n"),
    (["CONFIG", "GET", "databases"], rb"[*%]0\r\n"),
    (["SENTINEL", "MASTERS"], UNKNOWN_COMMAND),
    (["INFO", "replication"], bulk_with(rb"\r\nrole:master\r\n")),
    (["INFO", "server"], bulk_with(rb"\r\nrun_id:[0-9a-f]{40}\r\n")),
    (["CLUSTER", "NODES"], bulk_with(rb" myself "), LOADING),
    (["GET", "__Booksleeve_TieBreak"], bulk("0"), LOADING),
    (["ECHO", IDENTITY], ECHOED),
]
STACK_EXCHANGE = [
    stack_exchange_names("") + STACK_EXCHANGE_DISCOVERY,
    [(["INCRBY", "net", "3"], bulk("3"), LOADING)],
    # Each minute, and to keep the connection.
    [(["INFO", "replication"], bulk_with(rb"\r\nrole:master\r\n"))],
    [(["PING"], PONG, LOADING)],
]
STACK_EXCHANGE_SUBSCRIBER = [
    stack_exchange_names("") + [
        (["ECHO", IDENTITY], ECHOED),
        (["SUBSCRIBE", "__Booksleeve_MasterChanged"], confirmed("subscribe", "__Booksleeve_MasterChanged", 1)),
    ],
    [(["PING"], rb"\*2\r\n" + bulk("pong") + bulk(""), LOADING)],
]
# HELLO without credentials tells it what it would have to ask INFO for.
STACK_EXCHANGE_DISCOVERS_BY_HELLO = [
    [(["HELLO", "2"], HELLO_2)] + stack_exchange_names("") + STACK_EXCHANGE_DISCOVERY,
]
STACK_EXCHANGE_RESP3 = [
    [(["HELLO", "3"], HELLO_3)] + stack_exchange_names("") + [(["CLIENT", "MAINT_NOTIFICATIONS", "ON"], UNKNOWN_SUBCOMMAND)]
    + STACK_EXCHANGE_DISCOVERY,
]

CONVERSATIONS = {
    "go-redis": GO_REDIS,
    "go-redis, subscriber": GO_REDIS_SUBSCRIBER,
    "go-redis, name and database": GO_REDIS_WITH_NAME_AND_DATABASE,
    "Jedis": JEDIS,
    "Jedis, RESP3": JEDIS_RESP3,
    "Lettuce": LETTUCE,
    "Lettuce, RESP2": LETTUCE_RESP2,
    "StackExchange.Redis": STACK_EXCHANGE,
    "StackExchange.Redis, subscriber": STACK_EXCHANGE_SUBSCRIBER,
    "StackExchange.Redis, HELLO 2": STACK_EXCHANGE_DISCOVERS_BY_HELLO,
    "StackExchange.Redis, RESP3": STACK_EXCHANGE_RESP3,
}

PASSWORD = "sesame"
NOAUTH = rb"-NOAUTH [^\r\n]*\r\n"
# How each gives the password.
LOGINS = {
    "go-redis": [[(["hello", "3", "auth", "default", PASSWORD], HELLO_3)],
                 [(["client", "setinfo", "lib-ver", "9.14.0"], OK)]],
    "go-redis, wrong password": [[(["hello", "3", "auth", "default", "wrong"], rb"-WRONGPASS [^\r\n]*\r\n")],
                                 [(["auth", "wrong"], rb"-ERR invalid password\r\n")]],
    "Jedis": [[(["AUTH", PASSWORD], OK)], [(["CLIENT", "SETINFO", "LIB-NAME", "jedis"], OK)]],
    "Jedis, user": [[(["AUTH", "default", PASSWORD], OK)]],
    "Jedis, RESP3 and user": [[(["HELLO", "3", "AUTH", "default", PASSWORD], HELLO_3)]],
    "Lettuce": [[(["HELLO", "3", "AUTH", "default", PASSWORD, "SETNAME", "app"], HELLO_3)]],
    "Lettuce, without": [[(["HELLO", "3"], NOAUTH)]],
    "StackExchange.Redis": [[(["AUTH", PASSWORD], OK), (["HELLO", "2"], HELLO_2)] + stack_exchange_names("")
                            + [(["ECHO", IDENTITY], ECHOED)]],
    "StackExchange.Redis, without": [[(["CLIENT", "SETNAME", "x"], NOAUTH), (["ECHO", IDENTITY], NOAUTH)]],
}


def encode(words):
    """A request as an array of bulks."""
    words = [word if isinstance(word, bytes) else word.encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Connection:
    """A client that reads replies as the bytes that they are."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECS)
        self.received = b""

    def fill(self):
        """Waits for more."""
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the server has closed the connection")
        self.received += data

    def reply(self, start=0):
        """Where the reply that begins at `start` ends."""
        while b"\r\n" not in self.received[start:]:
            self.fill()
        end = self.received.index(b"\r\n", start) + 2
        kind, rest = self.received[start:start + 1], self.received[start + 1:end - 2]
        if kind in b"$=" and int(rest) >= 0:
            end += int(rest) + 2
            while len(self.received) < end:
                self.fill()
        elif kind in b"*>~%" and int(rest) > 0:
            for _ in range(int(rest) * (2 if kind == b"%" else 1)):
                end = self.reply(end)
        return end

    def take(self):
        """The next reply; messages that come between are none."""
        while True:
            end = self.reply()
            reply, self.received = self.received[:end], self.received[end:]
            if b"$7\r\nmessage\r\n" not in reply:
                return reply


def hold(port, name, writes, is_loading):
    """Holds a conversation; ends the script at the first reply that the client would not take."""
    connection = Connection(port)
    for write in writes:
        connection.socket.sendall(b"".join(encode(words) for words, *_ in write))
        for words, *replies in write:
            wanted = replies[-1] if is_loading else replies[0]
            try:
                reply = connection.take()
            except OSError as error:
                sys.exit("%s: no reply to %s: %s" % (name, words, error))
            if not re.fullmatch(wanted, reply):
                sys.exit("%s%s: %s is answered %r, not %r" % (
                    name, " while counters are loaded" if is_loading else "", words, reply, wanted))
    connection.socket.close()


def free_port():
    """A port that was free a moment ago, with room for the bus."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port <= HIGHEST_PORT:
            return port


@contextlib.contextmanager
def server(program, directory, *options):
    """A server that takes connections, be it still loading; yields its port."""
    port = free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--pidfile", "", *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE_SECS
        while True:
            if process.poll() is not None or time.monotonic() > end:
                sys.exit("the server does not take connections")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.01)
        yield port
        if process.poll() is not None:
            sys.exit("the server has ended with status %d" % process.returncode)
    finally:
        process.kill()
        process.wait()


def ask_ready(port):
    """Waits until the server has loaded its counters."""
    end = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < end:
        connection = Connection(port)
        connection.socket.sendall(b"PING\r\n")
        if connection.take() == b"+PONG\r\n":
            return
    sys.exit("the server goes on loading")


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        # The server loads for as long as nobody has written the dump to the end.
        dump = os.path.join(directory, "dump.ddb")
        os.mkfifo(dump)
        with server(program, directory) as port:
            for name, writes in CONVERSATIONS.items():
                hold(port, name, writes, is_loading=True)
            pathlib.Path(dump).write_bytes(DUMP.read_bytes())
            ask_ready(port)
            for name, writes in CONVERSATIONS.items():
                hold(port, name, writes, is_loading=False)
    with tempfile.TemporaryDirectory() as directory:
        with server(program, directory, "--requirepass", PASSWORD) as port:
            for name, writes in LOGINS.items():
                hold(port, name, writes, is_loading=False)
    print("handshakes of go-redis, Jedis, Lettuce and StackExchange.Redis: %d, also while loading; %d with a password" % (
        len(CONVERSATIONS), len(LOGINS)))


if __name__ == "__main__":
    main()

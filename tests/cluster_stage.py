"""What the cluster tests stand on: nodes as processes, clients, network namespaces. Used by `cluster.py` beside it.

Lacks on purpose: anything but the Python standard library, and any knowledge of the bus: it speaks to clients' ports.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

SECRET = "not so secret: tests know it"
BUS_PORT_OFFSET = 10_000
# With their bus ports below those that the system gives to outgoing connections (from 32,768 on): a node that starts again must
# find its own free.
CLIENT_PORTS = (11_000, 22_000)
START_LIMIT = 10.0
JOIN_LIMIT = 15.0
SETTLE_LIMIT = 5.0
NODE_TIMEOUT = 1.0


class Failed(Exception):
    """A claim does not hold."""


class ErrorReply(Exception):
    """The server has answered with an error."""


def check(condition, message):
    if not condition:
        raise Failed(message)


def wait_until(condition, limit, what, interval=0.02):
    """Waits until `condition()` is true; returns how long that took."""
    start = time.monotonic()
    while True:
        seen = condition()
        took = time.monotonic() - start
        if seen:
            return took
        check(took < limit, f"within {limit} s: {what() if callable(what) else what}")
        time.sleep(interval)


def at_best_of(attempts, measure):
    """What `measure` returns, once it holds: for claims about moments, in which whatever else runs on the machine shows too."""
    failures = []
    for _ in range(attempts):
        try:
            return measure()
        except Failed as failure:
            failures.append(str(failure))
    raise Failed(f"in none of {attempts} attempts: " + "; ".join(failures))


class Client:
    """A connection that speaks RESP2."""

    def __init__(self, address, timeout=20.0):
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def call(self, *words):
        return self.pipeline([words])[0]

    def pipeline(self, requests):
        self.socket.sendall(b"".join(map(encode, requests)))
        replies = [self.read() for _ in requests]
        for reply in replies:
            if isinstance(reply, ErrorReply):
                raise reply
        return replies

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"-":
            return ErrorReply(rest.decode())
        if kind == b"$":
            if rest == b"-1":
                return None
            return self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        raise ConnectionError(f"not RESP2: {line!r}")


def encode(words):
    words = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def free_port(count=1, taken=set()):
    """A port that is free for clients, with its bus port, and as many behind it; no two calls give the same."""
    while True:
        first = random.SystemRandom().randrange(*CLIENT_PORTS)
        ports = range(first, first + count)
        near = {port + offset for port in ports for offset in (-BUS_PORT_OFFSET, 0, BUS_PORT_OFFSET)}
        if near & taken:
            continue
        try:
            for candidate in (port + offset for port in ports for offset in (0, BUS_PORT_OFFSET)):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        taken.update(ports)
        return first


class Node:
    """A server process and its directory."""

    def __init__(self, server, directory, host="127.0.0.1", namespace=None, options=(), secret=SECRET, environment=None):
        self.server, self.host, self.namespace = server, host, namespace
        self.secret, self.environment = secret, environment
        self.port = free_port()
        self.dir = os.path.join(directory, f"node-{self.port}")
        self.log = os.path.join(self.dir, "log")
        self.options = list(options)
        self.process = None
        os.makedirs(self.dir)

    def __str__(self):
        return f"{self.host}:{self.port}"

    @property
    def address(self):
        return (self.host, self.port)

    def command(self):
        """The server's command line, without the namespace."""
        words = [self.server, "--port", str(self.port), "--bind", self.host, "--dir", self.dir, "--pidfile", ""]
        words += ["--cluster-secret", self.secret, "--cluster-node-timeout", str(int(NODE_TIMEOUT * 1000))]
        return words + self.options

    def start(self):
        within = [] if self.namespace is None else ["ip", "netns", "exec", self.namespace]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                within + self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment
            )
        wait_until(self.answers, START_LIMIT, f"{self} answers")
        return self

    def said(self, at=0):
        """Its log from that byte on."""
        with open(self.log, "rb") as log:
            log.seek(at)
            return log.read().decode(errors="replace")

    def answers(self):
        check(self.process.poll() is None, f"{self} has ended with status {self.process.returncode}")
        try:
            client = Client(self.address, timeout=5.0)
        except OSError:
            return False
        try:
            return client.call("PING") == "PONG"
        except ErrorReply:
            return False
        finally:
            client.close()

    def client(self):
        return Client(self.address)

    def call(self, *words):
        client = self.client()
        try:
            return client.call(*words)
        finally:
            client.close()

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            # A stopped process takes SIGKILL as well.
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def forget_counters(self):
        """Removes all that the node keeps but its identity and members."""
        for name in os.listdir(self.dir):
            path = os.path.join(self.dir, name)
            if name in ("log", "nodes.conf"):
                continue
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)

    def id(self):
        return self.call("CLUSTER", "MYID")

    def members(self):
        """The other nodes that it has met: id -> words of the line."""
        lines = [line.split() for line in self.call("CLUSTER", "NODES").splitlines() if line]
        return {words[0]: words for words in lines if "myself" not in words[2] and "handshake" not in words[2]}

    def is_linked_to(self, count):
        members = self.members()
        return len(members) == count and all(
            words[-1] == "connected" and words[2] == "noflags" for words in members.values()
        )


class Stage:
    """Makes nodes and ends them."""

    def __init__(self, options, name):
        self.server = options.server
        self.seed = f"{options.seed}/{name}"
        self.random = random.Random(self.seed)
        self.directory = tempfile.mkdtemp(prefix="discnt-cluster-")
        self.nodes = []

    def node(self, **given):
        node = Node(self.server, self.directory, **given)
        self.nodes.append(node)
        return node

    def cluster(self, count):
        """Nodes that have met in a chain: each was told of the next alone."""
        nodes = [self.node().start() for _ in range(count)]
        self.join(nodes)
        return nodes

    def join(self, nodes):
        for node, following in zip(nodes, nodes[1:]):
            check(node.call("CLUSTER", "MEET", following.host, following.port) == "OK", "MEET answers OK")
        wait_until(
            lambda: all(node.is_linked_to(len(nodes) - 1) for node in nodes),
            JOIN_LIMIT,
            lambda: "all nodes are linked; seen:\n"
            + "\n".join(f"{node}\n{node.call('CLUSTER', 'NODES')}" for node in nodes),
        )

    def end(self):
        for node in self.nodes:
            node.kill()


def totals(node, names):
    return node.call("MGET", *names)


def shards(node, name):
    """The parts of a counter as a node knows them: id of the owner -> value."""
    try:
        return {part[0]: part[1] for part in node.call("DEBUG", "COUNTER", name)[0]}
    except ErrorReply:
        return {}


def await_totals(nodes, expected, limit=SETTLE_LIMIT, parts=None):
    """Waits until every node reads exactly the expected totals; returns how long that took. With `parts` (id of a node ->
    counter -> what it counted) a failure tells whose part is wrong."""
    names = sorted(expected)
    wanted = [str(expected[name]) for name in names]

    def differences():
        found = []
        for node in nodes:
            for name, want, have in zip(names, wanted, totals(node, names)):
                if have != want:
                    found.append(f"{node} reads {name} as {have}, not {want}")
        return found

    def what():
        found = differences()
        wrong = [
            f"{node}: the part of {owner[:8]} in {name} is {have.get(owner)}, not {sums[name]}"
            for node in nodes[:1]
            for name in names
            for have in [shards(node, name)]
            for owner, sums in (parts or {}).items()
            if have.get(owner, "0") != str(sums[name])
        ]
        return f"every node reads the exact totals; {len(found)} differ:\n  " + "\n  ".join(found[:5] + wrong[:10])

    return wait_until(lambda: not differences(), limit, what, interval=0.05)


class Writer(threading.Thread):
    """Increments counters on one node, pipelined, and adds up what was acknowledged."""

    BATCH = 20

    def __init__(self, node, names, increments, pause, seed):
        super().__init__(daemon=True)
        self.node, self.names, self.left, self.pause = node, names, increments, pause
        self.random = random.Random(seed)
        self.sums = dict.fromkeys(names, 0)
        self.may_run = threading.Event()
        self.may_run.set()
        self.rests = threading.Event()
        self.error = None

    def run(self):
        try:
            self.write()
        except Exception as error:  # told by the main thread
            self.error = error
        self.rests.set()

    def write(self):
        client = None
        while self.left > 0:
            if not self.may_run.is_set():
                if client is not None:
                    client.close()
                    client = None
                self.rests.set()
                self.may_run.wait()
                self.rests.clear()
            client = client or self.node.client()
            batch = []
            for _ in range(min(self.BATCH, self.left)):
                batch.append((self.random.choice(self.names), self.random.randint(1, 9)))
            client.pipeline([("INCRBY", name, by) for name, by in batch])
            for name, by in batch:
                self.sums[name] += by
            self.left -= len(batch)
            time.sleep(self.pause)

    def hold(self):
        """Stops writing; returns when nothing is under way."""
        self.may_run.clear()
        check(self.rests.wait(30), f"the writer on {self.node} comes to rest")


class Skipped(Exception):
    """The machine does not let the claim be looked at."""


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """Network namespaces on a bridge, one for each node; this process reaches them over the bridge's own address."""

    made = 0

    def __init__(self, count):
        # The system takes a namespace's interfaces away some time after it, so no name is used twice.
        Network.made += 1
        self.mark = f"{os.getpid() % 100_000}{Network.made}"
        self.bridge = f"dcb{self.mark}"
        octet = (os.getpid() + Network.made) % 250 + 1
        self.names = [f"discnt-{self.mark}-{n}" for n in range(count)]
        self.hosts = [f"10.213.{octet}.{n + 1}" for n in range(count)]
        self.own = f"10.213.{octet}.250"

    def __enter__(self):
        try:
            ip("link", "add", self.bridge, "type", "bridge")
            ip("netns", "add", self.names[0])
        except OSError as error:
            self.__exit__()
            raise Skipped(f"network namespaces are not to be had here ({error})") from None
        try:
            self.build()
        except OSError:
            self.__exit__()
            raise
        return self

    def build(self):
        ip("address", "add", f"{self.own}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        for number, name in enumerate(self.names):
            outer, inner = f"dcv{self.mark}o{number}", f"dcv{self.mark}i{number}"
            if number > 0:
                ip("netns", "add", name)
            ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            ip("link", "set", outer, "master", self.bridge, "up")
            ip("link", "set", inner, "netns", name, "name", "eth0")
            ip("-n", name, "address", "add", f"{self.hosts[number]}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")

    def cut(self, source, target):
        """What `source` sends to `target` is lost silently: it goes to a hardware address that nobody has."""
        words = ["neigh", "replace", self.hosts[target], "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent"]
        ip("-n", self.names[source], *words)

    def heal(self, source, target):
        ip("-n", self.names[source], "neigh", "del", self.hosts[target], "dev", "eth0")

    def __exit__(self, *_):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)


def add_everywhere(stage, nodes, expected, names, count):
    """Increments on all nodes; adds to what is expected."""
    clients = [node.client() for node in nodes]
    for _ in range(count):
        client, name, by = stage.random.choice(clients), stage.random.choice(names), stage.random.randint(1, 9)
        client.call("INCRBY", name, by)
        expected[name] = expected.get(name, 0) + by
    for client in clients:
        client.close()

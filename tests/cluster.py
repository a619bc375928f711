#!/usr/bin/env python3
"""Real server processes in clusters: what the simulator proves in a fake world, shown on real sockets.

    python3 tests/cluster.py --server target/release/discnt-server [--seed N] [--only WORD] [--keep]

Each claim starts nodes of its own on free ports of 127.0.0.1 (or, for cuts, in network namespaces), with a secret, and
ends them by process id. A claim that fails says what was seen and where the nodes' logs are. The seed of the
random choices is printed; the same seed makes the same choices (not the same timing).

Lacks on purpose: anything but the Python standard library, and any knowledge of the bus: it speaks to clients' ports.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SECRET = "not so secret: tests know it"
BUS_PORT_OFFSET = 10_000
HIGHEST_PORT = 55_535
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


def free_port(taken=set()):
    """A port that is free for clients, with its bus port; no two calls give the same."""
    while True:
        port = random.SystemRandom().randrange(20_000, HIGHEST_PORT - BUS_PORT_OFFSET)
        if port in taken or port + BUS_PORT_OFFSET in taken or port - BUS_PORT_OFFSET in taken:
            continue
        try:
            for candidate in (port, port + BUS_PORT_OFFSET):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        taken.add(port)
        return port


class Node:
    """A server process and its directory."""

    def __init__(self, server, directory, host="127.0.0.1", namespace=None, options=()):
        self.server, self.host, self.namespace = server, host, namespace
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

    def start(self):
        command = [] if self.namespace is None else ["ip", "netns", "exec", self.namespace]
        command += [self.server, "--port", str(self.port), "--bind", self.host, "--dir", self.dir, "--pidfile", ""]
        command += ["--cluster-secret", SECRET, "--cluster-node-timeout", str(int(NODE_TIMEOUT * 1000))]
        command += self.options
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self.answers, START_LIMIT, f"{self} answers")
        return self

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


def await_totals(nodes, expected, limit=SETTLE_LIMIT):
    """Waits until every node reads exactly the expected totals; returns how long that took."""
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
        return f"every node reads the exact totals; {len(found)} differ:\n  " + "\n  ".join(found[:5])

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


def disturb(stage, nodes, writers, log):
    """Stops, kills and restarts nodes until the writers are done."""
    turn = 0
    while any(writer.is_alive() for writer in writers):
        which = stage.random.randrange(len(nodes))
        node, writer = nodes[which], writers[which]
        kind = ("stop", "kill", "kill without data")[turn % 3]
        turn += 1
        if kind == "stop":
            length = stage.random.choice((0.2, 0.5, 1.5, 3.0))
            log(f"{node}: stopped for {length} s")
            node.signal(signal.SIGSTOP)
            time.sleep(length)
            node.signal(signal.SIGCONT)
        else:
            writer.hold()
            time.sleep(1.0)
            log(f"{node}: {kind}")
            node.kill()
            if kind == "kill without data":
                node.forget_counters()
            time.sleep(stage.random.choice((0.0, 0.5, 2.0)))
            node.start()
            writer.may_run.set()
        time.sleep(stage.random.uniform(0.1, 0.8))


def seven_nodes_in_trouble_lose_and_double_nothing(stage, options):
    nodes = stage.cluster(7)
    names = [f"counter:{n}" for n in range(40)]
    each = -(-options.increments // len(nodes))
    writers = [
        Writer(node, names, each, options.seconds * Writer.BATCH / each, f"{stage.seed}/{number}")
        for number, node in enumerate(nodes)
    ]
    for writer in writers:
        writer.start()
    disturb(stage, nodes, writers, lambda line: print(f"    {line}"))
    for writer in writers:
        writer.join()
        if writer.error is not None:
            raise Failed(f"writer on {writer.node}: {writer.error!r}")
    expected = {name: sum(writer.sums[name] for writer in writers) for name in names}
    took = await_totals(nodes, expected)
    return f"{each * len(nodes)} increments, exact on all nodes {took:.2f} s after the last disturbance"


def what_a_node_has_recovered_reaches_those_that_recover_later(stage, _options):
    first, second, third = stage.cluster(3)
    expected = {f"kept:{n}": 7 + n for n in range(40)}
    for name, by in expected.items():
        first.call("INCRBY", name, by)
    await_totals([first, second, third], expected)
    for node in (first, second, third):
        time.sleep(1.0)
        node.kill()
        node.forget_counters()
        node.start()
        await_totals([first, second, third], expected)
    return "each of three nodes has lost its counters once, and none is missing"


def of_two_concurrent_sets_one_wins_everywhere(stage, _options):
    nodes = stage.cluster(3)
    names = [f"set:{n}" for n in range(50)]
    clients = [node.client() for node in nodes[:2]]
    barrier = threading.Barrier(2)

    def run(number):
        for name in names:
            barrier.wait()
            clients[number].call("SET", name, 1_000 * (number + 1))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def ends():
        return [totals(node, names) for node in nodes]

    def agree():
        seen = ends()
        return seen[0] == seen[1] == seen[2] and set(seen[0]) <= {"1000", "2000"}

    took = wait_until(agree, SETTLE_LIMIT, lambda: f"all nodes read one of the two values; seen {ends()}")
    time.sleep(1.0)
    check(agree(), f"it stays so; seen {ends()}")
    winners = totals(nodes[0], names)
    return f"after {took:.2f} s; the first node has won {winners.count('1000')} of {len(names)}"


def a_dead_node_is_frozen_and_forgotten_without_loss(stage, _options):
    nodes = stage.cluster(4)
    live, dead = nodes[:3], nodes[3]
    dead_id, quiet = dead.id(), {"quiet": 0}
    for number, node in enumerate(nodes):
        node.call("INCRBY", "quiet", 11 + number)
        quiet["quiet"] += 11 + number
    await_totals(nodes, quiet)
    client, counted = dead.client(), 0
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        client.call("INCRBY", "rising", 5)
        counted += 5
        time.sleep(0.01)
    dead.kill()
    killed = time.monotonic()

    def state(node, name):
        return node.call("GET", name, "STATE")

    wait_until(
        lambda: all(state(node, name)[1] == "INCONSISTENT" for node in live for name in ("rising", "quiet")),
        2 * NODE_TIMEOUT,
        lambda: f"all say INCONSISTENT; seen {[state(node, 'rising') for node in live]}",
    )
    said = time.monotonic() - killed
    time.sleep(max(0.0, killed + 2 * NODE_TIMEOUT - time.monotonic()))
    frozen = [totals(node, ["rising"])[0] for node in live]
    time.sleep(1.0)
    later = [totals(node, ["rising"])[0] for node in live]
    check(frozen == later, f"two timeouts after the end the value stands still: {frozen}, then {later}")
    for value in frozen:
        check(abs(float(value) - counted) <= 600, f"frozen at {value}, near the {counted} that were counted")
    check(live[0].call("CLUSTER", "FORGET", dead_id) == "OK", "FORGET answers OK")
    wait_until(
        lambda: all(state(node, name)[1] == "CONSISTENT" for node in live for name in ("rising", "quiet")),
        SETTLE_LIMIT,
        lambda: f"all say CONSISTENT; seen {[state(node, 'rising') for node in live]}",
    )
    await_totals(live, quiet)

    def values():
        return [totals(node, ["rising"])[0] for node in live]

    wait_until(lambda: len(set(values())) == 1, SETTLE_LIMIT, lambda: f"all read the same; seen {values()}")
    kept = float(values()[0])
    check(abs(kept - counted) <= 600 and kept > 0, f"{kept} is kept of the {counted} that were counted")
    for node in live:
        check(dead_id not in node.call("CLUSTER", "NODES"), f"{node} has no line of the departed")
    return f"INCONSISTENT after {said:.2f} s; counted {counted}, frozen at {frozen[0]}, kept {kept:g}"


def an_increment_is_seen_on_an_idle_peer_within_20_ms(stage, options):
    nodes = stage.cluster(3)
    writer, reader = nodes[0].client(), nodes[1].client()
    names = [f"fresh:{n}" for n in range(20)]
    values, took = dict.fromkeys(names, 0), []
    for number in range(options.samples):
        name = names[number % len(names)]
        values[name] += 1
        start = time.monotonic()
        writer.call("INCR", name)
        while float(reader.call("GET", name)) < values[name]:
            if time.monotonic() - start > 2.0:
                break
        took.append((time.monotonic() - start) * 1000)
        time.sleep(stage.random.uniform(0.005, 0.05))
    took.sort()
    p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
    seen = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, maximum {took[-1]:.2f} ms of {len(took)}"
    check(p99 < 20.0, seen)
    return seen


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


def cut_and_heal(stage, cuts, meanwhile):
    """Three nodes A, B, C in namespaces; makes the cuts, writes, heals, and awaits exact totals."""
    with Network(3) as network:
        nodes = [
            stage.node(host=host, namespace=name).start()
            for host, name in zip(network.hosts, network.names)
        ]
        try:
            stage.join(nodes)
            names, expected = [f"cut:{n}" for n in range(10)], {}
            add_everywhere(stage, nodes, expected, names, 300)
            await_totals(nodes, expected)
            for source, target in cuts:
                network.cut(source, target)
            add_everywhere(stage, nodes, expected, names, 1_000)
            seen = meanwhile(nodes, expected)
            time.sleep(3 * NODE_TIMEOUT)
            add_everywhere(stage, nodes, expected, names, 1_000)
            for source, target in cuts:
                network.heal(source, target)
            took = await_totals(nodes, expected)
            return f"{seen}exact on all nodes {took:.2f} s after the cut has healed"
        finally:
            stage.end()


def a_cut_in_one_direction_heals_to_exact_totals(stage, _options):
    return cut_and_heal(stage, [(0, 1)], lambda _nodes, _expected: "")


def across_a_partial_partition_counts_are_seen_through_the_third_node(stage, _options):
    def meanwhile(nodes, expected):
        took = await_totals(nodes, expected, limit=5 * NODE_TIMEOUT + SETTLE_LIMIT)
        return f"A and B read each other through C {took:.2f} s after the cut; "

    return cut_and_heal(stage, [(0, 1), (1, 0)], meanwhile)


CLAIMS = [
    seven_nodes_in_trouble_lose_and_double_nothing,
    what_a_node_has_recovered_reaches_those_that_recover_later,
    of_two_concurrent_sets_one_wins_everywhere,
    a_dead_node_is_frozen_and_forgotten_without_loss,
    a_cut_in_one_direction_heals_to_exact_totals,
    across_a_partial_partition_counts_are_seen_through_the_third_node,
    an_increment_is_seen_on_an_idle_peer_within_20_ms,
]


def run(claim, options):
    """Whether the claim holds, or can't be looked at here."""
    name = claim.__name__
    print(f"{name} ...", flush=True)
    stage = Stage(options, name)
    is_kept = options.keep
    try:
        print(f"  ok: {claim(stage, options)}")
        return True
    except Skipped as reason:
        print(f"  SKIPPED: {reason}")
        return True
    except (Failed, ErrorReply, OSError) as error:
        print(f"  FAILED: {error}\n  the nodes' logs are under {stage.directory}")
        is_kept = True
        return False
    finally:
        stage.end()
        sys.stdout.flush()
        if not is_kept:
            shutil.rmtree(stage.directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description="Real server processes in clusters.")
    parser.add_argument("--server", default="target/release/discnt-server", help="the server's binary")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", default="", help="claims with this word in their name")
    parser.add_argument("--keep", action="store_true", help="keep the nodes' directories")
    parser.add_argument("--increments", type=int, default=100_000, help="of the seven nodes together")
    parser.add_argument("--seconds", type=float, default=25.0, help="over which they are spread")
    parser.add_argument("--samples", type=int, default=500, help="of freshness")
    options = parser.parse_args()
    options.server = os.path.abspath(options.server)
    print(f"seed {options.seed}")
    results = [run(claim, options) for claim in CLAIMS if options.only in claim.__name__]
    print(f"{sum(results)} of {len(results)} claims hold")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

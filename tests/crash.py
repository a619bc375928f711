#!/usr/bin/env python3
"""Real processes are killed under load, again and again, and must come back with what they had acknowledged.

    tests/crash.py [WORD ...]        all tests, or those whose names contain a word

Environment: DISCNT_SERVER (the program), CRASH_ROUNDS (kills in a row per test, 200 without), CRASH_SEED.

What is checked after each kill -9, in one directory that is never cleaned:
- `appendfsync always`: every increment that was acknowledged is there;
- `appendfsync everysec`: every increment acknowledged more than 1 s + MARGIN_SECS before the kill is there;
- in both: no counter is higher than what was ever sent;
- with a live peer: every increment acknowledged more than SENT_SECS before the kill is there again, whether the disk kept
  its counters or lost them all, and both nodes read the same.
"""

import os
import random
import shutil
import subprocess
import tempfile
import threading
import time

from node import Client, Node, Refused, run_all

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "200"))
SEED = int(os.environ.get("CRASH_SEED", str(random.randrange(1 << 32))))

# Under everysec on top of the second: a commit may be under way (at most half a second of rest, then its own time), and the
# machine of the test may be busy.
MARGIN_SECS = 0.7

# An increment reaches an idle peer within 20 ms; here both share a busy machine with six clients and the test itself.
SENT_SECS = 0.5

# Until a node that came back has asked its peer, and both have settled.
RECOVERY_SECS = 15

CLIENTS = 6
NAMES_PER_CLIENT = 40


class Writer(threading.Thread):
    """Increments its own counters until the connection breaks, and remembers what was sent and acknowledged when."""

    def __init__(self, port, number, sent, pipeline, pause=0):
        super().__init__(daemon=True)
        self.names = ["c%d:%d" % (number, i) for i in range(NAMES_PER_CLIENT)]
        self.client = Client(port)
        self.sent = sent
        self.acknowledged = {}  # name: [(moment, value)]
        self.pipeline = pipeline
        self.pause = pause
        self.random = random.Random(SEED + number)

    def run(self):
        try:
            while True:
                batch = [self.random.choice(self.names) for _ in range(self.pipeline)]
                for name in batch:
                    self.sent[name] = self.sent.get(name, 0) + 1
                self.client.send(*(("INCR", name) for name in batch))
                for name in batch:
                    value = int(self.client.receive())
                    self.acknowledged.setdefault(name, []).append((time.monotonic(), value))
                time.sleep(self.pause)
        except (OSError, ConnectionError):
            pass


def rounds(policy, pipeline, lost_secs):
    """Kills a node ROUNDS times under load; returns how many increments were checked and how many were lost."""
    rng = random.Random(SEED)
    base, checked, lost = {}, 0, 0  # base: what each counter read after the last restart
    with tempfile.TemporaryDirectory() as directory, Node(directory, "--appendfsync", policy) as node:
        node.start()
        for turn in range(ROUNDS):
            sent = dict(base)
            writers = [Writer(node.port, number, sent, pipeline) for number in range(CLIENTS)]
            [writer.start() for writer in writers]
            if rng.random() < 0.1:
                # A snapshot under way when the kill comes.
                node.client()("BGSAVE")
            time.sleep(rng.uniform(0.02, 1.6 if lost_secs and turn % 4 == 0 else 0.3))
            killed_at = time.monotonic()
            node.kill()
            [writer.join() for writer in writers]
            node.start()
            client = node.client()
            names = [name for writer in writers for name in writer.names]
            values = dict(zip(names, map(int, client("MGET", *names))))
            for writer in writers:
                for name in writer.names:
                    entries = writer.acknowledged.get(name, [])
                    due = [value for moment, value in entries if moment <= killed_at - lost_secs]
                    least = max(due, default=base.get(name, 0))
                    most = sent.get(name, 0)
                    where = "round %d, seed %d, %s" % (turn, SEED, name)
                    assert values[name] >= least, "%s: acknowledged %d, found %d" % (where, least, values[name])
                    assert values[name] <= most, "%s: sent %d, found %d" % (where, most, values[name])
                    checked += len(entries)
                    lost += max(entries[-1][1] - values[name], 0) if entries else 0
            base = values
        node.stop()
    return "%d kills, %d acknowledged increments, %d lost" % (ROUNDS, checked, lost)


def always_keeps_every_acknowledged_increment():
    return rounds("always", 1, 0)


def always_keeps_pipelined_increments_too():
    global ROUNDS
    kept, ROUNDS = ROUNDS, max(ROUNDS // 4, 1)
    try:
        return rounds("always", 16, 0)
    finally:
        ROUNDS = kept


def everysec_loses_a_second_at_most():
    return rounds("everysec", 16, 1 + MARGIN_SECS)


def meet(node, peer):
    """Joins the two; returns when each sees the other."""
    client, other = node.client(), peer.client()
    client("CLUSTER", "MEET", "127.0.0.1", peer.port)
    deadline = time.monotonic() + RECOVERY_SECS
    while min(len(one("CLUSTER", "NODES").splitlines()) for one in (client, other)) < 2:
        assert time.monotonic() < deadline, "the nodes don't find each other"
        time.sleep(0.02)


def settled(node, peer, names, least):
    """What both read as soon as it is the same, and enough; and how long that took."""
    client, other, began = node.client(), peer.client(), time.monotonic()
    while True:
        ours, theirs = client("MGET", *names), other("MGET", *names)
        if ours == theirs and ours == client("MGET", *names):
            values = dict(zip(names, map(int, ours)))
            if all(values[name] >= least[name] for name in names):
                return values, time.monotonic() - began
        if time.monotonic() - began > RECOVERY_SECS:
            bad = ["%s: here %s, there %s, at least %d" % (name, one, two, least[name])
                   for name, one, two in zip(names, ours, theirs) if one != two or int(one) < least[name]]
            raise AssertionError("; ".join(bad[:5]))
        time.sleep(0.05)


def with_a_live_peer_only_what_was_not_sent_is_lost():
    rng = random.Random(SEED)
    turns = max(ROUNDS // 4, 2)
    base, checked, lost, longest = {}, 0, 0, 0
    # With precision 0 every increment is worth telling.
    options = ("--appendfsync", "everysec", "--cluster-node-timeout", "2000", "--default-precision", "0")
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        with Node(here, *options) as node, Node(there, *options) as peer:
            node.start()
            peer.start()
            meet(node, peer)
            for turn in range(turns):
                sent = dict(base)
                writers = [Writer(node.port, number, sent, 4, 0.002) for number in range(CLIENTS)]
                [writer.start() for writer in writers]
                time.sleep(rng.uniform(0.6, 1.6))
                killed_at = time.monotonic()
                node.kill()
                [writer.join() for writer in writers]
                if turn % 2 == 1:
                    shutil.rmtree(os.path.join(here, "appendonlydir"))
                node.start()
                names = [name for writer in writers for name in writer.names]
                least = {}
                for writer in writers:
                    for name in writer.names:
                        entries = writer.acknowledged.get(name, [])
                        due = [value for moment, value in entries if moment <= killed_at - SENT_SECS]
                        least[name] = max(due, default=base.get(name, 0))
                where = "round %d, seed %d%s" % (turn, SEED, ", disk lost" if turn % 2 else "")
                try:
                    values, took = settled(node, peer, names, least)
                except AssertionError as error:
                    raise AssertionError("%s: %s" % (where, error))
                longest = max(longest, took)
                for writer in writers:
                    for name in writer.names:
                        entries = writer.acknowledged.get(name, [])
                        most = sent.get(name, 0)
                        assert values[name] <= most, "%s: %s: sent %d, found %d" % (where, name, most, values[name])
                        checked += len(entries)
                        lost += max(entries[-1][1] - values[name], 0) if entries else 0
                base = values
    return "%d kills, half of them with the disk lost, %d acknowledged increments, %d lost, recovered within %.1f s" % (
        turns, checked, lost, longest)


def a_full_disk_is_seen_governs_writes_and_passes():
    """Needs a small file system of its own: a tmpfs, so root. Says so if it can't have one."""
    with tempfile.TemporaryDirectory() as directory:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", directory], capture_output=True)
        if mounted.returncode != 0:
            return "SKIPPED: no tmpfs to be had: " + mounted.stderr.decode().strip()
        try:
            return full_disk(directory)
        finally:
            subprocess.run(["umount", "-l", directory], check=True)


def full_disk(directory):
    ballast = os.path.join(directory, "ballast")
    acknowledged = {}
    with Node(directory, "--appendfsync", "always") as node:
        node.start()
        client = node.client()
        client("INCR", "before")
        with open(ballast, "wb") as file:
            left = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
            file.write(b"x" * (left - 40_000))
        refused = None
        for number in range(20_000):
            name = "a-counter-with-a-rather-long-name:%d" % number
            other = node.client(timeout=5)
            try:
                other("INCR", name)
                acknowledged[name] = 1
            except Refused as error:
                refused = str(error)
                break
            except OSError:
                # Not acknowledged: its reply waits for a disk that has no room. It must not be counted on, nor be lost twice.
                acknowledged.pop(name, None)
                continue
        assert refused and refused.startswith("MISCONF"), refused
        info = client.info()
        assert info["aof_last_write_status"] == "err", info
        assert int(client("GET", "before")) == 1, "reads go on"
        try:
            client("INCR", "before")
            raise AssertionError("a write was taken while the disk is full")
        except Refused as error:
            assert str(error).startswith("MISCONF")
        assert "No space left on device" in node.log(), node.log()
        os.remove(ballast)
        began = time.monotonic()
        while True:
            try:
                client("INCR", "after")
                break
            except Refused:
                assert time.monotonic() - began < 10, "it does not come back by itself"
                time.sleep(0.05)
        came_back_secs = time.monotonic() - began
        assert client.info()["aof_last_write_status"] == "ok"
        node.kill()
        node.start()
        client = node.client()
        for name in acknowledged:
            assert int(client("GET", name)) == 1, name
        assert int(client("GET", "after")) == 1 and int(client("GET", "before")) == 1
    return "%d writes before it was full, back %.2f s after there was room" % (len(acknowledged), came_back_secs)


if __name__ == "__main__":
    import sys

    print("seed %d, %d rounds" % (SEED, ROUNDS))
    run_all(
        [
            always_keeps_every_acknowledged_increment,
            always_keeps_pipelined_increments_too,
            everysec_loses_a_second_at_most,
            with_a_live_peer_only_what_was_not_sent_is_lost,
            a_full_disk_is_seen_governs_writes_and_passes,
        ],
        sys.argv[1:],
    )

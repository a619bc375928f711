#!/usr/bin/env python3
"""The disk as its users meet it: start and end, SAVE and BGSAVE, damage, check and repair, dumps of the original, limits.

    tests/disk.py [WORD ...]         all tests, or those whose names contain a word

Environment: DISCNT_SERVER (the program).
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from decimal import Decimal, localcontext

from node import ROOT, Node, Refused, run_all, run_tool

DUMPS = os.path.join(ROOT, "engine/tests/fixtures/ddb")


class Directory(tempfile.TemporaryDirectory):
    """A data directory; `node` makes a server for it."""

    def __enter__(self):
        return self

    def node(self, *options):
        return Node(self.name, *options)

    def store(self, *names):
        return os.path.join(self.name, "appendonlydir", *names)

    def segments(self):
        return sorted(name for name in os.listdir(self.store()) if name.endswith(".log"))

    def snapshots(self):
        return sorted(name for name in os.listdir(self.store()) if name.endswith(".snapshot"))


def values(client, *names):
    return [value.decode() for value in client("MGET", *names)]


def refused(client, *words):
    try:
        reply = client(*words)
    except Refused as error:
        return str(error)
    raise AssertionError("%r was answered %r" % (words, reply))


def everything_comes_back_after_a_kill_and_after_an_end():
    odd = [b"", b"a b", b"\x00\xff\r\n", b"x" * 65535]
    with Directory() as directory, directory.node("--appendfsync", "always") as node:
        client = node.start().client()
        for number, name in enumerate(odd):
            client("INCRBY", name, "%d.125" % number)
        client("SET", "was-set", "-12345678901234567890.5")
        client("INCRBY", "was-set", "0.25")
        client("PRECISION", "coarse", "5%")
        client("INCR", "deleted")
        client("DEL", "deleted")
        client("SET", "zero", "0")
        node.kill()
        for end in (node.kill, node.stop, node.kill):
            client = node.start().client()
            expected = ["0.125", "1.125", "2.125", "3.125", "-12345678901234567890.25"]
            assert values(client, *odd, "was-set") == expected, values(client, *odd, "was-set")
            assert client("PRECISION", "coarse") == b"5%"
            assert client("EXISTS", "deleted") == 0
            end()


def flushed_and_deleted_counters_stay_away():
    with Directory() as directory, directory.node("--appendfsync", "always") as node:
        client = node.start().client()
        client("MINCRBY", 1, *("k%d" % i for i in range(3000)))
        client("SAVE")
        client("DEBUG", "FLUSHALL")
        client("INCR", "k7")
        node.kill()
        client = node.start().client()
        assert client("DBSIZE") == 1 and values(client, "k7") == ["1"]


def removed_zeros_stay_away():
    with Directory() as directory, directory.node("--appendfsync", "always") as node:
        client = node.start().client()
        client("SET", "a", 5)
        client("SET", "a", 0)
        deadline = time.monotonic() + 10
        while client("EXISTS", "a"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.1)
        client("INCR", "b")
        node.kill()
        client = node.start().client()
        assert client("KEYS", "*") == [b"b"]


def save_answers_when_it_is_done_and_removes_what_is_old():
    with Directory() as directory, directory.node() as node:
        client = node.start().client()
        began = client("LASTSAVE")
        client("MINCRBY", 1, *("k%d" % i for i in range(1000)))
        time.sleep(1.1)
        assert client("SAVE") == "OK"
        assert client("LASTSAVE") > began
        info = client.info()
        assert info["ddb_changes_since_last_save"] == "0" and info["ddb_last_bgsave_status"] == "ok", info
        assert len(directory.snapshots()) == 1 and len(directory.segments()) == 1
        client("INCR", "k0")
        assert client.info()["ddb_changes_since_last_save"] == "1"
        assert client("BGSAVE") == "Background saving started"
        deadline = time.monotonic() + 10
        while client.info()["ddb_changes_since_last_save"] != "0":
            assert time.monotonic() < deadline
            time.sleep(0.01)


def a_second_background_save_is_told_so():
    with Directory() as directory, directory.node("--maxmemory", "0") as node:
        client = node.start().client(timeout=120)
        client("DEBUG", "POPULATE", 500_000)
        client("BGSAVE")
        assert refused(client, "BGSAVE") == "ERR Background save already in progress"
        assert client("SAVE") == "OK", "it joins the one that is being made"


def without_a_log_snapshots_are_all():
    with Directory() as directory, directory.node("--appendonly", "no") as node:
        client = node.start().client()
        client("SET", "a", 5)
        assert client("SAVE") == "OK"
        client("SET", "a", 6)
        node.kill()
        client = node.start().client()
        assert values(client, "a") == ["5"]
        client("SET", "a", 7)
        assert node.stop() == 0, "SIGTERM saves, as there are save points"
        assert values(node.start().client(), "a") == ["7"]
        node.client()("SET", "a", 8)
        try:
            node.client()("SHUTDOWN", "NOSAVE")
        except ConnectionError:
            pass
        node.process.wait(10)
        assert values(node.start().client(), "a") == ["7"]


def without_a_log_save_points_save():
    with Directory() as directory, directory.node("--appendonly", "no", "--save", "1", "3") as node:
        client = node.start().client()
        client("MINCRBY", 2, "a", "b", "c")
        deadline = time.monotonic() + 10
        while client.info()["ddb_changes_since_last_save"] != "0":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        node.kill()
        assert values(node.start().client(), "a", "b", "c") == ["2", "2", "2"]


def shutdown_waits_for_the_save_and_stays_if_it_fails():
    with Directory() as directory, directory.node() as node:
        client = node.start().client()
        client("SET", "a", 5)
        client("CONFIG", "SET", "dir", "/proc")
        assert refused(client, "SHUTDOWN") == "ERR Errors trying to SHUTDOWN. Check logs."
        assert refused(client, "SAVE") == "ERR"
        client("SET", "a", 6)
        assert client("BGSAVE") == "Background saving started"
        wait_until(lambda: client.info()["ddb_last_bgsave_status"] == "err", 10, client.info)
        assert refused(client, "SET", "a", 7).startswith("MISCONF")
        assert refused(client, "PING").startswith("MISCONF")
        assert values(client, "a") == ["6"]
        client("CONFIG", "SET", "dir", directory.name)
        assert client("SAVE") == "OK"
        client("SET", "a", 7)
        wait_until(lambda: client.info()["log_behind_counters"] == "0", 10, client.info)
        node.kill()
        assert values(node.start().client(), "a") == ["7"]


def a_change_of_directory_takes_the_counters_along():
    with Directory() as old, Directory() as new, old.node() as node:
        client = node.start().client()
        client("MINCRBY", 3, "a", "b")
        client("CONFIG", "SET", "dir", new.name)
        assert client("SAVE") == "OK"
        client("INCR", "a")
        node.stop()
        with new.node() as moved:
            assert values(moved.start().client(), "a", "b") == ["4", "3"]


def a_directory_serves_one_process():
    with Directory() as directory, directory.node() as node, directory.node() as second:
        node.start()
        assert "in use by another process" in second.refuses_to_start()


def fill(directory, node):
    """Several synced commits; returns the last segment."""
    client = node.start().client()
    for round in range(20):
        client("MINCRBY", 1, *("key:%d" % i for i in range(200)))
        time.sleep(0.02)
    assert node.stop() == 0
    return directory.store(directory.segments()[-1])


def log_size(directory):
    """Bytes in all segments."""
    return sum(os.path.getsize(directory.store(name)) for name in directory.segments())


def a_torn_tail_is_cut_and_reported():
    with Directory() as directory, directory.node("--appendfsync", "no") as node:
        client = node.start().client()
        for round in range(5):
            # Each round is one write of its own: the next begins when the log has grown.
            written = log_size(directory)
            client("MINCRBY", 1, *("key:%d" % i for i in range(200)))
            deadline = time.monotonic() + 10
            while log_size(directory) <= written:
                assert time.monotonic() < deadline, "nothing was written"
                time.sleep(0.01)
        node.kill()
        path = directory.store(directory.segments()[-1])
        os.truncate(path, os.path.getsize(path) - 100)
        status, said = run_tool("--check", directory.name)
        assert status == 0 and "ends in the middle of a write" in said, said
        node.start()
        assert re.search(r"The log ended in the middle of a write.*from offset \d+", node.log()), node.log()
        assert values(node.client(), "key:1", "key:199") == ["4", "4"]


def zeros_ahead_of_the_log_are_no_damage():
    with Directory() as directory, directory.node("--appendfsync", "always") as node:
        client = node.start().client()
        for turn in range(30):
            client("MINCRBY", 1, *("key:%d" % i for i in range(50)))
        node.kill()
        path = directory.store(directory.segments()[-1])
        with open(path, "rb") as file:
            assert file.read().endswith(bytes(4096)), "the log is not written into room"
        for what in (directory.name, path):
            status, said = run_tool("--check", what)
            assert status == 0 and "zeros" in said and "can't be read" not in said, said
        status, said = run_tool("--repair", directory.name)
        assert status == 0 and "Nothing to repair" in said, said
        at = len(node.log())
        assert values(node.start().client(), "key:0", "key:49") == ["30", "30"]
        assert "in the middle of a write" not in node.log(at)
        assert node.stop() == 0
        with open(directory.store(directory.segments()[-1]), "rb") as file:
            assert not file.read().endswith(bytes(4096)), "an orderly end cuts the room off"
        # A bit that is not zero in the room: what a crash may leave of a write, and no reason to refuse.
        client = node.start().client()
        client("INCR", "key:0")
        node.kill()
        path = directory.store(directory.segments()[-1])
        with open(path, "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"\1")
        status, said = run_tool("--check", directory.name)
        assert status == 0 and "ends in the middle of a write" in said, said
        assert values(node.start().client(), "key:0") == ["31"]


# Makes calls of the system that wait for the disk take as long as the file named by SLOW_DISK says, in ms.
SLOW_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

static void wait_for_disk(void) {
    FILE *file = fopen(getenv("SLOW_DISK"), "r");
    long ms = 0;
    if (!file) return;
    if (fscanf(file, "%ld", &ms) != 1) ms = 0;
    fclose(file);
    struct timespec length = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&length, NULL);
}

#define SLOW(type, name, parameters, arguments)                          \
    type name parameters {                                               \
        type (*real) parameters = (type (*) parameters)dlsym(RTLD_NEXT, #name); \
        wait_for_disk();                                                 \
        return real arguments;                                           \
    }

SLOW(int, fsync, (int fd), (fd))
SLOW(int, fdatasync, (int fd), (fd))
SLOW(ssize_t, pwrite, (int fd, const void *bytes, size_t len, off_t at), (fd, bytes, len, at))
SLOW(ssize_t, pwrite64, (int fd, const void *bytes, size_t len, off64_t at), (fd, bytes, len, at))
"""


class SlowDisk:
    """A node whose disk can be made slow; `None` as node if there is no compiler."""

    def __init__(self, directory, *options):
        self.control = os.path.join(directory.name, "slow-disk")
        library, source = self.control + ".so", self.control + ".c"
        with open(source, "w") as file:
            file.write(SLOW_DISK)
        built = subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        self.node = directory.node(*options)
        self.node.environment = {"LD_PRELOAD": library, "SLOW_DISK": self.control}

    def takes(self, ms):
        """From now on each call takes so long. A call under way goes on as it began."""
        with open(self.control + ".new", "w") as file:
            file.write(str(ms))
        os.rename(self.control + ".new", self.control)


# A client on a quiet machine waits some 0.1 ms; a call of the slow disk takes several seconds.
LONGEST_WAIT_SECS = 0.5


def nobody_waits(client, secs, *requests):
    """Sends requests in turn for so long; the longest wait, and by how many ms INFO said at most that the log is behind."""
    end, longest, behind_ms = time.monotonic() + secs, 0, 0
    while time.monotonic() < end:
        for request in requests:
            began = time.monotonic()
            client(*request)
            longest = max(longest, time.monotonic() - began)
        behind_ms = max(behind_ms, int(client.info()["log_behind_ms"]))
        time.sleep(0.002)
    assert longest < LONGEST_WAIT_SECS, "a client waited %.3f s" % longest
    return longest, behind_ms


def a_stuck_disk_delays_nobody_unless_always_asks_for_it():
    if shutil.which("cc") is None:
        return "SKIPPED: there is no C compiler"
    longest = 0
    for policy in ("everysec", "no"):
        with Directory() as directory:
            slow = SlowDisk(directory, "--appendfsync", policy)
            with slow.node as node:
                client = node.start().client()
                client("INCR", "a")
                slow.takes(2_500)
                requests = [("INCR", "a"), ("GET", "a"), ("INCRBY", "b", 2), ("MGET", "a", "b"), ("PING",), ("INFO", "persistence")]
                waited, behind_ms = nobody_waits(client, 4.5, *requests)
                longest = max(longest, waited)
                assert behind_ms > 1_000, "the log was behind by %d ms at most" % behind_ms
                assert client.info()["aof_last_write_status"] == "ok"
                wait_until(lambda: "The disk is slow: changes of the last" in node.log(), 10, node.log)
                slow.takes(0)
                wait_until(lambda: "The disk has caught up" in node.log(), 15, node.log)
                counted = values(client, "a", "b")
                wait_until(lambda: client.info()["log_behind_counters"] == "0", 15, client.info)
                node.kill()
                assert values(node.start().client(), "a", "b") == counted
    return "the longest wait was %.1f ms" % (longest * 1e3)


def a_stuck_disk_holds_back_under_always_only_what_must_be_safe():
    if shutil.which("cc") is None:
        return "SKIPPED: there is no C compiler"
    with Directory() as directory:
        slow = SlowDisk(directory, "--appendfsync", "always")
        with slow.node as node:
            client, writer, other = node.start().client(), node.client(), node.client()
            client("INCR", "a")
            slow.takes(3_000)
            began = time.monotonic()
            writer.send(("INCR", "a"))
            nobody_waits(client, 1, ("GET", "a"), ("PING",), ("EXISTS", "a"))
            # The setting changes while a reply is held back: it stays held, and nobody else is.
            client("CONFIG", "SET", "appendfsync", "everysec")
            nobody_waits(other, 0.5, ("INCR", "b"), ("GET", "a"))
            assert writer.receive() in (2, b"2") and time.monotonic() - began >= 2.9, "a reply left before its sync"
            slow.takes(0)


def all_who_wait_for_a_slow_disk_share_one_sync():
    if shutil.which("cc") is None:
        return "SKIPPED: there is no C compiler"
    count, rounds = 50, 20
    with Directory() as directory:
        slow = SlowDisk(directory, "--appendfsync", "always")
        with slow.node as node:
            asker = node.start().client()
            clients = [node.client() for _ in range(count)]
            # A write and a sync take so long each: longer than this test needs to send a request on every connection.
            slow.takes(20)
            before = int(asker.info()["log_syncs"])
            for client in clients:
                client.send(("INCR", "a"))
            for _ in range(rounds):
                for client in clients:
                    client.receive()
                    client.send(("INCR", "a"))
            for client in clients:
                client.receive()
            replies = (rounds + 1) * count
            syncs = int(asker.info()["log_syncs"]) - before
            slow.takes(0)
    # Two halves that take turns, each waiting for the sync of the other, would be 25.
    assert replies / syncs > 30, "%d replies with %d syncs" % (replies, syncs)
    return "%.1f replies per sync" % (replies / syncs)


def wait_until(is_so, limit_secs, tell):
    deadline = time.monotonic() + limit_secs
    while not is_so():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.02)


def damage_refuses_to_start_and_can_be_repaired():
    with Directory() as directory, directory.node("--appendfsync", "always") as node:
        path = fill(directory, node)
        with open(path, "r+b") as file:
            file.seek(3000)
            file.write(b"\xff\xff\xff\xff")
        said = node.refuses_to_start()
        name = os.path.basename(path)
        assert re.search(name + r" is damaged at offset \d+", said) and "--repair" in said, said
        status, checked = run_tool("--check", directory.name)
        assert status == 1 and "can't be read" in checked and "A start is refused" in checked, checked
        status, checked = run_tool("--check", path)
        assert status == 1 and name in checked, checked
        status, repaired = run_tool("--repair", directory.name)
        assert status == 0 and name + ".damaged" in repaired, repaired
        client = node.start().client()
        assert all(value == "20" for value in values(client, *("key:%d" % i for i in range(200))))
        assert node.stop() == 0
        status, checked = run_tool("--check", directory.name)
        assert status == 0 and "All is well" in checked, checked
        status, repaired = run_tool("--repair", directory.name)
        assert status == 0 and "Nothing to repair" in repaired, repaired


def append_block(path, records):
    """Writes a block that is right in every respect behind the last one, as docs/disk-format.md says."""
    with open(path, "rb") as file:
        whole = file.read()
    at, sequence = 64, int.from_bytes(whole[32:40], "little")
    while whole[at : at + 4] == b"DBLK":
        at += 32 + int.from_bytes(whole[at + 8 : at + 12], "little")
        sequence += 1
    size = len(records).to_bytes(4, "little")
    block = size + size + sequence.to_bytes(8, "little") + bytes(4) + (1).to_bytes(4, "little") + records
    crc = zlib.crc32(block, zlib.crc32(whole[:8] + whole[24:32] + whole[16:24]))
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"DBLK" + crc.to_bytes(4, "little") + block)


def a_state_that_cant_be_read_is_damage_though_its_checksum_is_right():
    def record(name, payload):
        return b"\1" + bytes([len(name)]) + name + bytes([len(payload) + 1]) + payload

    with Directory() as directory, directory.node("--appendfsync", "always") as node:
        client = node.start().client()
        client("INCRBY", "good", 5)
        client("INCRBY", "bad", 7)
        assert node.stop() == 0
        path = directory.store(directory.segments()[-1])
        # The example of `engine/src/state.rs`: 42, and the same cut off.
        append_block(path, record(b"made", bytes([1, 0, 0, 0x54])) + record(b"bad", bytes([1, 0, 0])))
        said = node.refuses_to_start()
        assert re.search(os.path.basename(path) + r" can't be used, in the block at offset \d+: counter bad", said), said
        for what in (directory.name, path):
            status, said = run_tool("--check", what)
            assert status == 1 and re.search(r"in the block at offset \d+: counter bad", said), said
        status, said = run_tool("--repair", directory.name)
        assert status == 0 and os.path.basename(path) + ".damaged" in said, said
        assert values(node.start().client(), "good", "bad", "made") == ["5", "7", "42"]
        assert node.stop() == 0
        # What a later version has written is no damage: it must not be repaired away.
        append_block(directory.store(directory.segments()[-1]), record(b"later", bytes([2])))
        status, said = run_tool("--check", directory.name)
        assert status == 1 and "a later version of the server" in said, said
        status, said = run_tool("--repair", directory.name)
        assert status == 1 and "a later version of the server" in said, said


def a_missing_segment_refuses_to_start():
    with Directory() as directory, directory.node("--appendfsync", "always") as node:
        for round in range(3):
            fill(directory, node)
        first = directory.segments()[0]
        os.remove(directory.store(first))
        assert first + " is missing" in node.refuses_to_start()


def loading_is_visible():
    with Directory() as directory, directory.node("--maxmemory", "0") as node:
        node.start().client(timeout=120)("DEBUG", "POPULATE", 2_000_000)
        assert node.stop() == 0
        node.start(wait=False)
        seen, info = set(), {}
        while True:
            try:
                client = node.client()
            except OSError:
                continue
            try:
                client("GET", "x")
                break
            except Refused as error:
                seen.add(str(error))
            if info.get("loading_total_bytes", "0") == "0":
                info = client.info()
        assert seen, "it was too fast to be seen"
        for text in seen:
            assert re.fullmatch(r"LOADING Discnt is loading the dataset in memory: \d+% done", text), text
        assert int(info["loading_total_bytes"]) > 0 and "loading_eta_seconds" in info, info
        assert node.client().info()["loading"] == "0"
        assert node.client()("DBSIZE") == 2_000_000
    return "%d different answers" % len(seen)


def dump(name):
    with open(os.path.join(DUMPS, name + ".json")) as file:
        return json.load(file)


def place(directory, name, own=None, to="dump.ddb"):
    shutil.copy(os.path.join(DUMPS, name + ".ddb"), os.path.join(directory.name, to))
    if own:
        with open(os.path.join(directory.name, "nodes.conf"), "w") as file:
            file.write("%s :5262 myself 0 0 connected\n" % own)


def sample_dumps_load_to_what_their_descriptions_say():
    checked = 0
    for name in ("single-node", "empty", "three-nodes", "three-nodes-moving", "no-checksum"):
        described = dump(name)
        with Directory() as directory, directory.node() as node:
            place(directory, name, described["own_node_id"])
            for turn in range(2):
                client = node.start().client()
                assert client("DBSIZE") == len(described["counters"]), name
                for counter in described["counters"]:
                    key = counter["name"].encode("latin-1")
                    if counter["settled"]:
                        value = client("GET", key).decode()
                        assert same(value, counter["total"]), (name, counter["name"], value, counter["total"])
                        checked += 1
                # The second time from the store: the dump must not be looked at.
                node.kill()
                with open(os.path.join(directory.name, "dump.ddb"), "wb") as file:
                    file.write(b"rubbish")
                if not described["counters"]:
                    break
    return "%d totals" % checked


def same(ours, theirs):
    """The original wrote large and small numbers with an exponent."""
    with localcontext() as context:
        context.prec = 60
        return Decimal(ours) == Decimal(theirs).quantize(Decimal("1e-17"))


def a_dump_without_a_nodes_file_counts_as_own_with_a_warning():
    with Directory() as directory, directory.node() as node:
        place(directory, "three-nodes")
        client = node.start().client()
        for counter in dump("three-nodes")["counters"]:
            assert same(client("GET", counter["name"].encode("latin-1")).decode(), counter["total"]), counter
        assert "are counted as this node's own" in node.log()


def damaged_dumps_are_refused_with_the_offset():
    with Directory() as directory, directory.node() as node:
        place(directory, "single-node")
        path = os.path.join(directory.name, "dump.ddb")
        whole = open(path, "rb").read()
        for length in (0, 5, 20, len(whole) // 2, len(whole) - 1):
            with open(path, "wb") as file:
                file.write(whole[:length])
            said = node.refuses_to_start()
            assert re.search(r"dump.ddb can't be used, at byte \d+:", said), said
        with open(path, "wb") as file:
            file.write(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        assert "can't be used, at byte" in node.refuses_to_start()
        status, said = run_tool("--check", path)
        assert status == 1 and "byte" in said, said
        os.remove(path)
        assert node.start().client()("DBSIZE") == 0


def a_dump_is_imported_by_hand_into_an_empty_directory_only():
    with Directory() as directory, directory.node() as node:
        place(directory, "single-node", to="old.ddb")
        path = os.path.join(directory.name, "old.ddb")
        status, said = run_tool("--dir", directory.name, "--import", path)
        counters = len(dump("single-node")["counters"])
        assert status == 0 and "%d counters read" % counters in said, said
        status, said = run_tool("--dir", directory.name, "--import", path)
        assert status == 1 and "already" in said, said
        assert node.start().client()("DBSIZE") == counters


def memory_limit_refuses_new_counters_only():
    with Directory() as directory, directory.node("--maxmemory", "64mb") as node:
        client = node.start().client(timeout=60)
        client("INCR", "old")
        made, errors = 0, set()
        # Again until nothing more goes in: what waits to be synced, or has just been, takes memory for a while, too.
        made_before = -1
        while made_before != made:
            made_before, is_full = made, False
            while not is_full and made < 2_000_000:
                batch = [("INCR", "filler:%d" % (made + i)) for i in range(5000)]
                client.send(*batch)
                for _ in batch:
                    try:
                        client.receive()
                        made += 1
                    except Refused as refusal:
                        is_full = errors.add(str(refusal)) or True
            wait_until(lambda: client.info()["log_behind_bytes"] == client.info()["log_behind_counters"] == "0", 10, client.info)
            time.sleep(0.3)
        (error,) = errors
        assert error == "OOM command not allowed when used memory > 'maxmemory'.", error
        assert client("INCR", "old") == b"2" and client("SET", "old", 9) == b"9"
        assert client("PRECISION", "old", "2") == b"2"
        assert refused(client, "SET", "new", 1).startswith("OOM")
        assert refused(client, "PRECISION", "new", 1).startswith("OOM")
        assert client("DEL", "filler:0") == 1 and client("EXISTS", "old") == 1
        node.stop()
        client = node.start().client()
        assert client("DBSIZE") > 100_000 and values(client, "old") == ["9"], "the limit does not stop a start"
    return "%d counters in 64 MB" % made


if __name__ == "__main__":
    tests = [value for value in list(globals().values()) if getattr(value, "__module__", "") == "__main__"]
    helpers = (values, refused, fill, dump, place, same, nobody_waits, wait_until, append_block, log_size)
    run_all([test for test in tests if callable(test) and not isinstance(test, type) and test not in helpers], sys.argv[1:])

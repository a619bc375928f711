#!/usr/bin/env python3
"""What durability costs, measured on this machine in one run.

    bench/durability.py [--rounds N] [--counters N] [WORD ...]      all parts, or those whose names contain a word

Parts:
  throughput   pipelined INCRBY (50 connections, depth 64, 100,000 names): `appendfsync everysec` against `appendonly no`
  always       unpipelined INCRBY, 50 connections: `appendfsync always`, against redis-server with the same on the same disk;
               discnt-benchmark asks both, for redis-benchmark takes a whole core before the servers have shown what they can
               (its figures follow, for comparison)
  load         how long a start takes with that many counters (10,000,000)
  snapshot     the slowest PING while a snapshot of them is made, against the slowest without, and the memory it takes
  bytes        bytes written per changed counter at 1,000, 10,000 and 100,000 changed per second, against the record's size,
               over several snapshots

Needs redis-benchmark and, for `always`, redis-server and discnt-benchmark. Rounds of the two sides alternate; the medians
are compared, all samples shown. Data directories are made in --dir (the working directory if not given): it decides which disk is measured.
Environment: DISCNT_SERVER, DISCNT_BENCHMARK.
"""

import argparse
import csv
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
from node import ROOT, Client, Node, free_port  # noqa: E402

BENCHMARK = os.environ.get("DISCNT_BENCHMARK", os.path.join(ROOT, "target/release/discnt-benchmark"))

# Between two commands of the part `bytes`: short, so that no commit has many changes at low rates.
STEP_SECS = 0.005


def redis_benchmark(port, requests, pipeline, names):
    """Requests per second that redis-benchmark gets answered, of INCRBY over that many names."""
    return requests_per_second("redis-benchmark", "rps", port, requests, pipeline, names)


def discnt_benchmark(port, requests, pipeline, names):
    """The same with discnt-benchmark."""
    return requests_per_second(BENCHMARK, "per_second", port, requests, pipeline, names)


def requests_per_second(program, column, port, requests, pipeline, names):
    command = [program, "-p", port, "-n", requests, "-c", 50, "-P", pipeline, "-r", names, "--csv", "--threads", 1]
    command += ["INCRBY", "key:__rand_int__", "1"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    (row,) = csv.DictReader(done.stdout.splitlines())
    return float(row[column])


def compare(title, ours, theirs, rounds, goal=None):
    """Alternates two measurements and prints the ratio of their medians."""
    samples = ([], [])
    for _ in range(rounds):
        for side, measure in enumerate((ours, theirs)):
            samples[side].append(measure())
    medians = [statistics.median(side) for side in samples]
    print("%s: ratio %.2f%s" % (title, medians[0] / medians[1], "" if goal is None else " (goal: at least %.1f)" % goal))
    for name, side in zip(("this", "that"), samples):
        print("    %s: %s" % (name, " ".join("%.0f" % sample for sample in side)))


def throughput(options):
    nodes = []
    for policy in (["--appendfsync", "everysec"], ["--appendonly", "no", "--save", ""]):
        directory = tempfile.mkdtemp(dir=options.dir)
        nodes.append(Node(directory, *policy).start())
    try:
        measures = [lambda node=node: redis_benchmark(node.port, 3_000_000, 64, 100_000) for node in nodes]
        [measure() for measure in measures]
        compare("pipelined INCRBY, everysec against no log", *measures, options.rounds, 0.9)
    finally:
        for node in nodes:
            node.kill()
            shutil.rmtree(node.directory)


def always(options):
    redis_port = free_port()
    redis_directory, directory = tempfile.mkdtemp(dir=options.dir), tempfile.mkdtemp(dir=options.dir)
    redis = subprocess.Popen(
        ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", redis_directory, "--save", ""]
        + ["--appendonly", "yes", "--appendfsync", "always"],
        stdout=subprocess.DEVNULL,
    )
    node = Node(directory, "--appendfsync", "always").start()
    try:
        time.sleep(0.5)
        for client, goal in ((discnt_benchmark, 1.2), (redis_benchmark, None)):
            measures = [
                lambda port=port, client=client: client(port, 300_000, 1, 100_000) for port in (node.port, redis_port)
            ]
            [measure() for measure in measures]
            title = "unpipelined INCRBY, always, against redis-server (%s asks)" % client.__name__
            compare(title, *measures, options.rounds, goal)
    finally:
        redis.kill()
        redis.wait()
        node.kill()
        shutil.rmtree(redis_directory)
        shutil.rmtree(directory)


class BigNode:
    """A node with many counters in a snapshot."""

    def __init__(self, options):
        self.directory = tempfile.mkdtemp(dir=options.dir)
        self.node = Node(self.directory, "--maxmemory", "0").start()
        client = self.node.client(timeout=600)
        client("DEBUG", "POPULATE", options.counters, "a-counter")
        client("SAVE")

    def __enter__(self):
        return self.node

    def __exit__(self, *error):
        self.node.kill()
        shutil.rmtree(self.directory)


def load(options):
    with BigNode(options) as node:
        seconds = []
        for _ in range(options.rounds):
            node.kill()
            at = os.path.getsize(node.log_path)
            node.start()
            took = re.search(r"(\d+) counters loaded in ([0-9.]+) s", node.log(at))
            assert int(took.group(1)) == options.counters, took.group(0)
            seconds.append(float(took.group(2)))
        print("load of %d counters: %s s (goal: at most 10)" % (options.counters, " ".join("%.2f" % s for s in seconds)))


def slowest_ping(port, is_over, delay=0.0005):
    """Sends PING after PING until told; returns how many, the slowest and the 99.9th percentile in ms."""
    client, times = Client(port), []
    while not is_over():
        began = time.perf_counter()
        client("PING")
        times.append((time.perf_counter() - began) * 1e3)
        time.sleep(delay)
    times.sort()
    return len(times), times[-1], times[int(len(times) * 0.999)]


def snapshot(options):
    with BigNode(options) as node:
        client = node.client(timeout=600)
        print("slowest PING with %d counters (goal: at most 5 ms more), memory (goal: at most 15%% more)" % options.counters)
        for _ in range(options.rounds):
            before = int(client.info("memory")["used_memory_rss"])
            peak, is_done, began = [before], [], time.monotonic()
            client("BGSAVE")

            def watch():
                while client.info()["ddb_bgsave_in_progress"] == "1":
                    peak.append(int(client.info("memory")["used_memory_rss"]))
                    time.sleep(0.05)
                is_done.append(True)

            watcher = threading.Thread(target=watch)
            watcher.start()
            count, slowest, high = slowest_ping(node.port, lambda: is_done)
            watcher.join()
            took = time.monotonic() - began
            end = time.monotonic() + took
            quiet_count, quiet, quiet_high = slowest_ping(node.port, lambda: time.monotonic() > end)
            print(
                "    snapshot of %.1f s: slowest %.2f ms, p99.9 %.2f ms of %d; without: slowest %.2f ms, p99.9 %.2f ms of %d; memory +%.1f%%"
                % (took, slowest, high, count, quiet, quiet_high, quiet_count, (max(peak) / before - 1) * 100)
            )


def bytes_written(options):
    """Counters are changed at a steady rate until several snapshots have been made."""
    for rate in (1_000, 10_000, 100_000):
        directory = tempfile.mkdtemp(dir=options.dir)
        # So many counters, and a log so small, that their snapshots come round every ten seconds or so.
        counters = min(rate * 10, 1_000_000)
        node = Node(directory, "--maxmemory", "0", "--snapshot-min-log", counters * 20).start()
        try:
            print("    " + steady_rate(node, rate, counters, options.seconds))
        finally:
            node.kill()
            shutil.rmtree(directory)


def steady_rate(node, rate, counters, seconds):
    client = node.client(timeout=60)
    client("DEBUG", "POPULATE", counters, "a-counter")
    client("SAVE")
    record = snapshot_record_bytes(node, counters)
    client("SAVE")
    before = client.info()
    number, per_step = 0, max(int(rate * STEP_SECS), 1)
    due = time.monotonic()
    end, latest = due + seconds, due + 10 * seconds
    # It ends when a snapshot does, so that what is logged and what is saved belong together.
    snapshots, is_over = 0, False
    while not is_over:
        names = ["a-counter:%d" % ((number + i) * 7919 % counters) for i in range(per_step)]
        number += per_step
        client("MINCRBY", 1, *names)
        due += STEP_SECS
        now = time.monotonic()
        if number % (50 * per_step) == 0:
            last = int(client.info()["snapshot_bytes_written"])
            if last > snapshots and client.info()["ddb_bgsave_in_progress"] == "0":
                is_over, snapshots = now > end, last
        assert now < latest, "no snapshot in %d s" % (10 * seconds)
        time.sleep(max(due - now, 0))
    after = client.info()
    log = int(after["log_bytes_written"]) - int(before["log_bytes_written"])
    saved = int(after["snapshot_bytes_written"]) - int(before["snapshot_bytes_written"])
    return (
        "%d/s: %d of %d counters changed, log %.1f + snapshots %.1f (%.1f of them) bytes per changed counter, record %.1f: "
        "factor %.2f (goal: at most 2.5)"
        % (rate, number, counters, log / number, saved / number, saved / int(after["snapshot_bytes"]), record,
           (log + saved) / number / record)
    )


def snapshot_record_bytes(node, counters):
    """Bytes of one record as the log writes it: kind, lengths, name of 16 bytes, state. One commit has many."""
    client = node.client()
    before = client.info()
    names = ["a-counter:%d" % i for i in range(counters // 2, counters // 2 + min(counters // 2, 10_000))]
    client("MINCRBY", 1, *names)
    time.sleep(1.5)
    after = client.info()
    written = int(after["log_bytes_written"]) - int(before["log_bytes_written"])
    return written / (int(after["log_records_written"]) - int(before["log_records_written"]))


PARTS = [throughput, always, load, snapshot, bytes_written]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counters", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=int, default=60, help="how long each rate of `bytes` is kept up")
    parser.add_argument("--dir", default=".", help="where data directories are made")
    parser.add_argument("parts", nargs="*")
    options = parser.parse_args()
    print("load average %s on %d cores" % (os.getloadavg()[0], os.cpu_count()))
    for part in PARTS:
        if not options.parts or any(word in part.__name__ for word in options.parts):
            part(options)

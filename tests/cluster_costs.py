"""What a cluster costs: bytes on the links, processor time at rest, and the time until a fresh node has everything.

Claims of `cluster.py`. Bytes and updates are those of CLUSTER LINKS: frames with their length prefixes, each way.
"""

import multiprocessing
import os
import random
import threading
import time

from cluster_stage import SETTLE_LIMIT, Client, at_best_of, check, totals, wait_until

MOVING_NAMES = 10_000
BYTES_PER_UPDATE = 20
COUNTERS = 1_000_000
SYNC_LIMIT = 5.0
LONGEST_WAIT_MS = 20.0
IDLE_SECONDS = 12.0
IDLE_SHARE_OF_A_CORE = 0.01
IDLE_BYTES_PER_SECOND = 1_024
STEADY_SECONDS = 20.0


def links(node):
    """What the links have carried: id of the peer -> field -> number."""
    found = {}
    for row in node.call("CLUSTER", "LINKS"):
        fields = dict(zip(row[::2], row[1::2]))
        found[fields["node"]] = {name: number for name, number in fields.items() if isinstance(number, int)}
    return found


def carried(before, after, field):
    return {peer: after[peer][field] - before[peer][field] for peer in after}


def ten_thousand_moving_names_cost_at_most_20_bytes_per_update(stage, _options):
    nodes = stage.cluster(2)
    names = [f"moving:{n}" for n in range(MOVING_NAMES)]
    client, dice = nodes[0].client(), random.Random(stage.seed)

    def move(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            client.pipeline([("INCRBY", dice.choice(names), dice.randint(1, 99)) for _ in range(200)])
            time.sleep(0.004)

    client.pipeline([("INCR", name) for name in names])
    move(3.0)  # each name travels once, and is a number from then on
    before = links(nodes[0])
    move(6.0)
    after = links(nodes[0])
    updates = sum(carried(before, after, "updates-sent").values())
    sent = sum(carried(before, after, "bytes-sent").values())
    back = sum(carried(before, after, "bytes-received").values())
    check(updates > MOVING_NAMES, f"{updates} updates are enough to tell")
    for node in nodes:
        check("is down" not in node.said(), f"{node} was busy, and has kept its link")
    each = (sent + back) / updates
    seen = f"{each:.2f} bytes per update: {updates} updates, {sent} bytes there and {back} back"
    check(each <= BYTES_PER_UPDATE, seen)
    return seen


def a_steady_counter_costs_less_than_an_update_in_ten_seconds(stage, _options):
    nodes = stage.cluster(2)
    client, is_over = nodes[0].client(), threading.Event()
    client.call("PRECISION", "steady", "1%")

    def count():
        """1,000 per second, ten at a time, in step with the clock."""
        moment = time.monotonic()
        while not is_over.is_set():
            client.call("INCRBY", "steady", 10)
            moment += 0.01
            time.sleep(max(0.0, moment - time.monotonic()))

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    def measure():
        before = links(nodes[0])
        time.sleep(STEADY_SECONDS)
        updates = sum(carried(before, links(nodes[0]), "updates-sent").values())
        ours, theirs = (float(totals(node, ["steady"])[0]) for node in nodes)
        check(updates < STEADY_SECONDS / 10, f"{updates} updates in {STEADY_SECONDS:.0f} s")
        check(abs(ours - theirs) <= 0.012 * ours + 50, f"the peer reads {theirs} of {ours}")
        return f"{updates} updates in {STEADY_SECONDS:.0f} s; the peer read {theirs:.0f} of {ours:.0f}"

    try:
        time.sleep(8.0)
        return at_best_of(3, measure)
    finally:
        is_over.set()
        counter.join()


def processor_seconds(node):
    with open(f"/proc/{node.process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch_waiting(address, names, is_over, pipe):
    """In a process of its own: increments and pings, one at a time; tells the longest waits in ms and what was counted."""
    client, dice, waits, counted = Client(address), random.Random(1), [], 0
    while not is_over.is_set():
        start = time.monotonic()
        client.call("INCR", dice.choice(names))
        counted += 1
        waits.append(time.monotonic() - start)
        time.sleep(0.0005)
    waits.sort()
    pipe.send(([1_000 * wait for wait in waits[-5:]], len(waits), counted))


class Watch:
    """Clients of two nodes whose longest waits are told."""

    def __init__(self, nodes, names):
        context = multiprocessing.get_context("fork")
        self.is_over, self.runs = context.Event(), []
        for node in nodes:
            ours, theirs = context.Pipe()
            process = context.Process(target=watch_waiting, args=(node.address, names, self.is_over, theirs), daemon=True)
            process.start()
            self.runs.append((node, process, ours))

    def end(self):
        """(node, its longest waits in ms, rising; how many were measured; what was counted) for each."""
        self.is_over.set()
        found = []
        for node, process, pipe in self.runs:
            check(pipe.poll(30), "the clients tell how long they waited")
            found.append((node, *pipe.recv()))
            process.join()
        return found


def a_million_counters_reach_a_fresh_node_in_5_s_and_cost_nothing_at_rest(stage, _options):
    seen, nodes = at_best_of(3, lambda: a_million_counters_reach_a_fresh_node(stage))
    return f"{seen}; {rest(nodes)}"


def a_million_counters_reach_a_fresh_node(stage):
    stage.end()
    nodes = [stage.node(options=("--maxmemory", "0")).start() for _ in range(3)]
    old, fresh = nodes[:2]
    old.call("DEBUG", "POPULATE", COUNTERS)
    # What the disk has to write of them is not what is measured here.
    await_disk(old)
    written = [f"written:{n}" for n in range(200)]
    for node in (old, fresh):
        node.client().pipeline([("INCR", name) for name in written])
    watch = Watch((old, fresh), written)
    time.sleep(0.3)
    start = time.monotonic()
    check(fresh.call("CLUSTER", "MEET", old.host, old.port) == "OK", "MEET answers OK")
    size, client = 0, fresh.client()
    while size < COUNTERS + len(written) and time.monotonic() - start < 4 * SYNC_LIMIT:
        size = client.call("DBSIZE")
        time.sleep(0.01)
    took = time.monotonic() - start
    waits = watch.end()
    slowest = {node: longest[-1] for node, longest, _, _ in waits}
    seen = f"{size} counters after {took:.2f} s; longest waits {slowest[old]:.1f} ms at the source, "
    seen += f"{slowest[fresh]:.1f} ms at the fresh node"
    check(size >= COUNTERS + len(written), seen)
    check(took <= SYNC_LIMIT, seen)
    check(max(slowest.values()) <= LONGEST_WAIT_MS, f"{seen} ({waits})")
    counted = sum(count for *_, count in waits) + 2 * len(written)
    for node in (old, fresh):
        wait_until(
            lambda: sum(map(float, totals(node, written))) == counted,
            SETTLE_LIMIT,
            lambda: f"{node} reads what was written meanwhile exactly: {sum(map(float, totals(node, written)))} of {counted}",
        )

    def digests():
        return [node.call("DEBUG", "DIGEST") for node in (old, fresh)]

    wait_until(lambda: len(set(digests())) == 1, SETTLE_LIMIT, lambda: f"both have the same: {digests()}")
    return seen, nodes


def await_disk(node):
    """Waits until the log has nothing waiting for it."""
    wait_until(
        lambda: pending(node) == 0,
        30.0,
        lambda: f"the disk has caught up: {node.call('INFO', 'persistence')}",
        interval=0.1,
    )


def pending(node):
    """How many changed counters the log does not have."""
    text = node.call("INFO", "persistence")
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(fields["log_behind_counters"])


def rest(nodes):
    """Three nodes with a million counters that nobody touches."""
    check(nodes[2].call("CLUSTER", "MEET", nodes[0].host, nodes[0].port) == "OK", "MEET answers OK")
    wait_until(lambda: nodes[2].call("DBSIZE") >= COUNTERS, 20.0, "the third node has everything")
    for node in nodes:
        wait_until(lambda: node.is_linked_to(2), 10.0, "all are linked")
        await_disk(node)
    # Tracks are given up after `history-size`, snapshots may be due: then it is quiet.
    time.sleep(11.0)

    def measure():
        before = [(links(node), processor_seconds(node)) for node in nodes]
        start = time.monotonic()
        time.sleep(IDLE_SECONDS)
        after = [(links(node), processor_seconds(node)) for node in nodes]
        seconds = time.monotonic() - start
        shares = [(end - begin) / seconds for (_, begin), (_, end) in zip(before, after)]
        rates = [
            sent / seconds
            for (was, _), (now, _) in zip(before, after)
            for sent in carried(was, now, "bytes-sent").values()
        ]
        seen = f"at rest at most {max(shares):.2%} of a core and {max(rates):.0f} bytes/s per link"
        check(max(rates) < IDLE_BYTES_PER_SECOND, seen)
        check(max(shares) < IDLE_SHARE_OF_A_CORE, seen)
        return seen

    return at_best_of(2, measure)


CLAIMS = [
    ten_thousand_moving_names_cost_at_most_20_bytes_per_update,
    a_steady_counter_costs_less_than_an_update_in_ten_seconds,
    a_million_counters_reach_a_fresh_node_in_5_s_and_cost_nothing_at_rest,
]

#!/usr/bin/env python3
"""Real server processes in clusters: what the simulator proves in a fake world, shown on real sockets.

    python3 tests/cluster.py --server target/release/discnt-server [--seed N] [--only WORD] [--keep]

Each claim starts nodes of its own on free ports of 127.0.0.1 (or, for cuts, in network namespaces), with a secret, and
ends them by process id. A claim that fails says what was seen and where the nodes' logs are. The seed of the
random choices is printed; the same seed makes the same choices (not the same timing).

| file | claims |
|---|---|
| this one | trouble, cuts, departures, freshness, traffic |
| `cluster_defects.py` | the original's defects C1 to C15, by number |
| `cluster_costs.py` | bytes, processor time, a fresh node |
| `cluster_care.py` | what an operator does: MEET, RESET, FORGET, files, secrets, strangers |
| `cluster_stage.py` | no claims: nodes, clients, namespaces |

Lacks on purpose: anything but the Python standard library, and any knowledge of the bus: it speaks to clients' ports.
"""

import argparse
import concurrent.futures
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback

import cluster_care
import cluster_costs
import cluster_defects
from cluster_stage import (
    ErrorReply,
    Failed,
    NODE_TIMEOUT,
    Network,
    SETTLE_LIMIT,
    Skipped,
    Stage,
    Writer,
    add_everywhere,
    at_best_of,
    await_totals,
    check,
    totals,
    wait_until,
)


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
    parts = {writer.node.id(): writer.sums for writer in writers}
    took = await_totals(nodes, expected, parts=parts)
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
    values = dict.fromkeys(names, 0)

    def measure():
        took = []
        for number in range(options.samples):
            name = names[number % len(names)]
            values[name] += 1
            start = time.monotonic()
            writer.call("INCR", name)
            while float(reader.call("GET", name)) < values[name]:
                if time.monotonic() - start > 2.0:
                    break
            took.append((time.monotonic() - start) * 1000)
            time.sleep(stage.random.uniform(0.005, 0.03))
        took.sort()
        p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
        seen = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, maximum {took[-1]:.2f} ms of {len(took)}"
        check(p99 < 20.0, seen)
        return seen

    return at_best_of(3, measure)


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


def a_member_is_shown_at_the_address_that_it_has_now(stage, _options):
    with Network(4) as network:
        nodes = [
            stage.node(host=host, namespace=name).start()
            for host, name in zip(network.hosts[:3], network.names)
        ]
        try:
            stage.join(nodes)
            moved, expected = nodes[1], {}
            add_everywhere(stage, nodes, expected, ["moved"], 100)
            await_totals(nodes, expected)
            others, own_id, port = [nodes[0], nodes[2]], moved.id(), moved.port

            def restart(host, namespace, *options):
                moved.kill()
                moved.host, moved.namespace, moved.options = host, namespace, list(options)
                moved.start()

            def await_address(ip):
                def seen():
                    return [node.members()[own_id] for node in others]

                wait_until(
                    lambda: all(words[1] == f"{ip}:{port}" and words[-1] == "connected" for words in seen()),
                    10.0,
                    lambda: f"{ip} is what the others show: {seen()}",
                )

            restart(network.hosts[3], network.names[3])
            await_address(network.hosts[3])
            restart(network.hosts[3], network.names[3], "--cluster-announce-ip", "192.0.2.7")
            await_address("192.0.2.7")
            restart(network.hosts[3], network.names[3])
            await_address(network.hosts[3])
            add_everywhere(stage, nodes, expected, ["moved"], 100)
            await_totals(nodes, expected)
        finally:
            stage.end()


# Each has the machine for itself: they keep it busy, or look at moments.
ALONE = [
    seven_nodes_in_trouble_lose_and_double_nothing,
    a_dead_node_is_frozen_and_forgotten_without_loss,
    an_increment_is_seen_on_an_idle_peer_within_20_ms,
    *cluster_costs.CLAIMS,
]

# These mostly wait, so some run side by side.
TOGETHER = [
    what_a_node_has_recovered_reaches_those_that_recover_later,
    of_two_concurrent_sets_one_wins_everywhere,
    a_cut_in_one_direction_heals_to_exact_totals,
    across_a_partial_partition_counts_are_seen_through_the_third_node,
    a_member_is_shown_at_the_address_that_it_has_now,
    *cluster_care.CLAIMS,
    *cluster_defects.CLAIMS,
]
SIDE_BY_SIDE = 3


def run(claim, options):
    """What is wrong with the claim; `None` if it holds, or can't be looked at here."""
    name = claim.__name__
    begin = time.monotonic()
    stage = Stage(options, name)
    is_kept, wrong = options.keep, None

    def tell(text):
        print(f"{name}, {time.monotonic() - begin:.1f} s\n  {text}", flush=True)

    try:
        tell(f"ok: {claim(stage, options) or 'holds'}")
    except Skipped as reason:
        tell(f"SKIPPED: {reason}")
    except Exception as error:  # whatever it is, the other claims are looked at
        is_expected = isinstance(error, (Failed, ErrorReply, OSError))
        what = str(error) if is_expected else "".join(traceback.format_exception(error))
        wrong = f"{name}: {what}"
        tell(f"FAILED: {what}\n  the nodes' logs are under {stage.directory}")
        is_kept = True
    finally:
        stage.end()
        if not is_kept:
            shutil.rmtree(stage.directory, ignore_errors=True)
    return wrong


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
    begin = time.monotonic()
    results = [run(claim, options) for claim in ALONE if options.only in claim.__name__]
    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        chosen = [claim for claim in TOGETHER if options.only in claim.__name__]
        results += pool.map(lambda claim: run(claim, options), chosen)
    failures = [wrong for wrong in results if wrong is not None]
    for wrong in failures:
        print(f"FAILED {wrong}")
    print(f"{len(results) - len(failures)} of {len(results)} claims hold, {time.monotonic() - begin:.0f} s")
    return 0 if results and not failures else 1


if __name__ == "__main__":
    sys.exit(main())

"""What an operator does with a cluster, and what strangers try: joining, moving, leaving, files, secrets.

Claims of `cluster.py`.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from cluster_stage import (
    BUS_PORT_OFFSET,
    Client,
    ErrorReply,
    NODE_TIMEOUT,
    SETTLE_LIMIT,
    add_everywhere,
    await_totals,
    check,
    free_port,
    totals,
    wait_until,
)


def refused(call):
    """The error that a call is answered with."""
    try:
        answer = call()
    except ErrorReply as error:
        return str(error)
    check(False, f"an error was expected; the answer is {answer!r}")


def ends_with(node, *options):
    """What a node says that does not start: its log, once it has ended with status 1."""
    with open(node.log, "ab") as log:
        at = log.tell()
        process = subprocess.Popen([*node.command(), *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        status = process.wait(20)
    finally:
        process.kill()
    check(status == 1, f"exit status {status}")
    return node.said(at)


def a_cluster_is_made_and_described_by_the_commands_of_old(stage, _options):
    nodes = [stage.node().start() for _ in range(3)]
    first, second, third = nodes
    bus = third.port + BUS_PORT_OFFSET
    check(first.call("CLUSTER", "MEET", "localhost", second.port) == "OK", "MEET takes a host name")
    check(first.call("CLUSTER", "MEET", third.host, third.port, bus) == "OK", "MEET takes a bus port")
    wait_until(lambda: all(node.is_linked_to(2) for node in nodes), 10.0, "all are linked")
    for node in nodes:
        text = node.call("CLUSTER", "INFO")
        for line in ("cluster_state:ok", "cluster_known_nodes:3", "cluster_reachable_nodes:2", "cluster_size:3"):
            check(line in text, f"{line} in {text}")
        rows = node.call("HELLO")[2:]
        check(sorted(row[0] for row in rows) == sorted(other.id() for other in nodes), f"HELLO lists all: {rows}")
        check(all(row[3] == "1" for row in rows), f"all are good: {rows}")
        lines = node.call("CLUSTER", "NODES").splitlines()
        own = [line for line in lines if " myself " in line]
        check(len(lines) == 3 and len(own) == 1 and node.id() in own[0], f"one line each: {lines}")
        for other in nodes:
            check(other.call("CLUSTER", "COUNT-FAILURE-REPORTS", node.id()) == 0, "nobody is missed")
        rows = [dict(zip(row[::2], row[1::2])) for row in node.call("CLUSTER", "LINKS")]
        check(len(rows) == 2 and all(row["link"] == "connected" for row in rows), f"LINKS: {rows}")
    refused(lambda: first.call("CLUSTER", "FORGET", first.id()))
    refused(lambda: first.call("CLUSTER", "FORGET", "0" * 40))
    refused(lambda: first.call("CLUSTER", "FORGET", "x"))
    check(first.call("CLUSTER", "SAVECONFIG") == "OK", "SAVECONFIG answers OK")
    with open(os.path.join(first.dir, "nodes.conf")) as file:
        kept = file.read()
    for node in nodes:
        check(re.search(rf"^{node.id()} \S*:{node.port} ", kept, re.M), f"{node} has a line in {kept}")
    gone = third.id()
    third.kill()
    wait_until(
        lambda: first.call("CLUSTER", "COUNT-FAILURE-REPORTS", gone) == 1,
        5 * NODE_TIMEOUT,
        "the second node reports the third",
    )
    wait_until(
        lambda: " fail " in "".join(line for line in first.call("CLUSTER", "NODES").splitlines() if gone in line),
        5 * NODE_TIMEOUT,
        lambda: f"two of three agree that it is down: {first.call('CLUSTER', 'NODES')}",
    )


def a_directory_serves_one_process_and_a_copy_of_it_is_refused(stage, _options):
    nodes, expected = stage.cluster(2), {}
    add_everywhere(stage, nodes, expected, [f"kept:{n}" for n in range(10)], 50)
    await_totals(nodes, expected)
    twin = stage.node()
    text = ends_with(twin, "--dir", nodes[0].dir)
    check("in use by another process" in text and nodes[0].dir in text, f"it says why: {text}")
    shutil.rmtree(twin.dir)
    shutil.copytree(nodes[0].dir, twin.dir)
    twin.start()
    sentence = "copies of one data directory"
    wait_until(
        lambda: sentence in twin.said() or any(sentence in node.said() for node in nodes),
        10.0,
        lambda: f"a log tells of the copy; that of the copy: {twin.said()[-1000:]}",
    )
    told = [str(node) for node in (*nodes, twin) if sentence in node.said()]
    twin.kill()
    add_everywhere(stage, nodes, expected, [f"kept:{n}" for n in range(10)], 50)
    await_totals(nodes, expected)
    return f"told by {len(told)} of the three logs"


def a_node_that_comes_back_on_another_port_is_found(stage, _options):
    nodes, expected = stage.cluster(3), {}
    add_everywhere(stage, nodes, expected, [f"moved:{n}" for n in range(10)], 100)
    await_totals(nodes, expected)
    nodes[2].kill()
    nodes[2].port = free_port()
    nodes[2].start()
    wait_until(lambda: all(node.is_linked_to(2) for node in nodes), 10.0, "all are linked again")
    wait_until(
        lambda: all(f":{nodes[2].port} " in node.call("CLUSTER", "NODES") for node in nodes[:2]),
        10.0,
        lambda: f"the others know its port: {nodes[0].call('CLUSTER', 'NODES')}",
    )
    add_everywhere(stage, nodes, expected, [f"moved:{n}" for n in range(10)], 100)
    await_totals(nodes, expected)
    # All of them at once: each finds one by what it kept, and through that one the rest.
    for node in nodes[1:]:
        node.kill()
    for node in nodes[1:]:
        node.port = free_port()
        node.start()
    wait_until(lambda: all(node.is_linked_to(2) for node in nodes), 15.0, "all are linked again")
    await_totals(nodes, expected)


def what_a_node_announces_is_what_others_see(stage, _options):
    node = stage.node()
    seen_port = free_port()
    node.options += ["--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", str(seen_port)]
    node.options += ["--cluster-announce-bus-port", str(node.port + BUS_PORT_OFFSET)]
    nodes = [node.start(), stage.node().start(), stage.node().start()]
    nodes[0].call("CLUSTER", "MEET", nodes[1].host, nodes[1].port)
    nodes[1].call("CLUSTER", "MEET", nodes[2].host, nodes[2].port)
    wait_until(lambda: all(node.is_linked_to(2) for node in nodes), 10.0, "all are linked")
    for other in nodes[1:]:
        line = " ".join(other.members()[nodes[0].id()])
        check(f"127.0.0.1:{seen_port} " in line, f"it is seen as it wants to be: {line}")


def reset_leaves_alone_and_empty_and_the_node_may_join_anew(stage, _options):
    nodes, expected = stage.cluster(3), {}
    add_everywhere(stage, nodes, expected, [f"reset:{n}" for n in range(20)], 200)
    await_totals(nodes, expected)
    for how in ("SOFT", "HARD"):
        old = nodes[2].id()
        check(nodes[2].call("CLUSTER", "RESET", how) == "OK", "RESET answers OK")
        check((nodes[2].id() == old) == (how == "SOFT"), "SOFT keeps the id, HARD takes another")
        # The others call it every second or so.
        time.sleep(2.5)
        check(nodes[2].call("DBSIZE") == 0 and not nodes[2].members(), "it is empty and stays alone")
        nodes[2].call("INCRBY", "reset:0", 5)
        expected["reset:0"] += 5
        check(nodes[2].call("CLUSTER", "MEET", nodes[0].host, nodes[0].port) == "OK", "MEET answers OK")
        await_totals(nodes, expected, limit=10.0)
    check(nodes[0].call("CLUSTER", "FORGET", old) == "OK", "the identity before HARD can be forgotten")
    wait_until(lambda: all(node.is_linked_to(2) for node in nodes), 10.0, "the new one is a member")
    await_totals(nodes, expected)


def a_forgotten_node_that_returns_is_told_and_can_join_anew(stage, _options):
    nodes, expected = stage.cluster(3), {}
    add_everywhere(stage, nodes, expected, [f"zombie:{n}" for n in range(20)], 200)
    await_totals(nodes, expected)
    zombie, live, gone = nodes[2], nodes[:2], nodes[2].id()
    time.sleep(1.0)
    zombie.kill()
    check(live[0].call("CLUSTER", "FORGET", gone) == "OK", "FORGET answers OK")
    wait_until(lambda: all(node.is_linked_to(1) for node in live), SETTLE_LIMIT, "both have forgotten it")
    await_totals(live, expected)
    zombie.start()
    wait_until(lambda: "join anew" in zombie.said() or "begins anew" in zombie.said(), 10.0, lambda: zombie.said()[-800:])
    zombie.call("INCRBY", "zombie:0", 1_000)
    time.sleep(2.0)
    await_totals(live, expected, limit=0.5)
    check(all(gone not in node.call("CLUSTER", "NODES") for node in live), "it is no member")
    lines = [line for line in live[0].said().splitlines() if "was removed" in line]
    check(len(lines) <= 20, f"the others tell of it in a few lines, not {len(lines)}")
    zombie.call("CLUSTER", "RESET")
    zombie.call("CLUSTER", "MEET", live[0].host, live[0].port)
    await_totals(nodes, expected, limit=10.0)
    zombie.call("INCRBY", "zombie:0", 3)
    expected["zombie:0"] += 3
    await_totals(nodes, expected)
    check(zombie.id() != gone, "the id of a removed node is not used again")
    newcomer = stage.node().start()
    check(newcomer.call("CLUSTER", "MEET", live[1].host, live[1].port) == "OK", "MEET answers OK")
    await_totals([*nodes, newcomer], expected, limit=10.0)


def who_is_found_at_the_address_of_a_dead_member_becomes_none(stage, _options):
    nodes, expected = stage.cluster(3), {"here": 7}
    nodes[0].call("INCRBY", "here", 7)
    await_totals(nodes, expected)
    dead = nodes[2].id()
    nodes[2].kill()
    strangers = [stage.node(), stage.node()]
    strangers[0].port = nodes[2].port
    for stranger in strangers:
        stranger.start()
    stage.join(strangers)
    strangers[0].call("INCRBY", "there", 9)
    wait_until(
        lambda: all("noaddr" in node.members()[dead][2] for node in nodes[:2]),
        10.0,
        lambda: f"the others have called in vain: {nodes[0].call('CLUSTER', 'NODES')}",
    )
    time.sleep(2.0)
    check(all(len(node.members()) == 2 for node in nodes[:2]), "nobody has become a member")
    check(all(len(stranger.members()) == 1 for stranger in strangers), "nor there")
    check(all(node.call("EXISTS", "there") == 0 for node in nodes[:2]), "nor a count of theirs is here")
    check(all(stranger.call("EXISTS", "here") == 0 for stranger in strangers), "nor one of ours there")
    await_totals(nodes[:2], {"here": 7}, limit=0.5)


def secrets_are_checked_at_the_start_and_on_every_link(stage, _options):
    short = stage.node(secret="fifteen bytes!!")
    text = ends_with(short)
    check("cluster-secret" in text and "16" in text, f"it says what is wrong: {text}")
    check("fifteen" not in text, "it does not show the secret")
    ours, theirs, bare = stage.node().start(), stage.node(secret="another secret entirely").start(), stage.node(secret="").start()
    for other in (theirs, bare):
        other.call("INCRBY", "secret", 7)
        other.call("CLUSTER", "MEET", ours.host, ours.port)
        ours.call("CLUSTER", "MEET", other.host, other.port)
    time.sleep(2 * NODE_TIMEOUT)
    check(not ours.members() and not theirs.members() and not bare.members(), "nobody has joined anybody")
    check(totals(ours, ["secret"]) == ["0"], "nothing has come over")
    check("secret" in ours.said(), "the log says why")
    for node in (ours, theirs):
        check(node.secret not in node.said(), "no log shows a secret")
        check(node.secret not in str(node.call("CONFIG", "GET", "*")), "CONFIG GET shows no secret")


def a_peer_that_sends_nonsense_is_unlinked_and_told_of_in_few_lines(stage, _options):
    node = stage.node(secret="").start()
    node.call("INCRBY", "sound", 3)
    before = node.resident_bytes()
    frames = [bytes([kind]) + stage.random.randbytes(40) for kind in range(12)] + [b"\xff" * 1_000]
    for turn in range(300):
        peer = socket.create_connection((node.host, node.port + BUS_PORT_OFFSET), timeout=5.0)
        peer.sendall(b"DISCNT\x01\x00")
        frame = frames[turn % len(frames)]
        peer.sendall(len(frame).to_bytes(4, "little") + frame)
        peer.settimeout(10.0)
        try:
            while peer.recv(65_536):
                pass
        except ConnectionError:
            pass
        peer.close()
    check(node.call("GET", "sound") == "3", "the counter is what it was")
    check(not node.members(), "nobody has become a member")
    grown = node.resident_bytes() - before
    check(grown < 16 << 20, f"memory has grown by {grown} bytes")
    lines = node.said().splitlines()
    told = [line for line in lines if "misbehaves" in line or "no link with" in line]
    check(told, "the log tells of it")
    check(len(told) <= 30, f"in a few lines, not {len(told)}")
    return f"300 connections, {len(told)} lines in the log, memory grew by {grown >> 10} KiB"


def one_command_shows_a_cluster(stage, _options):
    node = stage.node()
    first = node.port = free_port(count=3)
    command = [node.server, "--local-cluster", "3", str(first)]
    with open(node.log, "ab") as log:
        node.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=node.dir)
    wait_until(lambda: "A cluster is running" in node.said(), 15.0, lambda: f"it says so: {node.said()}")
    clients = [Client(("127.0.0.1", first + n)) for n in range(3)]
    check(clients[0].call("INCRBY", "visits", 5) == "5", "the first counts")
    clients[1].call("INCRBY", "visits", 2)
    wait_until(lambda: [client.call("GET", "visits") for client in clients] == ["7"] * 3, 2.0, "all read it")
    check(clients[2].call("CLUSTER", "INFO").count("cluster_known_nodes:3") == 1, "they know each other")
    try:
        clients[2].call("SHUTDOWN")
    except (ConnectionError, OSError):
        pass
    check(clients[0].call("INCR", "visits") == "8", "the others go on")
    node.signal(signal.SIGINT)
    check(node.process.wait(10) == 0, "Ctrl-C ends it with status 0")
    check(os.listdir(node.dir) == ["log"], f"it leaves nothing behind: {os.listdir(node.dir)}")


def what_was_imported_for_nodes_that_never_come_is_everybodys(stage, _options):
    dumps = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "engine/tests/fixtures/ddb")
    with open(os.path.join(dumps, "three-nodes.json")) as file:
        described = json.load(file)
    own = described["own_node_id"]
    others = {part["node"] for counter in described["counters"] for part in counter["shards"]} - {own}
    expected = {counter["name"]: counter["total"] for counter in described["counters"] if counter["total"] != "0"}
    # In the nodes file is one of them, the other has been forgotten there before.
    for known in (set(), {max(others)}, others):
        old, new = stage.node(), stage.node()
        shutil.copy(os.path.join(dumps, "three-nodes.ddb"), os.path.join(old.dir, "dump.ddb"))
        with open(os.path.join(old.dir, "nodes.conf"), "w") as file:
            file.write(f"{own} :{old.port} myself 0 0 connected\n")
            file.writelines(f"{id} 127.0.0.1:{free_port()} noflags 0 0 connected\n" for id in known)
        old.start(), new.start()
        new.call("CLUSTER", "MEET", old.host, old.port)
        names = sorted(expected)

        def is_everywhere():
            reads = [[float(value) for value in totals(node, names)] for node in (old, new)]
            return reads == [[float(expected[name]) for name in names]] * 2

        def is_consistent(state):
            return all(node.call("GET", names[0], "STATE")[1] == state for node in (old, new))

        wait_until(is_everywhere, 10.0, lambda: f"both read {expected}: {[totals(node, names) for node in (old, new)]}")
        for id in known:
            old.call("CLUSTER", "FORGET", id)
        wait_until(lambda: is_consistent("CONSISTENT"), 10.0, "CONSISTENT, with nobody missing")
        check(is_everywhere(), "the counts outlive the removal")
        old.kill()
        old.start()
        wait_until(lambda: old.is_linked_to(1) and is_consistent("CONSISTENT"), 10.0, "they are linked again")
        check(is_everywhere(), "and a restart")
        old.kill(), new.kill()


CLAIMS = [
    what_was_imported_for_nodes_that_never_come_is_everybodys,
    a_cluster_is_made_and_described_by_the_commands_of_old,
    a_directory_serves_one_process_and_a_copy_of_it_is_refused,
    a_node_that_comes_back_on_another_port_is_found,
    what_a_node_announces_is_what_others_see,
    reset_leaves_alone_and_empty_and_the_node_may_join_anew,
    a_forgotten_node_that_returns_is_told_and_can_join_anew,
    who_is_found_at_the_address_of_a_dead_member_becomes_none,
    secrets_are_checked_at_the_start_and_on_every_link,
    a_peer_that_sends_nonsense_is_unlinked_and_told_of_in_few_lines,
    one_command_shows_a_cluster,
]

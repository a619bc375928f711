"""redis-py counts on the server at the port given as first argument: with its defaults, and with each protocol.

Run by tests/clients/run; needs the package `redis`.
"""

import asyncio
import sys
import threading
import time

import redis
import redis.asyncio

# Messages come once a second at most.
MESSAGE_LIMIT_SECS = 10


def text(value):
    """A reply as text: values are bulks of digits."""
    return value.decode() if isinstance(value, bytes) else str(value)


def count(client, name):
    """Counts, reads, pipelines and scans."""
    client.delete(name)
    assert client.ping() is True
    assert text(client.incr(name)) == "1"
    assert text(client.incrby(name, 41)) == "42"
    assert float(client.incrbyfloat(name, 0.5)) == 42.5
    assert text(client.decrby(name, 2)) == "40.5"
    assert client.get(name) == b"40.5"
    assert client.mget(name, "never counted") == [b"40.5", b"0"]
    assert client.exists(name) == 1
    assert text(client.execute_command("INCRBY", name, "99999999999999999900.00000000000000001")) == (
        "99999999999999999940.50000000000000001")
    pipeline = client.pipeline(transaction=False)
    for _ in range(1_000):
        pipeline.incr(name + ":views")
    assert [text(reply) for reply in pipeline.execute()] == [str(number) for number in range(1, 1_001)]
    for number in range(500):
        client.incr("%s:%d" % (name, number))
    found = set(client.scan_iter(match=name + ":*", count=100))
    assert len(found) == 501, len(found)
    assert client.delete(name, name + ":views") == 2
    assert client.exists(name) == 0
    info = client.info()
    assert info["tcp_port"] > 0, info
    assert client.config_get("maxclients")["maxclients"] == "10000"


def subscribe(client, name):
    """Hears of a change."""
    subscriber = client.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe(name)
    subscriber.get_message(timeout=1)
    client.incrby(name, 7)
    end = time.monotonic() + MESSAGE_LIMIT_SECS
    message = None
    while message is None and time.monotonic() < end:
        message = subscriber.get_message(timeout=0.5)
    assert message is not None, "no message"
    assert (message["channel"], message["data"]) == (name.encode(), b"7"), message
    subscriber.close()


def without_transactions(client):
    """MULTI is an error that leaves the connection as it was."""
    for connection_use in range(3):
        try:
            client.pipeline(transaction=True).incr("py:tx").execute()
        except redis.ResponseError as error:
            assert "unknown command" in str(error), error
        else:
            raise AssertionError("there are no transactions")
        assert client.ping() is True, connection_use


def share_a_pool(port):
    """Threads share connections that are checked before each use, and that somebody else closes now and then."""
    pool = redis.BlockingConnectionPool(
        host="127.0.0.1", port=port, max_connections=5, health_check_interval=1, client_name="pool")
    client = redis.Redis(connection_pool=pool)
    client.delete("py:pool")

    def work():
        for _ in range(200):
            client.incr("py:pool")

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("py:pool") == b"2000"
    named = [row for row in client.client_list() if row["name"] == "pool"]
    assert 1 <= len(named) <= 5, named
    time.sleep(1.1)
    assert client.ping() is True
    admin = redis.Redis(host="127.0.0.1", port=port)
    for row in named:
        admin.client_kill_filter(_id=row["id"])
    assert client.get("py:pool") == b"2000", "a client connects again"


async def count_in_step(port, protocol):
    """The same from coroutines."""
    client = redis.asyncio.Redis(host="127.0.0.1", port=port, decode_responses=True, protocol=protocol)
    name = "py:async:%d" % protocol
    await client.delete(name)
    replies = await asyncio.gather(*(client.incr(name) for _ in range(50)))
    assert sorted(int(reply) for reply in replies) == list(range(1, 51))
    async with client.pipeline(transaction=False) as pipeline:
        for _ in range(1_000):
            pipeline.incrbyfloat(name, 0.001)
        await pipeline.execute()
    assert await client.get(name) == "51"
    assert [found async for found in client.scan_iter(match=name)] == [name]
    async with client.pubsub(ignore_subscribe_messages=True) as subscriber:
        await subscriber.subscribe(name)
        end, message = time.monotonic() + MESSAGE_LIMIT_SECS, None
        while message is None and time.monotonic() < end:
            message = await subscriber.get_message(timeout=0.5)
        assert message is not None and message["data"] == "51", message
        await subscriber.ping()
        await subscriber.unsubscribe(name)
    await client.aclose()


def main():
    port = int(sys.argv[1])
    for label, options in (("default", {}), ("resp2", {"protocol": 2}), ("resp3", {"protocol": 3})):
        client = redis.Redis(host="127.0.0.1", port=port, **options)
        count(client, "py:" + label)
        subscribe(client, "py:plays:" + label)
        try:
            client.execute_command("INCRBY", "py", "many")
        except redis.ResponseError as error:
            assert "value is not a valid float" in str(error), error
        else:
            raise AssertionError("a word was taken for a number")
        without_transactions(client)
        client.close()
    share_a_pool(port)
    for protocol in (2, 3):
        asyncio.run(count_in_step(port, protocol))
    print("redis-py %s: defaults, RESP2 and RESP3, a pool, asyncio" % redis.__version__)


if __name__ == "__main__":
    main()

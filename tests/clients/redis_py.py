"""redis-py counts on the server at the port given as first argument: with its defaults, and with each protocol.

Run by tests/clients/run; needs the package `redis`.
"""

import sys
import time

import redis

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
        client.close()
    print("redis-py %s: defaults, RESP2 and RESP3" % redis.__version__)


if __name__ == "__main__":
    main()

"""Asks every node through redis-py's plain client: client.py host:port host:port host:port protocol"""

import sys
import time

import redis

*addresses, protocol = sys.argv[1:]
protocol = int(protocol)


def connect(address):
    host, port = address.rsplit(":", 1)
    return redis.Redis(host=host, port=int(port), protocol=protocol, decode_responses=True, socket_timeout=20)


nodes = [connect(address) for address in addresses]
one, two, three = nodes
p = f"py{protocol}:"


def equal(told, wanted):
    assert told == wanted, f"told {told!r}, wanted {wanted!r}"


def refused(kind, text, call, *arguments, **named):
    try:
        told = call(*arguments, **named)
    except kind as error:
        assert text in str(error), f"told {error}, wanted {text}"
    else:
        raise AssertionError(f"not refused: {told!r}")


for node in nodes:
    assert node.ping()
    # What one node wrote the next is to know, also where it adds without asking.
    equal(node.execute_command("TW.CONSISTENCY", "WRITE", "all"), "OK")
    equal(node.echo("hi"), "hi")
    assert node.info()["redis_mode"] == "cluster"

# strings
equal(one.set(p + "a", "1", ex=100), True)
equal(two.get(p + "a"), "1")
assert 90 < three.ttl(p + "a") <= 100
equal(one.set(p + "a", "2", nx=True), None)
equal(one.set(p + "a", "2", xx=True, get=True, keepttl=True), "1")
assert 90_000 < two.pttl(p + "a") <= 100_000
equal(two.persist(p + "a"), True)
equal(two.getset(p + "a", "3"), "2")
equal(three.mset({p + "b": 1, p + "c": 2}), True)
equal(one.mget(p + "a", p + "b", p + "nosuch", p + "c"), ["3", "1", None, "2"])
equal(two.append(p + "a", "4"), 2)
equal(three.strlen(p + "a"), 2)
equal(one.incrby(p + "n", 10), 10)
equal(two.decr(p + "n", 3), 7)
equal(three.incrbyfloat(p + "n", 0.5), 7.5)
equal(one.getdel(p + "n"), "7.5")
equal(two.setnx(p + "n", "x"), True)
refused(redis.ResponseError, "value is not an integer or out of range", one.incr, p + "n")
refused(redis.ResponseError, "WRONGTYPE Operation against", one.sadd, p + "n", "m")
refused(redis.ResponseError, "syntax error", one.execute_command, "SET", "a", "b", "FOO")
refused(redis.ResponseError, "wrong number of arguments for 'get' command", one.execute_command, "GET")

# sets
equal(one.sadd(p + "s", "a", "b", "c"), 3)
equal(two.smembers(p + "s"), {"a", "b", "c"})
equal(bool(three.sismember(p + "s", "a")), True)
equal(one.smismember(p + "s", ["a", "z"]), [1, 0])
equal(two.srem(p + "s", "a", "z"), 1)
equal(three.scard(p + "s"), 2)
equal(one.sadd(p + "t", "c", "d"), 2)
equal(two.sunion(p + "s", p + "t"), {"b", "c", "d"})
equal(three.sinter(p + "s", p + "t"), {"c"})
equal(one.sdiff(p + "s", p + "t"), {"b"})
assert two.srandmember(p + "s") in {"b", "c"}
assert three.spop(p + "s") in {"b", "c"}
equal(one.scard(p + "s"), 1)
equal(set(one.sscan_iter(p + "t", count=1)), {"c", "d"})

# hashes
equal(one.hset(p + "h", mapping={"f": "v", "n": 1}), 2)
equal(two.hgetall(p + "h"), {"f": "v", "n": "1"})
equal(three.hmget(p + "h", "f", "nosuch"), ["v", None])
equal(one.hincrby(p + "h", "n", 4), 5)
equal(two.hsetnx(p + "h", "f", "w"), 0)
equal(bool(three.hexists(p + "h", "f")), True)
equal(one.hlen(p + "h"), 2)
equal(sorted(two.hkeys(p + "h")), ["f", "n"])
equal(sorted(three.hvals(p + "h")), ["5", "v"])
equal(dict(one.hscan_iter(p + "h")), {"f": "v", "n": "5"})
equal(two.hdel(p + "h", "f"), 1)

# keys
equal(one.type(p + "h"), "hash")
equal(two.exists(p + "h", p + "s", p + "nosuch"), 2)
equal(three.expire(p + "h", 100), True)
equal(one.pexpire(p + "h", 50_000, lt=True), True)
equal(two.expireat(p + "h", int(time.time()) + 1_000), True)
assert 900 < three.ttl(p + "h") <= 1_000
equal(set(one.scan_iter(match=p + "*")), {p + name for name in "abcnsth"})
assert two.dbsize() >= 7
equal(three.unlink(p + "h", p + "nosuch"), 1)

# pipelines
with one.pipeline(transaction=False) as pipe:
    for at in range(1_000):
        pipe.incr(p + "pipe").get(p + "pipe")
    told = pipe.execute()
equal(told[0::2], list(range(1, 1_001)))
equal(told[1::2], [str(at) for at in range(1, 1_001)])
with two.pipeline(transaction=True) as pipe:
    pipe.incr(p + "pipe")
    refused(redis.ResponseError, "is not supported: a transaction needs one order for all its keys", pipe.execute)

# the connection and the server
equal(one.client_setname("me"), True)
assert "redis-py" in str(one.client_list())
equal(one.config_get("databases"), {"databases": "1"})
assert one.command_count() > 90
assert "get" in one.command()
assert one.time()[0] > 1_700_000_000
other = redis.Redis(host=addresses[0].rsplit(":", 1)[0], port=int(addresses[0].rsplit(":", 1)[1]), db=1)
refused(redis.ResponseError, "DB index is out of range", other.ping)

# what is Tidewater's own
equal(one.execute_command("TW.WITH", "WRITE", "all", "--", "SET", p + "w", "1"), "OK")
values, context = one.execute_command("TW.PUT", p + "cart", "apple")
equal(values, ["apple"])
values, context = two.execute_command("TW.PUT", p + "cart", "pear")
equal(sorted(values), ["apple", "pear"])
equal(three.execute_command("TW.PUT", p + "cart", "fruit", "CONTEXT", context)[0], ["fruit"])
print("done")

"""Asks through TLS: tls.py host:port host:port host:port ca.crt"""

import sys

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

*addresses, authority = sys.argv[1:]
for address in addresses:
    host, port = address.rsplit(":", 1)
    for protocol in (2, 3):
        node = redis.Redis(host=host, port=int(port), ssl=True, ssl_ca_certs=authority, protocol=protocol)
        assert node.set("tls", port)
        assert node.get("tls") == port.encode()
        # Many TLS records in one go.
        value = b"x" * 1_000_000
        assert node.set("tls:large", value) and node.get("tls:large") == value
        node.close()
    try:
        redis.Redis(host=host, port=int(port), ssl=True, retry=Retry(NoBackoff(), 0)).ping()
    except redis.ConnectionError as error:
        assert "certificate" in str(error).lower(), error
    else:
        raise AssertionError("an authority that nobody knows was trusted")

host, port = addresses[0].rsplit(":", 1)
cluster = RedisCluster(host=host, port=int(port), ssl=True, ssl_ca_certs=authority)
for at in range(100):
    assert cluster.set(f"tls:{at}", at)
    assert cluster.get(f"tls:{at}") == str(at).encode()
print("done")

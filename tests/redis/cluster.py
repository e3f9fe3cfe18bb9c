"""Asks through redis-py's cluster client, which learns the layout and goes to the owners: cluster.py host:port ... protocol"""

import sys

from redis.cluster import ClusterNode, RedisCluster

*addresses, protocol = sys.argv[1:]
nodes = [ClusterNode(host, int(port)) for host, port in (address.rsplit(":", 1) for address in addresses)]
p = f"cluster{protocol}:"

for read_from_replicas in (False, True):
    cluster = RedisCluster(
        startup_nodes=nodes[:1],
        protocol=int(protocol),
        decode_responses=True,
        socket_timeout=20,
        read_from_replicas=read_from_replicas,
    )
    assert len(cluster.get_nodes()) == 3, cluster.get_nodes()
    assert cluster.ping(target_nodes=RedisCluster.ALL_NODES)
    for at in range(200):
        assert cluster.set(f"{p}{at}", at)
        assert cluster.get(f"{p}{at}") == str(at)
        assert cluster.incr(f"{p}{at}") == at + 1
    assert cluster.mset_nonatomic({f"{p}m{at}": at for at in range(50)})
    assert cluster.mget_nonatomic(*(f"{p}m{at}" for at in range(50))) == [str(at) for at in range(50)]
    assert cluster.sadd(p + "{s}1", "a", "b") + cluster.sadd(p + "{s}2", "b", "c") in (4, 0)
    assert cluster.sunion(p + "{s}1", p + "{s}2") == {"a", "b", "c"}
    with cluster.pipeline() as pipe:
        for at in range(200):
            pipe.get(f"{p}{at}")
        assert pipe.execute() == [str(at + 1) for at in range(200)]
    assert cluster.delete(*(f"{p}{at}" for at in range(200))) == 200
    assert cluster.keyslot("foo") == cluster.cluster_keyslot("foo") == 12182
    assert len(cluster.cluster_slots()) > 0
    cluster.close()
print("done")

//! What Redis has and Tidewater refuses, and why: a sentence that says what to use instead is worth more than "unknown command".

use super::{is, word};
use crate::api::resp::refusal::Refusal;

/// Names, what cannot be kept, what to use.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"],
        "a transaction needs one order for all its keys, which nodes that accept writes while cut off from each other do not have: \
         use counters, sets and hashes, which merge, or TW.PUT with a context for read-change-write on one key",
    ),
    (
        &[
            "BLPOP",
            "BRPOP",
            "BLMOVE",
            "BLMPOP",
            "BRPOPLPUSH",
            "BZPOPMIN",
            "BZPOPMAX",
            "BZMPOP",
            "XREADGROUP",
            "WAITAOF",
        ],
        "handing an element to exactly one waiting client needs a single decider, which an always-available store does not have: \
         use sets (SADD, SPOP) where taking an element twice does no harm",
    ),
    (
        &[
            "LPUSH",
            "RPUSH",
            "LPUSHX",
            "RPUSHX",
            "LPOP",
            "RPOP",
            "LRANGE",
            "LLEN",
            "LINDEX",
            "LSET",
            "LREM",
            "LTRIM",
            "LINSERT",
            "LPOS",
            "LMOVE",
            "RPOPLPUSH",
            "LMPOP",
        ],
        "a list's order cannot be merged after concurrent pushes: use a set, or a hash with time-ordered fields",
    ),
    (
        &[
            "ZADD",
            "ZREM",
            "ZSCORE",
            "ZMSCORE",
            "ZRANGE",
            "ZRANGEBYSCORE",
            "ZRANGEBYLEX",
            "ZREVRANGE",
            "ZREVRANGEBYSCORE",
            "ZREVRANGEBYLEX",
            "ZRANK",
            "ZREVRANK",
            "ZCARD",
            "ZCOUNT",
            "ZLEXCOUNT",
            "ZINCRBY",
            "ZPOPMIN",
            "ZPOPMAX",
            "ZSCAN",
            "ZUNION",
            "ZINTER",
            "ZDIFF",
            "ZUNIONSTORE",
            "ZINTERSTORE",
            "ZDIFFSTORE",
            "ZRANGESTORE",
            "ZREMRANGEBYSCORE",
            "ZREMRANGEBYRANK",
            "ZREMRANGEBYLEX",
            "ZRANDMEMBER",
            "ZMPOP",
            "ZINTERCARD",
            "GEOADD",
            "GEOPOS",
            "GEODIST",
            "GEOHASH",
            "GEOSEARCH",
            "GEOSEARCHSTORE",
            "GEORADIUS",
            "GEORADIUSBYMEMBER",
        ],
        "sorted sets are not kept: use a hash of member to score (HINCRBY merges) and sort what you read",
    ),
    (
        &[
            "XADD",
            "XLEN",
            "XRANGE",
            "XREVRANGE",
            "XREAD",
            "XDEL",
            "XTRIM",
            "XGROUP",
            "XACK",
            "XCLAIM",
            "XAUTOCLAIM",
            "XINFO",
            "XPENDING",
            "XSETID",
        ],
        "a stream needs one order of its entries: use a hash with time-ordered fields (UUIDv7)",
    ),
    (
        &[
            "SUBSCRIBE",
            "UNSUBSCRIBE",
            "PSUBSCRIBE",
            "PUNSUBSCRIBE",
            "PUBLISH",
            "PUBSUB",
            "SSUBSCRIBE",
            "SUNSUBSCRIBE",
            "SPUBLISH",
            "MONITOR",
        ],
        "messages are not passed on between clients: this is a store of values",
    ),
    (
        &["EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "SCRIPT", "FUNCTION", "FCALL", "FCALL_RO"],
        "a script reads and writes in one step, which needs a single decider: use counters, sets and hashes, which merge, or TW.PUT",
    ),
    (
        &["MSETNX", "RENAME", "RENAMENX", "COPY", "MOVE", "SWAPDB", "SMOVE", "LCS", "SORT", "SORT_RO"],
        "its keys live on different nodes and cannot be changed or compared in one step: read, then write each key by itself",
    ),
    (
        &["SETRANGE", "SETBIT", "GETBIT", "BITCOUNT", "BITPOS", "BITOP", "BITFIELD", "BITFIELD_RO"],
        "a register is written whole, so that the later write wins whole: read, change and SET, or use a set of numbers for bits",
    ),
    (&["PFADD", "PFCOUNT", "PFMERGE", "PFDEBUG", "PFSELFTEST"], "sketches are not kept: use a set"),
    (
        &["DUMP", "RESTORE", "MIGRATE"],
        "a value's history of writes cannot leave its cluster: use `tidewater export` and `tidewater import`",
    ),
    (
        &["FLUSHALL", "FLUSHDB"],
        "deleting everything at once, on nodes that may be cut off, is more often an accident than a wish: delete keys with SCAN and \
         DEL, or stop the cluster and remove its data folders",
    ),
    (
        &["SAVE", "BGSAVE", "BGREWRITEAOF", "LASTSAVE"],
        "every write is kept on disk already; what an acknowledgement waits for is chosen by TW.CONSISTENCY DURABLE",
    ),
    (
        &["REPLICAOF", "SLAVEOF", "FAILOVER", "PSYNC", "SYNC", "REPLCONF"],
        "there is no master and nothing to promote: every owner of a key accepts writes",
    ),
    (
        &["SHUTDOWN", "DEBUG", "SLOWLOG", "LATENCY", "MODULE", "ACL", "RESTORE-ASKING"],
        "the node is run from its command line and its configuration: see `tidewater --help`",
    ),
];

/// Why the command called `name` is refused, if it is one that Redis has.
pub fn reason(name: &[u8]) -> Option<Refusal> {
    let (_, why) = REFUSED.iter().find(|(names, _)| names.iter().any(|refused| is(name, refused)))?;
    Some(format!("ERR {} is not supported: {why}", word(name)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_not_also_there() {
        for name in REFUSED.iter().flat_map(|(names, _)| *names) {
            assert!(super::super::find(name.as_bytes()).is_none(), "{name}");
        }
        assert!(reason(b"multi").expect("refused").starts_with("ERR MULTI is not supported: a transaction needs"));
        assert!(reason(b"nonsense").is_none());
    }
}

//! Commands that are answered from a whole set or hash: it is read page by page, so that no replica is busy with one of them for
//! longer than a page takes. What is in there throughout is told once; what comes or goes meanwhile may be told or not, as in a walk.
//! What fits in one page, 10,000 entries or 1 MiB of them as most do, is read at one moment.

use bytes::Bytes;

use crate::api::door::Door;
use crate::data::consistency::Receipt;
use crate::data::op::{Op, Reply, Request, RequestError, Response};
use crate::wire::message::PAGE_PLACES;

/// What an answer holds at most, in entries and in bytes.
const ENTRIES_MAX: usize = 4_000_000;
const BYTES_MAX: usize = 256 << 20;
/// Up to so many are told in the order of their names, more in that of their hashes: either way the same collection is told alike by all
/// nodes.
const SORTED_MAX: usize = 100_000;

/// Is this answered from a whole collection?
pub fn is_whole(op: &Op) -> bool {
    matches!(op, Op::SetMembers | Op::SetLength | Op::HashAll | Op::HashLength)
}

/// Runs one request. Each page has the request's timeout: a large collection takes as long as it takes.
pub async fn submit<D: Door>(door: &D, request: Request) -> Response {
    if is_whole(&request.op) {
        return Box::pin(walk(door, request)).await;
    }
    door.submit(request).await
}

async fn walk<D: Door>(door: &D, request: Request) -> Response {
    let mut gathered = Gathered::default();
    let counts = matches!(request.op, Op::SetLength | Op::HashLength);
    let of_set = matches!(request.op, Op::SetMembers | Op::SetLength);
    let (mut from, mut receipt): (u64, Option<Receipt>) = (0, None);
    let result = loop {
        let limit = PAGE_PLACES;
        let op = if of_set { Op::SetPage { from, limit } } else { Op::HashPage { from, limit } };
        let response = door.submit(Request { op, ..request.clone() }).await;
        receipt = Some(match receipt {
            Some(before) => before.and(response.receipt),
            None => response.receipt,
        });
        let next = match response.result {
            Ok(page) => gathered.add(page, counts),
            Err(error) => Err(error),
        };
        match next {
            Ok(Some(next)) => from = next,
            Ok(None) if counts => break Ok(Reply::Integer(gathered.count)),
            Ok(None) if of_set => break Ok(Reply::Members(gathered.members)),
            Ok(None) => break Ok(Reply::Pairs(gathered.pairs)),
            Err(error) => break Err(error),
        }
    };
    let result = result.map(|mut reply| {
        match &mut reply {
            Reply::Members(members) if members.len() <= SORTED_MAX => members.sort_unstable(),
            Reply::Pairs(pairs) if pairs.len() <= SORTED_MAX => pairs.sort_unstable(),
            _ => {}
        }
        reply
    });
    Response { result, receipt: receipt.unwrap_or_default() }
}

#[derive(Default)]
struct Gathered {
    count: i64,
    bytes: usize,
    members: Vec<Bytes>,
    pairs: Vec<(Bytes, Bytes)>,
}

impl Gathered {
    /// Takes a page and tells where the next begins.
    fn add(&mut self, page: Reply, counts: bool) -> Result<Option<u64>, RequestError> {
        let (mut members, mut pairs, next) = match page {
            Reply::MemberPage { members, next } => (members, Vec::new(), next),
            Reply::PairPage { pairs, next } => (Vec::new(), pairs, next),
            other => return Err(RequestError::Protocol(format!("a page was asked for and {other:?} came"))),
        };
        self.count += (members.len() + pairs.len()) as i64;
        if counts {
            return Ok(next);
        }
        self.bytes += members.iter().map(Bytes::len).sum::<usize>();
        self.bytes += pairs.iter().map(|(field, value)| field.len() + value.len()).sum::<usize>();
        if self.count > ENTRIES_MAX as i64 || self.bytes > BYTES_MAX {
            return Err(RequestError::CollectionTooLarge { entries: ENTRIES_MAX as u64, bytes: BYTES_MAX as u64 });
        }
        self.members.append(&mut members);
        self.pairs.append(&mut pairs);
        Ok(next)
    }
}

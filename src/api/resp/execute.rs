//! Carries plans out against the door: single requests, several at once, walks over all keys.

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::api::door::Door;
use crate::api::resp::frame::Frame;
use crate::api::resp::glob;
use crate::api::resp::plan::{Goal, Many, Part, Plan, Terms, Walk};
use crate::api::resp::refusal;
use crate::api::resp::whole;
use crate::data::consistency::Receipt;
use crate::data::id::{OpId, Partition, hash64, mix64};
use crate::data::op::{Key, Op, Request, RequestError, Response, ScanPage, ScanRequest};

/// Requests of one command that are under way at once.
const PARTS_AT_ONCE: usize = 256;
/// Partitions asked at once by a walk.
const PARTITIONS_AT_ONCE: usize = 32;
/// Partitions visited by one `SCAN` call, whatever it found: the client is to hear something soon.
const PARTITIONS_PER_PAGE: usize = 256;
/// Keys that `KEYS` collects before it refuses.
const KEYS_MAX: usize = 1_000_000;
/// Keys asked for per page by walks over everything.
const PAGE_KEYS: u32 = 1_000;
/// Bits of a key hash that a cursor holds.
const CURSOR_HASH_BITS: u32 = 39;

/// What a command came to.
pub struct Done {
    /// The queue's ticket.
    pub ticket: u64,
    pub frame: Frame,
    /// The receipt, for a command over several keys the weakest, and how many requests it stands for.
    pub receipt: Option<(Receipt, usize)>,
    /// A mutation was asked for.
    pub mutation: bool,
}

/// Carries out a plan that is more than one request. (What is just one, as most are, is posted: see `letters`.)
pub async fn execute<D: Door>(door: D, ticket: u64, mut plan: Plan, terms: Terms) -> Done {
    let mut receipt: Option<(Receipt, usize)> = None;
    let mut mutation = false;
    let mut number = 0;
    loop {
        plan = match plan {
            Plan::Now(frame) => return Done { ticket, frame, receipt, mutation },
            Plan::One(key, op, shape) => {
                mutation |= !op.is_read();
                let response = whole::submit(&door, request(&door, key, op, &terms, number)).await;
                number += 1;
                weaken(&mut receipt, response.receipt);
                Plan::Now(shape.frame(response.result))
            }
            Plan::Many(many) => {
                let Many { parts, join, .. } = *many;
                mutation |= parts.iter().any(|(_, op)| !op.is_read());
                let first = number;
                number += parts.len() as u64;
                let mut results: Vec<Option<Part>> = Vec::new();
                results.resize_with(parts.len(), || None);
                for (at, response) in submit_all(&door, parts, &terms, first).await {
                    weaken(&mut receipt, response.receipt);
                    results[at] = Some(response.result);
                }
                join(results.into_iter().map(|part| part.expect("submit_all answers every part")).collect())
            }
            Plan::Walk(walk) => Plan::Now(match run_walk(&door, &walk, &terms).await {
                Ok(frame) => frame,
                Err(error) => refusal::frame(&error),
            }),
            Plan::Status(shape) => Plan::Now(shape(door.status().await)),
        };
    }
}

/// Runs all parts, a bounded number at once; answers come with the place of their part.
async fn submit_all<D: Door>(door: &D, parts: Vec<(Key, Op)>, terms: &Terms, first: u64) -> Vec<(usize, Response)> {
    let mut answers = Vec::with_capacity(parts.len());
    let mut running = FuturesUnordered::new();
    for (at, (key, op)) in parts.into_iter().enumerate() {
        let request = request(door, key, op, terms, first + at as u64);
        running.push(async move { (at, whole::submit(door, request).await) });
        if running.len() >= PARTS_AT_ONCE {
            answers.extend(running.next().await);
        }
    }
    while let Some(answer) = running.next().await {
        answers.push(answer);
    }
    answers
}

/// The request for one part. Every mutation has an operation id: the client's (for part `number` of a command one derived from it, so
/// that the same command sent again asks for the same), or a fresh one.
pub fn request<D: Door>(door: &D, key: Key, op: Op, terms: &Terms, number: u64) -> Request {
    let (op_id, fresh, remember) = match (op.is_read(), terms.op_id) {
        (true, _) => (None, true, false),
        (false, None) => (Some(door.op_id()), true, false),
        (false, Some(given)) => (Some(if number == 0 { given } else { derived(given, number) }), false, true),
    };
    Request { key, op, consistency: terms.consistency, timeout_us: terms.timeout_us, op_id, fresh, remember }
}

/// The id of part `number` of a command that was given `id`: of the same millisecond, different in the rest.
fn derived(id: OpId, number: u64) -> OpId {
    let mut seed = [0; 24];
    seed[..16].copy_from_slice(&id.0);
    seed[16..].copy_from_slice(&number.to_be_bytes());
    let hash = hash64(&seed);
    let mut random = [0; 10];
    random[..8].copy_from_slice(&hash.to_be_bytes());
    random[8..].copy_from_slice(&mix64(hash ^ number).to_be_bytes()[..2]);
    OpId::new(id.wall_ms(), random)
}

/// Keeps the weaker receipt, and counts.
fn weaken(kept: &mut Option<(Receipt, usize)>, new: Receipt) {
    *kept = Some(match kept.take() {
        Some((receipt, count)) => (receipt.weaker(new), count + 1),
        None => (new, 1),
    });
}

async fn run_walk<D: Door>(door: &D, walk: &Walk, terms: &Terms) -> Result<Frame, RequestError> {
    let partitions = door.layout().0.partitions;
    match walk.goal {
        Goal::Page { cursor, count } => page(door, walk, terms, partitions, cursor, count).await,
        Goal::Any { seed } => any(door, terms, partitions, seed).await,
        Goal::All | Goal::Count => everything(door, walk, terms, partitions).await,
    }
}

/// A cursor: the partition, and the upper bits of the hash up to which its keys are done. 53 bits in all, so that clients that hold
/// numbers as doubles keep it whole. 0 both starts and ends.
fn cursor_of(partition: u16, hash: u64) -> u64 {
    u64::from(partition) << CURSOR_HASH_BITS | hash >> (64 - CURSOR_HASH_BITS)
}

/// The partition and hash from which a cursor goes on. Keys that share the upper bits of the last hash may be told twice, which
/// `SCAN` allows; none is left out.
fn resume(cursor: u64) -> (u64, Option<u64>) {
    let prefix = cursor & ((1 << CURSOR_HASH_BITS) - 1);
    (cursor >> CURSOR_HASH_BITS, (prefix << (64 - CURSOR_HASH_BITS)).checked_sub(1))
}

async fn page<D: Door>(
    door: &D,
    walk: &Walk,
    terms: &Terms,
    partitions: u16,
    cursor: u64,
    count: u32,
) -> Result<Frame, RequestError> {
    let (start, mut after) = resume(cursor);
    let mut partition = u16::try_from(start).unwrap_or(u16::MAX);
    let mut found = Vec::new();
    let mut seen = 0;
    let mut visited = 0;
    let mut width = 1;
    let mut next = 0;
    'walk: while partition < partitions {
        if seen >= count as usize || visited >= PARTITIONS_PER_PAGE {
            next = cursor_of(partition, 0);
            break;
        }
        // Only the first partition of a round may be under way; empty partitions widen the rounds.
        let until = partitions.min(partition.saturating_add(width));
        let limit = count - (seen as u32).min(count - 1);
        let pages = scan_all(door, terms, partition..until, after.take(), limit).await?;
        for mut page in pages {
            seen += page.keys.len();
            collect(walk, page.keys, &mut found);
            while let Some(hash) = page.next {
                let here = cursor_of(partition, hash);
                // A cursor that would stand still (many keys with equal upper bits) is walked past at once.
                if here != cursor && here != 0 {
                    next = here;
                    break 'walk;
                }
                let scan = scan_request(partition, Some(hash), limit, terms);
                page = door.scan(scan).await?;
                seen += page.keys.len();
                collect(walk, page.keys, &mut found);
            }
            partition += 1;
            visited += 1;
            if seen >= count as usize {
                next = if partition < partitions { cursor_of(partition, 0) } else { 0 };
                break 'walk;
            }
        }
        width = (width * 2).min(PARTITIONS_AT_ONCE as u16);
    }
    Ok(Frame::Array(vec![Frame::text(next.to_string()), Frame::Array(found)]))
}

fn collect(walk: &Walk, keys: Vec<(Key, crate::data::op::Kind)>, found: &mut Vec<Frame>) {
    let wanted = keys
        .into_iter()
        .filter(|(key, kind)| {
            walk.kind.is_none_or(|wanted| wanted == *kind)
                && walk.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, &key.bytes))
        })
        .map(|(key, _)| Frame::Bulk(key.bytes));
    found.extend(wanted);
}

fn scan_request(partition: u16, after: Option<u64>, limit: u32, terms: &Terms) -> ScanRequest {
    ScanRequest { partition: Partition(partition), after, limit, timeout_us: terms.timeout_us }
}

/// One page of each of some partitions, in their order; `after` is for the first.
async fn scan_all<D: Door>(
    door: &D,
    terms: &Terms,
    partitions: std::ops::Range<u16>,
    after: Option<u64>,
    limit: u32,
) -> Result<Vec<ScanPage>, RequestError> {
    let first = partitions.start;
    let mut running: FuturesUnordered<_> = partitions
        .map(|partition| {
            let scan = scan_request(partition, after.filter(|_| partition == first), limit, terms);
            async move { (partition, door.scan(scan).await) }
        })
        .collect();
    let mut pages = Vec::with_capacity(running.len());
    while let Some((partition, page)) = running.next().await {
        pages.push((partition, page?));
    }
    pages.sort_unstable_by_key(|(partition, _)| *partition);
    Ok(pages.into_iter().map(|(_, page)| page).collect())
}

/// `KEYS` and `DBSIZE`: every key of every partition is walked, which costs what it says.
async fn everything<D: Door>(door: &D, walk: &Walk, terms: &Terms, partitions: u16) -> Result<Frame, RequestError> {
    let mut found = Vec::new();
    let mut total = 0_i64;
    let mut from = 0;
    while from < partitions {
        let until = partitions.min(from + PARTITIONS_AT_ONCE as u16);
        let pages = scan_all(door, terms, from..until, None, PAGE_KEYS).await?;
        for (partition, mut page) in (from..until).zip(pages) {
            loop {
                total += page.keys.len() as i64;
                if matches!(walk.goal, Goal::All) {
                    collect(walk, page.keys, &mut found);
                    if found.len() > KEYS_MAX {
                        return Ok(Frame::error(format!("ERR more than {KEYS_MAX} keys match: use SCAN")));
                    }
                }
                match page.next {
                    None => break,
                    next => page = door.scan(scan_request(partition, next, PAGE_KEYS, terms)).await?,
                }
            }
        }
        from = until;
    }
    Ok(if matches!(walk.goal, Goal::All) { Frame::Array(found) } else { Frame::Integer(total) })
}

/// The first key after a random place, going round once. Not uniform: a key after a gap is likelier.
async fn any<D: Door>(door: &D, terms: &Terms, partitions: u16, seed: u64) -> Result<Frame, RequestError> {
    let start = (seed % u64::from(partitions.max(1))) as u16;
    let after = Some(mix64(seed));
    let mut width = 1;
    let mut offset = 0;
    // One more than there are: the first partition's keys below the random hash come last.
    while offset <= u32::from(partitions) {
        let from = ((u32::from(start) + offset) % u32::from(partitions.max(1))) as u16;
        let until = partitions.min(from.saturating_add(width));
        let pages = scan_all(door, terms, from..until, after.filter(|_| offset == 0), 1).await?;
        if let Some((key, _)) = pages.into_iter().flat_map(|page| page.keys).next() {
            return Ok(Frame::Bulk(key.bytes));
        }
        offset += u32::from(until - from).max(1);
        width = (width * 2).min(PARTITIONS_AT_ONCE as u16);
    }
    Ok(Frame::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_fit_a_double_and_leave_nothing_out() {
        let cursor = cursor_of(16_383, u64::MAX);
        assert!(cursor < 1 << 53);
        for hash in [0, 1, 1 << 24, (1 << 25) - 1, 1 << 25, u64::MAX] {
            let (partition, after) = resume(cursor_of(7, hash));
            assert_eq!(partition, 7);
            assert!(after.is_none_or(|after| after < hash), "goes on at or before {hash:x}");
            assert!(hash - after.map_or(0, |after| after + 1) < 1 << 25, "and not much before");
        }
    }

    #[test]
    fn derived_ids_are_stable_distinct_and_of_the_same_time() {
        let id = OpId::new(1_700_000_000_000, [7; 10]);
        assert_eq!(derived(id, 1), derived(id, 1));
        assert_ne!(derived(id, 1), derived(id, 2));
        assert_ne!(derived(id, 1), id);
        assert_eq!(derived(id, 9).wall_ms(), id.wall_ms());
        assert!(OpId::parse(&derived(id, 9).to_string()).is_some());
    }
}

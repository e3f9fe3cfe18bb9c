//! Scans over the keys of a partition, here or at an owner.

use crate::data::clock::Now;
use crate::data::object::Object;
use crate::data::op::{Key, RequestError, ScanPage, ScanRequest};
use crate::data::path::{Path, parse_row_key, row_prefix};
use crate::data::row::Row;
use crate::node::coordinator::plan;
use crate::node::replica::{Turn, corrupt, decode, upper_bound};
use crate::node::turn::{DoorTicket, Outbox};
use crate::storage::{Space, StoreError};
use crate::wire::message::{Body, Ticket};

use super::{Scanning, Shard, reply};

/// Rows that a scan looks at before it ends its page, found something or not.
const SCAN_ROWS_MAX: usize = 20_000;
/// Rows by which a key is told; it is passed over the rest.
const LARGE_ROWS: usize = 256;

impl Shard {
    pub(super) fn handle_scan(
        &mut self,
        now: Now,
        ticket: DoorTicket,
        scan: ScanRequest,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        let partition = scan.partition;
        if partition.0 >= self.view.layout.partitions {
            let error = RequestError::Protocol(format!("there is no partition {partition}"));
            out.pages.push((ticket, Err(error)));
            return Ok(());
        }
        let me = self.options.me;
        if self.view.is_owner(partition, me) {
            let page = self.scan_here(now, &scan, turn)?;
            out.pages.push((ticket, Ok(page)));
            return Ok(());
        }
        let Some(to) = self.view.owners(partition).find(|node| self.view.is_up(*node)) else {
            let missing = self.view.owners(partition).map(|node| self.view.name_of(node).to_string()).collect();
            out.pages.push((ticket, Err(RequestError::Unavailable { needed: 1, reachable: 0, missing })));
            return Ok(());
        };
        let asked = self.next;
        self.next += 1;
        let deadline_us = now.mono_us + scan.timeout_us;
        self.scans.insert(asked, Scanning { ticket, to, deadline_us });
        reply(out, to, partition, Body::Scan { ticket: asked, scan });
        Ok(())
    }

    pub(super) fn scan_here(&mut self, now: Now, scan: &ScanRequest, turn: &Turn) -> Result<ScanPage, StoreError> {
        let start = scan.partition.0.to_be_bytes();
        let from = match scan.after {
            None => start.to_vec(),
            Some(u64::MAX) => return Ok(ScanPage { keys: Vec::new(), next: None }),
            Some(after) => [&start[..], &(after + 1).to_be_bytes()[..]].concat(),
        };
        let limit = scan.limit.clamp(1, 10_000) as usize;
        let wall_ms = now.wall_ms;
        let mut page = ScanPage { keys: Vec::new(), next: None };
        let mut current: Option<(u64, Key)> = None;
        let mut rows: Vec<(Path, Row)> = Vec::new();
        let mut looked = 0;
        let mut damaged = None;
        let close = |rows: &mut Vec<(Path, Row)>, key: Key, page: &mut ScanPage| {
            let object = Object::new(rows.drain(..));
            if let Some(kind) = plan::kind(&object, wall_ms) {
                page.keys.push((key, kind));
            }
        };
        let end = upper_bound(&start);
        let mut next = Some(from);
        while let Some(from) = next.take() {
            turn.scan(Space::Rows, &from, &end, &mut |at, value| {
                let Some((_, hash, key, path)) = parse_row_key(at) else {
                    damaged = Some(corrupt("a row key"));
                    return false;
                };
                looked += 1;
                let same = current.as_ref().is_some_and(|(_, held)| *held == key);
                if !same {
                    if let Some((before, held)) = current.take() {
                        close(&mut rows, held, &mut page);
                        if before != hash && (page.keys.len() >= limit || looked > SCAN_ROWS_MAX) {
                            page.next = Some(before);
                            return false;
                        }
                    }
                    current = Some((hash, key));
                }
                match decode::<Row>(value, "a row") {
                    Ok(row) => rows.push((path, row)),
                    Err(error) => {
                        damaged = Some(error);
                        return false;
                    }
                }
                // A large collection is told by its first rows, and the others are passed over.
                if rows.len() >= LARGE_ROWS {
                    next = row_prefix(at).map(upper_bound);
                }
                next.is_none()
            })?;
        }
        if let Some((_, held)) = current {
            close(&mut rows, held, &mut page);
        }
        match damaged {
            Some(error) => Err(error),
            None => Ok(page),
        }
    }

    pub(super) fn fail_scans(&mut self, out: &mut Outbox, which: impl Fn(&Scanning) -> bool) {
        let failed: Vec<Ticket> =
            self.scans.iter().filter(|(_, scanning)| which(scanning)).map(|(ticket, _)| *ticket).collect();
        for ticket in failed {
            if let Some(scanning) = self.scans.remove(&ticket) {
                let missing = vec![self.view.name_of(scanning.to).to_string()];
                let error = RequestError::Timeout { needed: 1, got: 0, missing, mutation: false };
                out.pages.push((scanning.ticket, Err(error)));
            }
        }
    }
}

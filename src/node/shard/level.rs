//! Levelling replicas: rounds of reports, pulls of the log, full syncs, and repairs that reads asked for.

use crate::data::clock::Now;
use crate::data::context::Context;
use crate::data::id::{Dot, NodeId, Partition};
use crate::data::row::Row;
use crate::node::exchange::Promise;
use crate::node::planted::Planted;
use crate::node::replica::RECENT_US;
use crate::node::replica::Turn;
use crate::node::replica::sync::size as row_bytes;
use crate::node::turn::Outbox;
use crate::storage::StoreError;
use crate::wire::message::Body;

use super::{Shard, background};

/// Between two pages of rows that a full sync left, entered as seen.
const ENTER_PAUSE_US: u64 = 5_000;

impl Shard {
    /// Is one of these dots, not seen yet, among what a full sync under way is going to bring, or to tell that it is dead? It might be put after its page has
    /// passed, and be taken for seen and standing at the end though the page said that it is gone.
    pub(super) fn in_sync(
        &mut self,
        turn: &Turn,
        partition: Partition,
        mut dots: impl Iterator<Item = Dot>,
    ) -> Result<bool, StoreError> {
        let Some(promised) = self.exchange.promised(partition) else { return Ok(false) };
        if self.options.planted == Planted::WritesAmidSync {
            return Ok(false);
        }
        let seen = &self.replica.state(turn, partition)?.seen;
        Ok(dots.any(|dot| (promised.seen.contains(dot) || promised.dead.contains(&dot)) && !seen.contains(dot)))
    }

    pub(super) fn round(&mut self, now: Now, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        self.rounds += 1;
        self.exchange.begin_round(now.mono_us);
        self.replica.forget_recent(now.mono_us, RECENT_US);
        let me = self.options.me;
        let view = self.view.clone();
        let mut stable = Vec::new();
        for (partition, state) in self.replica.partitions_loaded() {
            if !view.is_owner(partition, me) {
                continue;
            }
            let mut digest = None;
            // Nothing seen is worth a word too: it may have been more before the disk was lost.
            for peer in view.owners(partition).filter(|peer| *peer != me && view.is_up(*peer)) {
                let answer = self.exchange.doubts(peer, partition, &state.seen);
                if self.exchange.must_report(peer, partition, state.version) || answer {
                    let digest = *digest.get_or_insert_with(|| state.seen.digest());
                    background(out, peer, partition, Body::ReportDigest { digest, answer });
                }
            }
            if state.log_entries > 0 {
                if self.cuts.get(&partition).is_some_and(|(_, at_us)| at_us + self.options.log_keep_us <= now.mono_us)
                    && let Some((cut, _)) = self.cuts.remove(&partition)
                {
                    stable.push((partition, cut));
                }
                let early = self.options.planted == Planted::LogDroppedEarly;
                let fences = &self.fences;
                let others =
                    view.owners(partition).filter(|peer| *peer != me && !early && !fences.is_fenced(&view, *peer));
                let cut = || (self.exchange.stable(partition, &state.seen, others), now.mono_us);
                self.cuts.entry(partition).or_insert_with(cut);
            }
        }
        for (partition, cut) in stable {
            let dropped = self.replica.trim(turn, partition, &cut)?;
            self.stats.add("log_trimmed_total", dropped);
        }
        let replica = &self.replica;
        self.exchange.end_round(|partition| Some(replica.loaded(partition)?.seen.clone()));
        self.pull_next(now, turn, out)?;
        self.seek_floors(now, turn, out)?;
        self.begin_entering(now);
        self.deliveries.retain(|_, delivery| delivery.deadline_us > now.mono_us);
        self.collapses.retain(|_, collapse| collapse.deadline_us > now.mono_us);
        let collapses = &self.collapses;
        self.collapsing.retain(|_, at| collapses.contains_key(at));
        let owed: Vec<(NodeId, Partition)> = self.hints.owed().collect();
        for (owner, partition) in owed {
            if self.fences.is_fenced(&view, owner) || self.is_short_of_room() && !view.is_up(owner) {
                self.collapse_hints(now, owner, partition, turn, out)?;
            } else {
                self.deliver_hints(now, owner, partition, turn, out)?;
            }
        }
        Ok(())
    }

    /// Sends owners what a read found them to lack and they have not seen since, as it stands here now.
    pub(super) fn repair(&mut self, now: Now, turn: &Turn, out: &mut Outbox) -> Result<(), StoreError> {
        while let Some(lack) = self.repairs.next(now.mono_us) {
            let partition = self.replica.partition_of(&lack.key);
            let still = lack.still(self.exchange.seen_by(lack.node, partition));
            if still.is_empty() || !self.view.is_up(lack.node) || !self.view.is_owner(partition, lack.node) {
                continue;
            }
            let rows = self.replica.rows_at(turn, &lack.key, still)?;
            if rows.is_empty() {
                continue;
            }
            self.stats.add("read_repairs_total", 1);
            let body = Body::Repair { ticket: None, key: lack.key, rows, entries: Vec::new(), note: None, sync: false };
            background(out, lack.node, partition, body);
        }
        Ok(())
    }

    /// Where a full sync did not come to its end, its rows are to be entered as seen.
    pub(super) fn begin_entering(&mut self, now: Now) {
        let exchange = &self.exchange;
        let left = |(partition, state): &(Partition, &crate::node::replica::PartitionState)| {
            state.unsure && !exchange.is_pulling(*partition) && self.options.planted != Planted::SyncRowsNotSeen
        };
        let left: Vec<Partition> = self.replica.partitions_loaded().filter(left).map(|(at, _)| at).collect();
        for partition in left {
            self.entering.entry(partition).or_default();
        }
        if !self.entering.is_empty() {
            self.enter_at_us = self.enter_at_us.min(now.mono_us);
        }
    }

    /// The next page of them. A pause after each: requests go on meanwhile.
    pub(super) fn enter_rows(&mut self, now: Now, turn: &mut Turn) -> Result<(), StoreError> {
        if now.mono_us < self.enter_at_us {
            return Ok(());
        }
        // A sync that has begun anew brings them again.
        let exchange = &self.exchange;
        self.entering.retain(|partition, _| !exchange.is_pulling(*partition));
        if let Some((partition, after)) = self.entering.pop_first() {
            let next = self.replica.enter_rows(turn, now, partition, after.as_ref(), self.options.page_bytes)?;
            self.stats.add("sync_rows_entered_total", 1);
            self.entering.extend(next.map(|next| (partition, Some(next))));
        }
        self.enter_at_us = if self.entering.is_empty() { u64::MAX } else { now.mono_us + ENTER_PAUSE_US };
        Ok(())
    }

    /// Sends as many pulls as there is room for.
    pub(super) fn pull_next(&mut self, now: Now, turn: &Turn, out: &mut Outbox) -> Result<(), StoreError> {
        while let Some((partition, from)) = self.exchange.next_pull(now.mono_us) {
            let have = self.replica.state(turn, partition)?.seen.clone();
            // What has come in the meantime needs no asking. Its report may be doubted just now: two whose rounds fall together would doubt
            // each other's at each.
            let lacks = self.exchange.seen_by(from, partition).is_none_or(|theirs| have.lacks(theirs) > 0);
            if !lacks || !self.view.is_up(from) {
                self.exchange.end_pull(partition);
                continue;
            }
            self.stats.add("pulls_total", 1);
            background(out, from, partition, Body::Pull { have });
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn take_sync_page(
        &mut self,
        now: Now,
        from: NodeId,
        partition: Partition,
        seen: Context,
        dead: Vec<Dot>,
        after: Option<bytes::Bytes>,
        rows: Vec<(bytes::Bytes, Row)>,
        next: Option<bytes::Bytes>,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        if !self.exchange.answers_pull(partition, from, now.mono_us) {
            return Ok(());
        }
        if !self.exchange.expects_page(partition, after.as_ref()) {
            return Ok(());
        }
        let first = after.is_none() || self.options.planted == Planted::SyncTrustedLate;
        let context: Context = {
            let mut context = seen.clone();
            dead.iter().for_each(|dot| {
                context.insert(*dot);
            });
            context
        };
        if first {
            // What it brings may lie before the place that has been come to.
            self.entering.remove(&partition);
            let left = self.replica.begin_sync(turn, partition)?;
            let left = left || self.exchange.promised(partition).is_some_and(|before| before.left);
            self.exchange.begin_full_sync(partition, Promise { seen, dead, left, after: after.clone() });
        } else if self.exchange.promised(partition).is_some_and(|promise| !seen.covers(&promise.seen))
            && self.options.planted != Planted::SyncSourceTrusted
        {
            // Its disk is not the one that promised: what comes from here on is not what is missing.
            self.stats.add("syncs_broken_off_total", 1);
            self.exchange.end_pull(partition);
            return self.pull_next(now, turn, out);
        }
        let known = &self.replica.state(turn, partition)?.seen;
        let is_new = |dot: &Dot| {
            !known.contains(*dot)
                && self.exchange.promised(partition).is_some_and(|promise| !promise.seen.contains(*dot))
        };
        if rows.iter().any(|(_, row)| row.dots().iter().any(is_new)) && self.options.planted != Planted::NewsOfSyncsLost
        {
            self.exchange.bring_more(partition);
        }
        let Promise { seen: promised, dead, left, .. } = self.exchange.promised(partition).cloned().unwrap_or_default();
        self.stats.add("sync_rows_total", rows.len() as u64);
        let bytes: u64 = rows.iter().map(|(at, row)| (at.len() + row_bytes(row)) as u64).sum();
        self.stats.add("sync_bytes_total", bytes);
        if let Some(wait_us) = bytes.saturating_mul(1_000_000).checked_div(self.options.sync_bytes_per_second) {
            self.page_at_us = self.page_at_us.max(now.mono_us) + wait_us;
        }
        self.replica.take_row_page(turn, now, partition, &context, after.as_ref(), rows, next.as_ref())?;
        let dead = if self.options.planted == Planted::DeadNotSent { Vec::new() } else { dead };
        if self.options.planted == Planted::SyncTrustedEarly {
            self.replica.finish_sync(turn, partition, &promised, &dead, left)?;
        }
        match next {
            Some(next) => {
                self.exchange.ask_page(partition, Some(next), now.mono_us.max(self.page_at_us));
                self.ask_pages(now, out);
            }
            None => {
                self.replica.finish_sync(turn, partition, &promised, &dead, left)?;
                self.stats.add("syncs_done_total", 1);
                self.exchange.end_pull(partition);
                self.pull_next(now, turn, out)?;
            }
        }
        Ok(())
    }

    /// Asks for the next pages of full syncs, as fast as they may come.
    pub(super) fn ask_pages(&mut self, now: Now, out: &mut Outbox) {
        while let Some((from, partition, after)) = self.exchange.next_page(now.mono_us) {
            background(out, from, partition, Body::SyncPull { after });
        }
    }
}

//! The SWIM machine: foca folded into handle and poll, held to the layout's members.
//!
//! What is added to foca, and why:
//! - foca stops announcing when everybody is down; here members believed down are greeted for ever, with jitter.
//! - foca compares processes of one node only when it hears of both; here whoever speaks under an outranked name is told at once
//!   (by a greeting to the name that outranks it) and steps over it. So a restart whose generation happens to be lower heals too.
//! - a process that was asleep (stopped, starved of CPU) did not hear answers that came: its timers are moved by as long as
//!   it slept, so that it does not wake up and accuse everybody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use foca::{Foca, Member, Message, NoCustomBroadcast, OwnedNotification, State, Timer, TimerToken};

use super::options::SwimOptions;
use super::packet::{Identity, Packet, PacketCodec};
use crate::data::id::{NodeId, StoreId, mix64};

/// Datagrams waiting to be sent, at most. They are made a few at a time; only a host that never polls gets there.
const TRANSMIT_BOUND: usize = 1_024;
/// Events waiting to be polled, at most. Same host.
const EVENT_BOUND: usize = 1_024;
/// Timers waiting, at most, before those made void by a change of identity are thrown out early.
const TIMER_BOUND: usize = 128;
/// Members greeted per round, at most; the next round goes on where this one ended.
const ANNOUNCE_BOUND: usize = 32;
/// The least time between two rounds of greeting, and between two steps over a rival identity, whatever peers say.
const HASTE_US: u64 = 100_000;

/// What changed. A member not yet heard of counts as down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MembershipEvent {
    /// The member answers. `generation` tells which start of it, `store` what its data lie in.
    Up { node: NodeId, generation: u64, store: StoreId },
    /// Another process than the one known so far speaks for the member. Followed by `Up` if the member was down, and on its own
    /// if the restart was quicker than the suspicion: either way what the old process had in memory is gone.
    Restarted { node: NodeId, generation: u64, store: StoreId },
    /// The member was declared down, said goodbye, or left the layout.
    Down { node: NodeId },
}

/// How often things happened since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MembershipStats {
    /// Datagrams handed in.
    pub datagrams_in: u64,
    /// Datagrams handed out.
    pub datagrams_out: u64,
    /// Refused: not a packet, or larger than `packet_bytes`.
    pub garbage: u64,
    /// Refused: from a node outside the member list (one that left, or one whose joining has not reached us yet).
    pub strangers: u64,
    /// Refused: the packet names another sender than the transport does.
    pub impostors: u64,
    /// News dropped because they were about nodes outside the member list, or about an earlier process of this node.
    pub news_dropped: u64,
    /// Datagrams dropped because nobody polled for too long.
    pub transmits_dropped: u64,
    /// Events dropped because nobody polled for too long; [`Membership::up`] knows what is true.
    pub events_dropped: u64,
    /// Packets and timers foca refused.
    pub refused: u64,
    /// This node was declared down and came back under a new name.
    pub rejoins: u64,
    /// This node met a memory of itself that outranked it and stepped over it.
    pub stepped_over: u64,
    /// This node noticed that it had been asleep.
    pub stalls: u64,
    /// Members seen going down.
    pub downs: u64,
}

/// Who is up, as one node sees it. See the [module](super) for the picture.
///
/// Times are microseconds on any clock that does not go backwards. After every call drain [`poll_transmit`](Self::poll_transmit)
/// and [`poll_event`](Self::poll_event), then wait until [`poll_timeout`](Self::poll_timeout).
pub struct Membership {
    me: NodeId,
    options: SwimOptions,
    foca: Foca<Identity, PacketCodec, Random, NoCustomBroadcast>,
    effects: Effects,
    /// Everybody in the layout but this node.
    peers: BTreeMap<NodeId, Peer>,
    /// By time, then in the order they were asked for.
    timers: BTreeMap<(u64, u64), Timer<Identity>>,
    timer_sequence: u64,
    /// The token of foca's present life; timers with another are void.
    token: TimerToken,
    /// Foca knows somebody who knows it. Otherwise it neither pings nor gossips, and everybody has to be greeted.
    connected: bool,
    left: bool,
    now_us: u64,
    announce_at_us: u64,
    announced_at_us: Option<u64>,
    /// The last one greeted in the round before.
    announce_cursor: NodeId,
    stepped_over_at_us: Option<u64>,
    jitter: Random,
    transmits: VecDeque<(NodeId, Bytes)>,
    events: VecDeque<MembershipEvent>,
    stats: MembershipStats,
}

#[derive(Clone, Copy, Default)]
struct Peer {
    up: bool,
    /// Of the last process seen up.
    generation: Option<u64>,
}

impl Membership {
    /// A machine for `me` among `members` (with or without `me`). Nobody is up yet and nobody has been told: the first
    /// [`handle_timeout`](Self::handle_timeout), due at once, greets everybody.
    ///
    /// `generation` should be higher than at the last start (a boot count, or the wall clock); should it not be, the node
    /// steps over what the others remember, one round trip later. Options outside of what is allowed are moved to the nearest
    /// that is. `seed` decides whom to ping in which order: different for each node, the same for the same story.
    pub fn new(
        me: NodeId,
        generation: u64,
        store: StoreId,
        members: &[NodeId],
        options: SwimOptions,
        seed: u64,
    ) -> Self {
        let options = options.clamped();
        let identity = Identity { node: me, generation, renewals: 0, store };
        let peers = members.iter().filter(|node| **node != me).map(|node| (*node, Peer::default())).collect();
        Self {
            me,
            foca: Foca::new(identity, options.to_foca(), Random::new(seed), PacketCodec),
            options,
            effects: Effects::default(),
            peers,
            timers: BTreeMap::new(),
            timer_sequence: 0,
            token: TimerToken::default(),
            connected: false,
            left: false,
            now_us: 0,
            announce_at_us: 0,
            announced_at_us: None,
            announce_cursor: me,
            stepped_over_at_us: None,
            jitter: Random::new(mix64(seed ^ 0x6a09_e667_f3bc_c908)),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            stats: MembershipStats::default(),
        }
    }

    /// Takes in a datagram that the transport says is from `from`. Whatever is wrong with it is counted and otherwise ignored.
    pub fn handle_datagram(&mut self, now_us: u64, from: NodeId, bytes: &[u8]) {
        self.advance(now_us);
        self.stats.datagrams_in += 1;
        if self.left {
            return;
        }
        if !self.peers.contains_key(&from) {
            self.stats.strangers += 1;
            return;
        }
        let packet = match Packet::decode(bytes) {
            Ok(packet) if bytes.len() <= self.options.packet_bytes => packet,
            _ => {
                self.stats.garbage += 1;
                return;
            }
        };
        if packet.header.src.node != from {
            self.stats.impostors += 1;
            return;
        }
        if self.settle_ranks(&packet) {
            return;
        }
        self.feed(packet, bytes);
    }

    /// Does what is due at `now_us`. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now_us: u64) {
        self.advance(now_us);
        if self.left {
            return;
        }
        self.forgive_stall();
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= self.now_us
        {
            let timer = entry.remove();
            let outcome = self.foca.handle_timer(timer, &mut self.effects);
            self.settle(outcome);
        }
        if self.announce_at_us <= self.now_us {
            self.announce_round();
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, in the microseconds of `now_us`. `None` after
    /// [`leave`](Self::leave).
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.left {
            return None;
        }
        let timer = self.timers.first_key_value().map(|((due_us, _), _)| *due_us);
        Some(timer.map_or(self.announce_at_us, |due_us| due_us.min(self.announce_at_us)))
    }

    /// The next datagram to send, and to whom. May be dropped or late: all of it is repeated if it mattered.
    pub fn poll_transmit(&mut self) -> Option<(NodeId, Bytes)> {
        let transmit = self.transmits.pop_front();
        self.stats.datagrams_out += u64::from(transmit.is_some());
        transmit
    }

    /// The next change of who is up.
    pub fn poll_event(&mut self) -> Option<MembershipEvent> {
        self.events.pop_front()
    }

    /// Whether `node` is a member that answers (or is suspected, but not yet down). This node itself is up until it leaves.
    pub fn is_up(&self, node: NodeId) -> bool {
        if node == self.me { !self.left } else { self.peers.get(&node).is_some_and(|peer| peer.up) }
    }

    /// All that are up, this node among them.
    pub fn up(&self) -> BTreeSet<NodeId> {
        let mine = (!self.left).then_some(self.me);
        self.peers.iter().filter(|(_, peer)| peer.up).map(|(node, _)| *node).chain(mine).collect()
    }

    /// How this node is numbered: which start of it the others know. Differs from what [`new`](Self::new) was given only after
    /// it stepped over a memory of itself.
    pub fn generation(&self) -> u64 {
        self.foca.identity().generation
    }

    pub fn stats(&self) -> MembershipStats {
        self.stats
    }

    /// A new layout: greets who joined and forgets who left (after a `Down`, if it was up).
    pub fn set_members(&mut self, now_us: u64, members: &[NodeId]) {
        self.advance(now_us);
        let wanted: BTreeSet<NodeId> = members.iter().copied().filter(|node| *node != self.me).collect();
        let gone: Vec<NodeId> = self.peers.keys().copied().filter(|node| !wanted.contains(node)).collect();
        for node in gone {
            self.forget(node);
        }
        let fresh: Vec<NodeId> = wanted.into_iter().filter(|node| !self.peers.contains_key(node)).collect();
        for node in fresh {
            self.peers.insert(node, Peer::default());
            self.announce(node);
        }
    }

    /// The transport has a fresh link to `node`: greet it at once, so that one that came back is up a round trip later.
    pub fn link_up(&mut self, now_us: u64, node: NodeId) {
        self.advance(now_us);
        self.announce(node);
    }

    /// The transport lost its last link to `node`: suspect it. If it lives it hears so from somebody and says so.
    pub fn link_down(&mut self, now_us: u64, node: NodeId) {
        self.advance(now_us);
        if self.left || !self.connected || !self.peers.contains_key(&node) {
            return;
        }
        let Some(member) = self.known(node).filter(|member| member.state() == State::Alive).cloned() else {
            return;
        };
        let suspect = Member::new(*member.id(), member.incarnation(), State::Suspect);
        let outcome = self.foca.apply_many(std::iter::once(suspect), true, &mut self.effects);
        self.effects.timers.push((
            Timer::ChangeSuspectToDown {
                member_id: *member.id(),
                incarnation: member.incarnation(),
                token: self.token,
            },
            Duration::from_millis(self.options.suspect_ms),
        ));
        self.settle(outcome);
    }

    /// Says goodbye, so that the others see this node down at once and not after a suspicion. Send what
    /// [`poll_transmit`](Self::poll_transmit) yields before closing; nothing is taken in or sent after that.
    pub fn leave(&mut self, now_us: u64) {
        self.advance(now_us);
        if self.left {
            return;
        }
        // Everybody is told, not a few to pass it on: this process will not be there to repeat it.
        let mut everybody = self.options.clone();
        everybody.indirect_probes = self.peers.len().max(1);
        everybody.transmissions = u8::MAX;
        let outcome = self.foca.set_config(everybody.to_foca());
        self.settle(outcome);
        let outcome = self.foca.leave_cluster(&mut self.effects);
        self.settle(outcome);
        // Once more, against loss.
        let outcome = self.foca.gossip(&mut self.effects);
        self.settle(outcome);
        self.left = true;
        self.timers.clear();
    }

    /// How many things are kept: timers, datagrams, events, members, news.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let members = self.foca.iter_membership_state().len() + self.peers.len();
        self.timers.len() + self.transmits.len() + self.events.len() + members + self.foca.updates_backlog()
    }

    fn advance(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    /// Compares by what names the two sides know each other. True when the packet is answered by that and says nothing else.
    fn settle_ranks(&mut self, packet: &Packet) -> bool {
        let header = &packet.header;
        let about_me = packet.news.iter().flatten().map(|member| *member.id()).filter(|id| id.node == self.me);
        let memory = std::iter::once(header.dst).filter(|id| id.node == self.me).chain(about_me).max();
        if let Some(memory) = memory.filter(|memory| *memory > *self.foca.identity()) {
            // They remember a later one of us. It cannot be refuted, only outranked; until it is, an answer under our lower name
            // would only be answered by another reminder.
            if !self.step_over(memory) {
                return true;
            }
        }
        if let Some(known) = self.known(header.src.node).map(|member| *member.id()).filter(|known| *known > header.src)
        {
            // The sender is remembered as a later one than it says it is: a late packet, or it needs to know.
            self.announce(known.node);
            return true;
        }
        if header.dst.node == self.me && header.dst < *self.foca.identity() && header.message != Message::Announce {
            // The sender does not know our present name yet, and foca would not answer to the old one.
            self.announce(header.src.node);
        }
        false
    }

    /// Takes a name above `memory`. False if that has to wait.
    fn step_over(&mut self, memory: Identity) -> bool {
        // Two processes with the name of one node would leapfrog for ever; not faster than this, then.
        if self.stepped_over_at_us.is_some_and(|at_us| self.now_us < at_us + HASTE_US) {
            return false;
        }
        let Some(identity) = self.foca.identity().above(memory) else {
            return false;
        };
        self.stepped_over_at_us = Some(self.now_us);
        self.stats.stepped_over += 1;
        self.connected = false;
        let outcome = self.foca.change_identity(identity, &mut self.effects);
        self.settle(outcome);
        self.hasten_announce();
        true
    }

    /// Gives foca a packet, without the news it should not know.
    fn feed(&mut self, mut packet: Packet, bytes: &[u8]) {
        let me = *self.foca.identity();
        let mut dropped = 0;
        if let Some(news) = &mut packet.news {
            let before = news.len();
            news.retain(|member| {
                let id = *member.id();
                if id.node == self.me { id == me } else { self.peers.contains_key(&id.node) }
            });
            dropped = before - news.len();
        }
        let outcome = if dropped == 0 {
            self.foca.handle_data(bytes, &mut self.effects)
        } else {
            self.stats.news_dropped += dropped as u64;
            match packet.encode() {
                Ok(bytes) => self.foca.handle_data(&bytes, &mut self.effects),
                Err(error) => Err(foca::Error::Encode(Box::new(error))),
            }
        };
        self.settle(outcome);
    }

    /// What foca remembers of a node, up or down.
    fn known(&self, node: NodeId) -> Option<&Member<Identity>> {
        self.foca.iter_membership_state().find(|member| member.id().node == node)
    }

    fn announce(&mut self, node: NodeId) {
        if self.left || !self.peers.contains_key(&node) {
            return;
        }
        let identity = self.known(node).map_or(Identity::anyone(node), |member| *member.id());
        let outcome = self.foca.announce(identity, &mut self.effects);
        self.settle(outcome);
    }

    /// Greets members believed down; everybody, when nobody is known to know us under our present name.
    fn announce_round(&mut self) {
        let wanted = |peer: &Peer| !peer.up || !self.connected;
        let after = self.peers.range((std::ops::Bound::Excluded(self.announce_cursor), std::ops::Bound::Unbounded));
        let before = self.peers.range(..=self.announce_cursor);
        let chosen: Vec<NodeId> =
            after.chain(before).filter(|(_, peer)| wanted(peer)).map(|(node, _)| *node).take(ANNOUNCE_BOUND).collect();
        for node in chosen {
            self.announce(node);
            self.announce_cursor = node;
        }
        let period_us = self.options.announce_period_ms * 1_000;
        let jitter_us = self.jitter.next() % (period_us / 4).max(1);
        self.announced_at_us = Some(self.now_us);
        self.announce_at_us = self.now_us + period_us - period_us / 8 + jitter_us;
    }

    /// Brings the next round forward, but not closer than `HASTE_US` to the last.
    fn hasten_announce(&mut self) {
        let soon_us = self.announced_at_us.map_or(self.now_us, |at_us| self.now_us.max(at_us + HASTE_US));
        self.announce_at_us = self.announce_at_us.min(soon_us);
    }

    fn forget(&mut self, node: NodeId) {
        if let Some(id) = self.known(node).map(|member| *member.id()) {
            let outcome = self.foca.apply_many(std::iter::once(Member::down(id)), false, &mut self.effects);
            self.settle(outcome);
            let outcome = self.foca.handle_timer(Timer::RemoveDown(id), &mut self.effects);
            self.settle(outcome);
        }
        self.peers.remove(&node);
    }

    /// If the earliest timer is late by more than a round trip, this process was asleep: what it did not hear proves nothing.
    /// All timers move by that much, so that answers waiting in the socket are read before anybody is judged.
    fn forgive_stall(&mut self) {
        let Some(((due_us, _), _)) = self.timers.first_key_value() else {
            return;
        };
        let late_us = self.now_us.saturating_sub(*due_us);
        if late_us <= self.options.probe_rtt_ms * 1_000 {
            return;
        }
        self.stats.stalls += 1;
        let timers = std::mem::take(&mut self.timers);
        self.timers =
            timers.into_iter().map(|((due_us, sequence), timer)| ((due_us + late_us, sequence), timer)).collect();
    }

    /// Carries out what foca asked for in the call that just returned `outcome`.
    fn settle(&mut self, outcome: Result<(), foca::Error>) {
        self.stats.refused += u64::from(outcome.is_err());
        let effects = std::mem::take(&mut self.effects);
        for (timer, after) in effects.timers {
            self.schedule(timer, after);
        }
        for (to, bytes) in effects.transmits {
            self.transmit(to.node, bytes);
        }
        for notification in effects.notifications {
            self.note(notification);
        }
    }

    fn schedule(&mut self, timer: Timer<Identity>, after: Duration) {
        if let Timer::ProbeRandomMember(token) = timer {
            self.token = token;
        }
        if self.timers.len() >= TIMER_BOUND {
            let token = self.token;
            self.timers.retain(|_, timer| token_of(timer).is_none_or(|of| of == token));
        }
        let due_us = self.now_us.saturating_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
        self.timers.insert((due_us, self.timer_sequence), timer);
        self.timer_sequence += 1;
    }

    fn transmit(&mut self, to: NodeId, bytes: Bytes) {
        // Foca also answers on behalf of others ("ping that one for me"): only ever to members.
        if !self.peers.contains_key(&to) {
            return;
        }
        if self.transmits.len() >= TRANSMIT_BOUND {
            self.transmits.pop_front();
            self.stats.transmits_dropped += 1;
        }
        self.transmits.push_back((to, bytes));
    }

    fn note(&mut self, notification: OwnedNotification<Identity>) {
        match notification {
            OwnedNotification::MemberUp(id) => self.note_up(id),
            OwnedNotification::MemberDown(id) => self.note_down(id),
            OwnedNotification::Rename(_, id) => self.note_renamed(id),
            OwnedNotification::Active => self.connected = true,
            OwnedNotification::Idle | OwnedNotification::Defunct => self.connected = false,
            OwnedNotification::Rejoin(_) => {
                self.stats.rejoins += 1;
                self.connected = false;
                self.hasten_announce();
            }
        }
    }

    fn tell(&mut self, event: MembershipEvent) {
        if self.events.len() >= EVENT_BOUND {
            self.events.pop_front();
            self.stats.events_dropped += 1;
        }
        self.events.push_back(event);
    }

    fn note_up(&mut self, id: Identity) {
        self.note_renamed(id);
        if let Some(peer) = self.peers.get_mut(&id.node) {
            peer.up = true;
            peer.generation = Some(id.generation);
            self.tell(MembershipEvent::Up { node: id.node, generation: id.generation, store: id.store });
        }
    }

    fn note_down(&mut self, id: Identity) {
        if let Some(peer) = self.peers.get_mut(&id.node) {
            peer.up = false;
            self.stats.downs += 1;
            self.tell(MembershipEvent::Down { node: id.node });
        }
    }

    /// A renewal is the same process and says nothing; another generation is another process.
    fn note_renamed(&mut self, id: Identity) {
        if let Some(peer) = self.peers.get_mut(&id.node)
            && let Some(before) = peer.generation
            && before != id.generation
        {
            peer.generation = Some(id.generation);
            self.tell(MembershipEvent::Restarted { node: id.node, generation: id.generation, store: id.store });
        }
    }
}

/// The life of foca a timer belongs to; `None` for those valid in all.
fn token_of(timer: &Timer<Identity>) -> Option<TimerToken> {
    match timer {
        Timer::ProbeRandomMember(token)
        | Timer::SendIndirectProbe { token, .. }
        | Timer::ChangeSuspectToDown { token, .. }
        | Timer::PeriodicAnnounce(token)
        | Timer::PeriodicAnnounceDown(token)
        | Timer::PeriodicGossip(token) => Some(*token),
        Timer::RemoveDown(_) => None,
    }
}

/// What foca asks for during one call.
#[derive(Default)]
struct Effects {
    timers: Vec<(Timer<Identity>, Duration)>,
    transmits: Vec<(Identity, Bytes)>,
    notifications: Vec<OwnedNotification<Identity>>,
}

impl foca::Runtime<Identity> for Effects {
    fn notify(&mut self, notification: foca::Notification<'_, Identity>) {
        self.notifications.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.transmits.push((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}

/// splitmix64: small, seeded, the same everywhere. Decides order, never secrets.
struct Random {
    state: u64,
}

impl Random {
    fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(self.state)
    }
}

impl rand::TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

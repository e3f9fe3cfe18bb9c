//! One caller: draws what to do, asks, has the answer judged, takes the time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::keys::Chooser;
use super::pace::{Alarm, Due, Pace};
use super::recorder::Recorder;
use super::values::{Name, Seen, Value};
use super::workload::{FIELDS, Kind, Model};
use super::world::World;
use crate::check::members::{Change, MembersBefore};
use crate::check::register::{Before, End, Verdict};
use crate::check::tally::Circumstances;
use crate::target::{Answer, Backing, Call, Refusal, Target, Told, Verb};

/// A closed loop waits for so long after a request that failed, since who refuses at once would be asked without end.
const PAUSE: Duration = Duration::from_millis(10);
/// In an open loop a request that could not be sent for so long counts as an error and is not sent any more.
const PATIENCE_US: u64 = 2_000_000;
/// Keys drawn for a write before the next free one is taken.
const DRAWS: u32 = 8;
/// Keys that a scan asks for at most.
const SCAN_MOST: u32 = 100;

/// What was owed when a request was sent.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Nothing,
    Read(Before),
    Members(MembersBefore),
    Write { sequence: u32, deletes: bool },
    Count,
    Change(Change),
}

struct Pending {
    kind: Kind,
    owed: Owed,
    began_us: u64,
    health: Option<u32>,
}

pub struct Worker<T> {
    pub world: Arc<World>,
    pub target: T,
    pub number: usize,
    recorder: Arc<Mutex<Recorder>>,
    random: SmallRng,
    chooser: Chooser,
    calls: Vec<Call>,
    pending: Vec<Pending>,
    answers: Vec<Answer>,
}

impl<T: Target> Worker<T> {
    pub fn new(world: Arc<World>, target: T, number: usize, recorder: Arc<Mutex<Recorder>>) -> Self {
        let random = SmallRng::seed_from_u64(u64::from(world.ledger.run) << 32 | number as u64);
        let chooser = Chooser::new(world.distribution);
        let (calls, pending, answers) = (Vec::new(), Vec::new(), Vec::new());
        Self { world, target, number, recorder, random, chooser, calls, pending, answers }
    }

    pub fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks until the time is up.
    pub async fn run(&mut self) -> std::io::Result<()> {
        let world = self.world.clone();
        let pace = |rate| Pace::new(world.now_us(), rate, world.workers, self.number);
        let mut pace = world.rate.map(pace);
        let alarm = pace.map(|_| Alarm::new()).transpose()?;
        loop {
            let (now, until) = (world.now_us(), world.until_us.load(Ordering::Relaxed));
            if now >= until || world.is_stopped() {
                break;
            }
            let mut intended = now;
            if let (Some(pace), Some(alarm)) = (&mut pace, &alarm) {
                match pace.due(now, PATIENCE_US) {
                    Due::Now(at) => intended = at,
                    Due::At(at) => {
                        alarm.sleep(Duration::from_micros(at.min(until) - now)).await?;
                        continue;
                    }
                    Due::Missed(times) => {
                        self.miss(now, times);
                        continue;
                    }
                }
            }
            let done = self.operate(intended).await;
            if !done && pace.is_none() {
                sleep(PAUSE).await;
            }
        }
        if let Some(pace) = pace {
            self.miss(world.now_us(), pace.left(world.until_us.load(Ordering::Relaxed)));
        }
        Ok(())
    }

    fn miss(&mut self, now_us: u64, times: u64) {
        if times > 0 && now_us >= self.world.measured_from_us.load(Ordering::Relaxed) {
            let kind = self.world.workload.choose(&mut self.random);
            self.recorder().failed(kind, "not started in time", times);
        }
    }

    /// One operation, or a pipeline of them. False: something failed.
    async fn operate(&mut self, intended_us: u64) -> bool {
        self.calls.clear();
        self.pending.clear();
        for _ in 0..self.world.pipeline {
            let kind = self.world.workload.choose(&mut self.random);
            self.prepare(kind);
        }
        if self.calls.is_empty() {
            let kind = self.world.workload.choose(&mut self.random);
            let none = Refusal { why: "every key was being written", may_have_happened: false };
            self.record(kind, intended_us, intended_us, Err(none), None);
            return false;
        }
        if let [Pending { kind: kind @ (Kind::ReadModifyWrite | Kind::WriteSiblings), .. }] = self.pending[..] {
            return self.read_then_write(kind, intended_us).await;
        }
        self.answers.clear();
        self.target.call(&self.calls, &mut self.answers).await;
        let now = self.world.now_us();
        let mut well = true;
        let mut answers = std::mem::take(&mut self.answers);
        for (at, answer) in answers.drain(..).enumerate() {
            let receipt = answer.receipt;
            let told = self.settle(at, answer, now);
            well &= told.is_ok();
            self.record(self.pending[at].kind, intended_us, now, told.map(|_| ()), receipt);
        }
        self.answers = answers;
        well
    }

    fn record(
        &mut self,
        kind: Kind,
        intended_us: u64,
        now_us: u64,
        told: Result<(), Refusal>,
        receipt: Option<Backing>,
    ) {
        if intended_us < self.world.measured_from_us.load(Ordering::Relaxed) {
            return;
        }
        let mut recorder = self.recorder();
        match told {
            Ok(()) => recorder.done(kind, now_us.saturating_sub(intended_us), receipt),
            Err(refusal) => recorder.failed(kind, refusal.why, 1),
        }
    }

    /// The first call reads, and what it brings is judged; the second writes.
    async fn read_then_write(&mut self, kind: Kind, intended_us: u64) -> bool {
        let write = self.calls[0].clone();
        let verb = if kind == Kind::WriteSiblings { Verb::Siblings } else { Verb::Get };
        let owed = self.pending[0].owed;
        let before = self.world.ledger.register(write.value.item).before();
        self.calls[0].verb = verb;
        self.pending[0].owed = Owed::Read(before);
        self.answers.clear();
        self.target.call(&self.calls, &mut self.answers).await;
        let answer = self.answers.pop().expect("as many answers as calls");
        let told = self.settle(0, answer, self.world.now_us());
        self.pending[0].owed = owed;
        let (answer, now) = match told {
            Ok(told) => {
                self.calls[0] = write;
                if let Told::Siblings(_, context) = told {
                    self.calls[0].context = (!context.is_empty()).then_some(context);
                }
                self.target.call(&self.calls, &mut self.answers).await;
                (self.answers.pop().expect("as many answers as calls"), self.world.now_us())
            }
            // Nothing was written.
            Err(refusal) => (Answer::plain(Err(Refusal { may_have_happened: false, ..refusal })), self.world.now_us()),
        };
        let receipt = answer.receipt;
        let told = self.settle(0, answer, now);
        self.record(kind, intended_us, now, told.as_ref().map(|_| ()).map_err(|refusal| *refusal), receipt);
        told.is_ok()
    }

    /// Draws a key and puts a call for it. Nothing is put when every key is being written.
    fn prepare(&mut self, kind: Kind) {
        let world = self.world.clone();
        let ledger = &world.ledger;
        let began_us = world.now_us();
        let read = |item| Owed::Read(ledger.register(item).before());
        let key = self.chooser.choose(ledger.count(), &mut self.random);
        let field = self.random.random_range(0..FIELDS);
        let (verb, key, item, part, owed) = match kind {
            Kind::Read => (Verb::Get, key, key, 0, read(key)),
            Kind::ReadSiblings => (Verb::Siblings, key, key, 0, read(key)),
            Kind::GetField => {
                // One in five reads asks for the counter.
                if self.random.random_range(0..=FIELDS) == FIELDS {
                    (Verb::GetFieldCounter, key, key, FIELDS, Owed::Read(ledger.counter(key).before()))
                } else {
                    (Verb::GetField, key, key * FIELDS + field, field, read(key * FIELDS + field))
                }
            }
            Kind::ReadCounter => (Verb::GetCounter, key, key, 0, Owed::Read(ledger.counter(key).before())),
            Kind::Members => (Verb::Members, key, key, 0, Owed::Members(ledger.members(key).before())),
            Kind::Contains => {
                let members = ledger.members(key);
                let member = members.pick(self.random.random());
                (Verb::Contains, key, key, member, Owed::Members(members.before()))
            }
            Kind::Scan => (Verb::Scan, self.random.random(), 0, self.random.random_range(1..=SCAN_MOST), Owed::Nothing),
            Kind::Increment | Kind::IncrementField => {
                ledger.counter(key).begin();
                let verb = if kind == Kind::Increment { Verb::Increment } else { Verb::IncrementField };
                (verb, key, key, FIELDS, Owed::Count)
            }
            Kind::AddMember | Kind::RemoveMember => {
                let adds = kind == Kind::AddMember;
                let Some((key, change)) = self.claim(key, |key| ledger.members(key).begin(adds)) else { return };
                let verb = if change.adds { Verb::Add } else { Verb::Remove };
                (verb, key, key, change.member, Owed::Change(change))
            }
            Kind::Insert => {
                // When there is no more room it is an update.
                let claimed = ledger.claim().and_then(|key| Some((key, ledger.register(key).begin(false)?)));
                let key = claimed.or_else(|| self.claim(key, |key| ledger.register(key).begin(false)));
                let Some((key, sequence)) = key else { return };
                (Verb::Set, key, key, 0, Owed::Write { sequence, deletes: false })
            }
            Kind::Update | Kind::Delete | Kind::ReadModifyWrite | Kind::WriteSiblings => {
                let deletes = kind == Kind::Delete;
                let Some((key, sequence)) = self.claim(key, |key| ledger.register(key).begin(deletes)) else { return };
                let verb = match kind {
                    Kind::Delete => Verb::Delete,
                    Kind::WriteSiblings => Verb::PutSibling,
                    _ => Verb::Set,
                };
                (verb, key, key, 0, Owed::Write { sequence, deletes })
            }
            Kind::SetField => {
                let begin = |key: u32| ledger.register(key * FIELDS + field).begin(false);
                let Some((key, sequence)) = self.claim(key, begin) else { return };
                (Verb::SetField, key, key * FIELDS + field, field, Owed::Write { sequence, deletes: false })
            }
        };
        let sequence = if let Owed::Write { sequence, .. } = owed { sequence } else { 0 };
        let kind = match owed {
            // What a set needs goes before what was drawn.
            Owed::Change(change) => {
                if change.adds {
                    Kind::AddMember
                } else {
                    Kind::RemoveMember
                }
            }
            _ => kind,
        };
        let value = Value { run: ledger.run, item, sequence, length: world.length(&mut self.random) };
        self.pending.push(Pending { kind, owed, began_us, health: world.health() });
        self.calls.push(Call { verb, key: Name::of(ledger.run, key), number: key, part, value, context: None });
    }

    /// A key that nobody is writing: the first if it is free, others drawn the same way, then the next free one.
    fn claim<B>(&mut self, first: u32, begin: impl Fn(u32) -> Option<B>) -> Option<(u32, B)> {
        let count = self.world.ledger.count();
        let mut key = first;
        for _ in 0..DRAWS {
            if let Some(begun) = begin(key) {
                return Some((key, begun));
            }
            key = self.chooser.choose(count, &mut self.random);
        }
        (0..count.min(10_000)).find_map(|step| {
            let next = ((u64::from(key) + u64::from(step)) % u64::from(count)) as u32;
            begin(next).map(|begun| (next, begun))
        })
    }

    /// Ends what was begun and judges what came.
    fn settle(&mut self, at: usize, answer: Answer, now_us: u64) -> Result<Told, Refusal> {
        let world = self.world.clone();
        let (pending, call) = (&self.pending[at], &self.calls[at]);
        let end = answer.end(now_us);
        let ledger = &world.ledger;
        match pending.owed {
            Owed::Write { sequence, deletes } => {
                ledger.register(call.value.item).end(sequence, deletes, end);
                if pending.kind == Kind::Insert {
                    ledger.inserted(call.number);
                }
            }
            Owed::Count => ledger.counter(call.number).end(end),
            Owed::Change(change) => {
                let saw = change.adds || matches!(answer.told, Ok(Told::There(true)));
                ledger.members(call.number).end(change, end, answer.sent_once && saw);
            }
            Owed::Nothing | Owed::Read(_) | Owed::Members(_) => {}
        }
        let is_read = matches!(pending.owed, Owed::Nothing | Owed::Read(_) | Owed::Members(_));
        if end == End::Unknown && !is_read {
            self.recorder().tally.check.unknown += 1;
        }
        if let (true, Ok(told)) = (is_read, &answer.told) {
            self.judge(at, told, answer.receipt, now_us);
        }
        answer.told
    }

    fn judge(&self, at: usize, told: &Told, backing: Option<Backing>, now_us: u64) {
        let (world, pending, call) = (&self.world, &self.pending[at], &self.calls[at]);
        let ledger = &world.ledger;
        let (verdict, before, known) = match (&pending.owed, told) {
            (Owed::Read(before), Told::Value(Seen::Foreign)) => (Verdict::Invented, *before, None),
            (Owed::Read(before), Told::Value(seen)) => {
                let register = ledger.register(call.value.item);
                let verdict = register.judge(*before, sequence(*seen));
                (verdict, *before, (verdict != Verdict::Fresh).then(|| register.told()))
            }
            (Owed::Read(before), Told::Siblings(each, _)) => {
                let register = ledger.register(call.value.item);
                let newest = each.iter().filter_map(|seen| sequence(*seen)).max();
                let foreign = each.contains(&Seen::Foreign);
                let verdict = if foreign { Verdict::Invented } else { register.judge(*before, newest) };
                (verdict, *before, (verdict != Verdict::Fresh).then(|| register.told()))
            }
            (Owed::Read(before), Told::Sum(sum)) => {
                let counter = ledger.counter(call.number);
                let doubted = backing.map_or(0, |backing| backing.doubted);
                let verdict = counter.judge(*before, *sum, doubted);
                if verdict == Verdict::Open {
                    self.recorder().tally.check.doubted += 1;
                }
                (verdict, *before, (verdict != Verdict::Fresh).then(|| counter.told()))
            }
            (Owed::Members(before), Told::Members(members, foreign)) => {
                let set = ledger.members(call.number);
                let verdict = if *foreign { Verdict::Invented } else { set.judge(*before, members) };
                (verdict, before.before, (verdict != Verdict::Fresh).then(|| set.told()))
            }
            (Owed::Members(before), Told::There(there)) => {
                let set = ledger.members(call.number);
                let verdict = set.judge_one(*before, call.part, *there);
                (verdict, before.before, (verdict != Verdict::Fresh).then(|| set.told()))
            }
            (Owed::Nothing, Told::Keys(keys)) => {
                let invented = keys.iter().any(|key| !ledger.is_written(*key));
                let verdict = if invented { Verdict::Invented } else { Verdict::Fresh };
                (verdict, Before::default(), None)
            }
            _ => return,
        };
        let measured_from = world.measured_from_us.load(Ordering::Relaxed);
        let measured = pending.began_us >= measured_from;
        let healthy = pending.health.is_some() && pending.health == world.health();
        let stand_ins = backing.is_some_and(|backing| backing.stand_ins > 0);
        let circumstances = Circumstances { intersecting: world.intersecting, stand_ins, healthy, measured };
        let mut recorder = self.recorder();
        let judged = verdict != Verdict::Open;
        recorder.second.judged += u64::from(measured && judged);
        recorder.second.stale += u64::from(measured && verdict == Verdict::Stale);
        recorder.tally.take(verdict, before, pending.began_us, circumstances, || {
            let at_s = (now_us as f64 - measured_from as f64) / 1e6;
            let name = String::from_utf8_lossy(call.key.as_bytes()).into_owned();
            let (kind, faults) = (pending.kind.name(), world.faults_text());
            let known = known.unwrap_or_default();
            let age_ms = pending.began_us.saturating_sub(before.at_us) as f64 / 1e3;
            let (writers, readers) = (world.names(before.nodes), world.names(backing.map_or(0, |backing| backing.nodes)));
            format!(
                "at {at_s:.3} s, {kind} of {name}: {verdict:?}: got {} from {readers}; {known}; when it began, number {} had been \
                 acknowledged for {age_ms:.1} ms by {writers}; {faults}",
                brief(told),
                before.acknowledged
            )
        });
    }
}

/// What was brought, for examples.
pub fn brief(told: &Told) -> String {
    let mut text = match told {
        Told::Value(Seen::Sequence(sequence)) => format!("number {sequence}"),
        Told::Value(Seen::Nothing) => "nothing".into(),
        Told::Value(Seen::Foreign) => "a value that nobody wrote there".into(),
        other => format!("{other:?}"),
    };
    if text.len() > 500 {
        text = text.chars().take(500).chain(" ...".chars()).collect();
    }
    text
}

pub fn sequence(seen: Seen) -> Option<u32> {
    match seen {
        Seen::Sequence(sequence) => Some(sequence),
        Seen::Nothing | Seen::Foreign => None,
    }
}

/// What a key is filled with.
pub fn fill_kinds(model: Model) -> &'static [Verb] {
    match model {
        Model::Strings => &[Verb::Set],
        Model::Counters => &[Verb::Increment],
        Model::Sets => &[Verb::Add],
        Model::Maps => &[Verb::SetField, Verb::SetField, Verb::SetField, Verb::SetField],
        Model::Siblings => &[Verb::PutSibling],
    }
}

//! What becomes of an addition whose coordinator has missed a deadline, when messages come late, are lost, or cross others: by hand, one
//! message after the other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidewater::data::clock::Now;
use tidewater::data::consistency::{Consistency, Level};
use tidewater::data::decimal::Decimal;
use tidewater::data::id::{NodeId, OpId};
use tidewater::data::mutation::Effect;
use tidewater::data::op::{Condition, DeadlineCondition, Key, Op, Reply, Request, RequestError, Response, SetExpiry};
use tidewater::data::row::Put;
use tidewater::node::shard::run_turn;
use tidewater::node::turn::Input;
use tidewater::ring::view::View;
use tidewater::wire::message::{Body, PeerMessage};

use super::cluster::{Node, layout, nodes};

struct Letter {
    from: usize,
    to: usize,
    message: PeerMessage,
}

/// Three owners, and what is under way between them.
struct Post {
    nodes: BTreeMap<NodeId, Node>,
    /// In order of preference: who is meant by a number.
    owners: Vec<NodeId>,
    letters: Vec<Letter>,
    answers: BTreeMap<u64, Response>,
    view: View,
    now: Now,
    next: u64,
}

impl Post {
    fn new() -> Self {
        let layout = layout(&["n1", "n2", "n3"], 3);
        let now = Now { wall_ms: 1_800_000_000_000, mono_us: 1_000_000 };
        let view = View::new(layout.clone());
        let owners = view.owners(view.partition_of(b"k")).collect();
        Self { nodes: nodes(&layout, now), owners, letters: Vec::new(), answers: BTreeMap::new(), view, now, next: 0 }
    }

    fn rest(&mut self, ms: u64) {
        self.now.wall_ms += ms;
        self.now.mono_us += ms * 1_000;
    }

    /// `None`: what is due is done.
    fn turn(&mut self, at: usize, input: Option<Input>) {
        let node = self.nodes.get_mut(&self.owners[at]).unwrap();
        let out = run_turn(&mut node.shard, self.now, &node.store, input).unwrap();
        self.answers.extend(out.replies);
        for (to, _, message) in out.sends {
            let is_asked = matches!(
                message.body,
                Body::Replicate { .. }
                    | Body::ReplicateAck { .. }
                    | Body::Repair { .. }
                    | Body::Read { .. }
                    | Body::ReadReply { .. }
                    | Body::Forward { .. }
                    | Body::ForwardReply { .. }
            );
            if let Some(to) = self.owners.iter().position(|id| *id == to).filter(|_| is_asked) {
                self.letters.push(Letter { from: at, to, message });
            }
        }
    }

    /// Those letters come, and what they bring about, in order.
    fn bring(&mut self, comes: impl Fn(&Letter) -> bool) {
        while let Some(at) = self.letters.iter().position(&comes) {
            let Letter { from, to, message } = self.letters.remove(at);
            let from = self.owners[from];
            self.turn(to, Some(Input::Message { from, message }));
        }
    }

    fn say(&mut self, at: usize, key: &str, level: Level, op: Op, first_try: Option<OpId>) -> (u64, OpId) {
        self.next += 1;
        self.rest(1);
        let op_id = first_try.unwrap_or_else(|| OpId::new(self.now.wall_ms, [self.next as u8; 10]));
        let request = Request::new(Key::new(Bytes::copy_from_slice(key.as_bytes())), op);
        let read = if level == Level::All { Level::Quorum } else { level };
        let consistency = Consistency { read, write: level, ..request.consistency };
        let request = Request { op_id: Some(op_id), fresh: first_try.is_none(), consistency, ..request };
        self.turn(at, Some(Input::Request { ticket: self.next, request }));
        (self.next, op_id)
    }

    fn start(&mut self, at: usize, level: Level, op: Op) -> u64 {
        self.say(at, "k", level, op, None).0
    }

    /// Everything comes, but what is written to whoever is deaf, which is lost.
    fn ask(&mut self, at: usize, op: Op, deaf: Option<usize>) -> Result<Reply, RequestError> {
        let ticket = self.start(at, Level::Quorum, op);
        self.letters_but(|letter| Some(letter.to) == deaf && matches!(letter.message.body, Body::Replicate { .. }));
        self.letters.clear();
        self.answer(ticket)
    }

    fn letters_but(&mut self, stays: impl Fn(&Letter) -> bool) {
        self.bring(|letter| !stays(letter));
    }

    /// Between these two alone, for as long as it takes.
    fn between(&mut self, one: usize, two: usize) {
        for _ in 0..8 {
            self.bring(|letter| [one, two].contains(&letter.from) && [one, two].contains(&letter.to));
            self.rest(50);
            self.turn(one, None);
        }
    }

    fn answer(&mut self, ticket: u64) -> Result<Reply, RequestError> {
        self.answers.remove(&ticket).expect("answered").result
    }

    fn reads_everywhere(&mut self, op: &Op, expected: &Reply) {
        for at in 0..3 {
            assert_eq!(self.ask(at, op.clone(), None).as_ref(), Ok(expected), "at {at}");
        }
    }
}

fn add(member: &str) -> Op {
    Op::SetAdd { members: vec![Bytes::copy_from_slice(member.as_bytes())] }
}

fn members(members: &[&str]) -> Reply {
    Reply::Members(members.iter().map(|member| Bytes::copy_from_slice(member.as_bytes())).collect())
}

fn set(value: &str) -> Op {
    let value = Bytes::copy_from_slice(value.as_bytes());
    Op::Set { value, expiry: SetExpiry::Never, condition: Condition::Always, old: false }
}

fn ends_at(at_ms: u64) -> Op {
    Op::SetDeadline { at_ms: Some(at_ms), condition: DeadlineCondition::Always }
}

fn increment() -> Op {
    Op::Increment { by: Decimal::from_integer(1), integer: true }
}

#[test]
fn an_owner_that_missed_a_later_deadline_keeps_nothing_for_longer() {
    let mut post = Post::new();
    post.ask(0, add("a"), None).unwrap();
    post.ask(0, ends_at(post.now.wall_ms + 1_000), None).unwrap();
    let ends_ms = post.now.wall_ms + 60_000;
    post.ask(0, ends_at(ends_ms), Some(1)).unwrap();
    post.rest(1_500);
    let added = post.start(0, Level::Quorum, add("b"));
    post.bring(|letter| letter.from == 1 || letter.to == 1);
    post.letters_but(|_| false);
    assert_eq!(post.answer(added), Ok(Reply::Integer(1)));
    post.reads_everywhere(&Op::Deadline, &Reply::Deadline(Some(Some(ends_ms))));
    post.rest(60_000);
    post.reads_everywhere(&Op::SetMembers, &members(&[]));
}

/// It is put once more for the deadline, and again for a newer stamp, while others have gone on.
#[test]
fn a_value_put_twice_more_stands_where_it_was_put_last() {
    let mut post = Post::new();
    post.ask(2, set("v0"), None).unwrap();
    post.ask(1, ends_at(post.now.wall_ms + 1_000), Some(2)).unwrap();
    post.rest(2_100);
    // Its clock is ahead, and nobody hears of it.
    post.start(0, Level::Count(1), set("other"));
    post.letters.clear();
    post.now.wall_ms -= 100;
    let put = post.start(2, Level::Quorum, set("v2"));
    post.bring(|letter| letter.to == 1 && matches!(letter.message.body, Body::Replicate { .. }));
    // It is put once more, which comes to the other only.
    post.bring(|letter| letter.from == 1);
    post.bring(|letter| letter.to == 0);
    post.bring(|letter| letter.from == 0);
    let under_way = std::mem::take(&mut post.letters);
    let partition = post.view.partition_of(b"k");
    let mut names = (0..).map(|number| format!("o{number}"));
    let beside = names.find(|name| post.view.partition_of(name.as_bytes()) == partition).unwrap();
    post.rest(200);
    post.say(1, &beside, Level::Quorum, set("x"), None);
    post.letters_but(|letter| letter.to == 2);
    post.letters = under_way;
    post.letters_but(|_| false);
    assert_eq!(post.answer(put), Ok(Reply::Bool(true)));
    post.reads_everywhere(&Op::Get, &Reply::Value(Some("v2".into())));
}

#[test]
fn what_was_removed_in_the_meantime_is_not_put_again() {
    let mut post = Post::new();
    post.ask(0, add("a"), None).unwrap();
    let ends_ms = post.now.wall_ms + 1_000;
    post.start(0, Level::Count(1), ends_at(ends_ms));
    post.letters.clear();
    post.rest(2_000);
    let added = post.start(2, Level::All, add("b"));
    post.bring(|letter| letter.from == 1 || letter.to == 1);
    post.bring(|letter| letter.to == 0);
    let late = std::mem::take(&mut post.letters);
    let removed = post.start(1, Level::Quorum, Op::SetRemove { members: vec!["b".into()] });
    post.between(1, 2);
    assert_eq!(post.answer(removed), Ok(Reply::Integer(1)));
    post.letters = late;
    post.letters_but(|_| false);
    // An owner would not have it, and it is not there to be put elsewhere.
    assert!(post.answer(added).is_err());
    post.between(1, 2);
    assert_eq!(post.ask(1, Op::SetMembers, Some(0)), Ok(members(&["a"])));
}

#[test]
fn a_count_taken_away_in_the_meantime_is_not_taken_away_again() {
    let mut post = Post::new();
    for _ in 0..3 {
        post.ask(2, increment(), None).unwrap();
    }
    let ends_ms = post.now.wall_ms + 10_000;
    for op in [ends_at(ends_ms), Op::Delete] {
        post.start(0, Level::Count(1), op);
        post.letters.clear();
    }
    let added = post.start(2, Level::All, increment());
    post.bring(|letter| letter.from == 1 || letter.to == 1);
    post.bring(|letter| letter.to == 0);
    let late = std::mem::take(&mut post.letters);
    let deleted = post.start(1, Level::Quorum, Op::Delete);
    post.between(1, 2);
    assert_eq!(post.answer(deleted), Ok(Reply::Bool(true)));
    post.letters = late;
    post.letters_but(|_| false);
    assert_eq!(post.answer(added), Ok(Reply::Integer(4)));
    post.reads_everywhere(&Op::Get, &Reply::Value(None));
    post.rest(20_000);
    post.reads_everywhere(&Op::Get, &Reply::Value(None));
}

#[test]
fn another_try_is_not_answered_as_done_where_the_first_came_too_late() {
    // Whoever knew of the deadline, or whoever did not.
    for again_at in [1, 2] {
        let mut post = Post::new();
        post.ask(2, add("a"), None).unwrap();
        post.ask(1, ends_at(post.now.wall_ms + 1_000), Some(2)).unwrap();
        post.rest(2_000);
        let (_, op_id) = post.say(2, "k", Level::Quorum, add("b"), None);
        // All get it, and none hears of that.
        post.letters_but(|letter| letter.to == 2);
        post.letters.clear();
        post.rest(300);
        let (again, _) = post.say(again_at, "k", Level::Quorum, add("b"), Some(op_id));
        if again_at == 1 {
            post.between(1, 0);
            assert_eq!(post.answer(again), Ok(Reply::Integer(1)));
            post.reads_everywhere(&Op::SetMembers, &members(&["b"]));
        } else {
            for _ in 0..100 {
                post.letters_but(|_| false);
                post.rest(100);
                post.turn(2, None);
            }
            assert!(post.answer(again).is_err(), "it stands nowhere");
        }
    }
}

/// An operation is known by the last of its mutations: were that what takes the first of it away, it would count as never counted, and
/// once more when it is tried again.
#[test]
fn a_count_put_elsewhere_is_known_by_what_counts() {
    for before in [0, 2] {
        let mut post = Post::new();
        post.ask(0, increment(), None).unwrap();
        for _ in 0..before {
            post.ask(2, increment(), None).unwrap();
        }
        let ends_ms = post.now.wall_ms + 10_000;
        post.ask(0, ends_at(ends_ms), Some(2)).unwrap();
        post.ask(0, Op::Delete, Some(2)).unwrap();
        let (added, op_id) = post.say(2, "k", Level::Quorum, increment(), None);
        let is_count = |effect: &Effect| matches!(effect.put, Some(Put::Tally { .. }));
        let (mut seen, mut told) = (BTreeSet::new(), 0);
        while !post.letters.is_empty() {
            for letter in &post.letters {
                let Body::Replicate { delta, .. } = &letter.message.body else { continue };
                if let Some(last) =
                    delta.mutations.last().filter(|last| delta.op_id == Some(op_id) && seen.insert(last.dot))
                {
                    assert!(last.effects.iter().any(is_count), "{before} before: {last:?}");
                    told += 1;
                }
            }
            let Letter { from, to, message } = post.letters.remove(0);
            let from = post.owners[from];
            post.turn(to, Some(Input::Message { from, message }));
        }
        assert!(post.answer(added).is_ok());
        assert!(told >= 2, "{before} before: it was put in one place only");
        post.reads_everywhere(&Op::Get, &Reply::Value(Some("1".into())));
    }
}

fn is_write(letter: &Letter) -> bool {
    matches!(letter.message.body, Body::Replicate { .. })
}

/// A retry brings the rows of an operation one by one: were a dot in two of them, one would be taken for both.
#[test]
fn a_count_put_elsewhere_is_not_lost_when_an_earlier_one_is_tried_again() {
    let mut post = Post::new();
    let (first, x) = post.say(2, "k", Level::Quorum, increment(), None);
    post.letters_but(|_| false);
    assert!(post.answer(first).is_ok());
    post.ask(0, ends_at(post.now.wall_ms + 1_000), Some(2)).unwrap();
    post.rest(2_000);
    assert!(post.ask(0, increment(), Some(2)).is_ok());
    let added = post.start(2, Level::Quorum, increment());
    post.bring(|letter| letter.to == 0 && is_write(letter));
    post.bring(|letter| letter.to == 2);
    let round_two = std::mem::take(&mut post.letters);
    let (again, _) = post.say(2, "k", Level::Quorum, increment(), Some(x));
    post.letters_but(|_| false);
    assert!(post.answer(again).is_ok());
    post.letters = round_two;
    post.letters_but(|_| false);
    let told = post.answer(added);
    assert!(told.is_ok());
    for at in 0..3 {
        let one = post.start(at, Level::Count(1), Op::Get);
        assert_eq!(post.answer(one), Ok(Reply::Value(Some("2".into()))), "at {at} alone");
    }
    post.reads_everywhere(&Op::Get, &Reply::Value(Some("2".into())));
}

/// The lagging node adds, all get it and none hears of that; another try is told only what is so.
fn told_as_it_stands(post: &mut Post, again_at: usize) {
    let (_, op_id) = post.say(2, "k", Level::Quorum, add("b"), None);
    post.letters_but(|letter| letter.to == 2);
    post.letters.clear();
    post.rest(300);
    let (again, _) = post.say(again_at, "k", Level::Quorum, add("b"), Some(op_id));
    for _ in 0..100 {
        post.letters_but(|_| false);
        post.rest(100);
        post.turn(again_at, None);
    }
    if post.answer(again).is_ok() {
        post.reads_everywhere(&Op::SetMembers, &members(&["b"]));
    }
}

/// Where the deadline is known, what stands only in the life that has ended is not done.
#[test]
fn another_try_where_the_deadline_is_known_finds_the_first_and_is_done() {
    let mut post = Post::new();
    post.ask(2, add("a"), None).unwrap();
    post.ask(1, ends_at(post.now.wall_ms + 1_000), Some(2)).unwrap();
    post.rest(2_000);
    told_as_it_stands(&mut post, 1);
}

fn set_at(value: &str, at_ms: u64) -> Op {
    let value = Bytes::copy_from_slice(value.as_bytes());
    Op::Set { value, expiry: SetExpiry::At(at_ms), condition: Condition::Always, old: false }
}

/// A value may be born with a deadline that has no row of its own, and be given a sooner one.
#[test]
fn a_count_ends_with_the_value_whose_deadline_was_made_sooner() {
    let mut post = Post::new();
    post.ask(0, set_at("5", post.now.wall_ms + 60_000), None).unwrap();
    post.ask(0, ends_at(post.now.wall_ms + 1_000), Some(2)).unwrap();
    post.rest(2_000);
    post.ask(2, increment(), None).unwrap();
    post.reads_everywhere(&Op::Get, &Reply::Value(Some("1".into())));
}

/// What a life is begun with gives way to a deadline that it has been given since, however often it is sent.
#[test]
fn a_deadline_given_meanwhile_outlasts_the_beginning_of_a_life() {
    for before in [3, 0] {
        let mut post = Post::new();
        post.ask(0, increment(), None).unwrap();
        for _ in 0..before {
            post.ask(2, increment(), None).unwrap();
        }
        post.ask(0, ends_at(post.now.wall_ms + 1_000), Some(2)).unwrap();
        post.rest(2_000);
        let added = post.start(2, Level::Quorum, increment());
        post.bring(|letter| letter.to == 0 && is_write(letter));
        post.bring(|letter| letter.to == 2);
        // The first round to the other is lost, the second comes to one.
        let first = post.letters.iter().position(|letter| letter.to == 1).unwrap();
        post.letters.remove(first);
        post.bring(|letter| letter.to == 0 && is_write(letter));
        let ends_ms = post.now.wall_ms + 60_000;
        let expire = post.start(0, Level::Quorum, ends_at(ends_ms));
        post.bring(|letter| letter.from + letter.to == 1);
        // Its answer is slow.
        post.bring(|letter| letter.from == 2 && letter.to == 1);
        post.bring(|letter| letter.from == 1 && letter.to == 2);
        post.letters_but(|_| false);
        assert!(post.answer(added).is_ok() && post.answer(expire).is_ok());
        post.reads_everywhere(&Op::Get, &Reply::Value(Some("1".into())));
        post.reads_everywhere(&Op::Deadline, &Reply::Deadline(Some(Some(ends_ms))));
    }
}

/// What was put again where it belongs is found there.
#[test]
fn a_moved_count_is_found_done() {
    let mut post = Post::new();
    post.ask(2, increment(), None).unwrap();
    post.ask(0, ends_at(post.now.wall_ms + 1_000), Some(2)).unwrap();
    post.rest(2_000);
    let (_, y) = post.say(2, "k", Level::Quorum, increment(), None);
    post.bring(|letter| letter.to == 0 && is_write(letter));
    post.bring(|letter| letter.to == 2);
    post.letters.clear();
    post.rest(300);
    let (again, _) = post.say(2, "k", Level::Quorum, increment(), Some(y));
    for _ in 0..50 {
        post.letters_but(|_| false);
        post.rest(100);
        post.turn(2, None);
    }
    let told = post.answer(again);
    assert!(told.is_ok());
    post.reads_everywhere(&Op::Get, &Reply::Value(Some("1".into())));
}

#[test]
fn a_row_of_a_moved_count_that_comes_alone_hides_nothing() {
    let mut post = Post::new();
    let count = || Op::HashIncrement { field: "f".into(), by: Decimal::from_integer(1), integer: true };
    for _ in 0..2 {
        post.ask(2, count(), None).unwrap();
    }
    let ends_ms = post.now.wall_ms + 100_000;
    for op in [ends_at(ends_ms), Op::Delete] {
        post.ask(0, op, Some(2)).unwrap();
    }
    let added = post.start(2, Level::Quorum, count());
    post.bring(|letter| letter.to == 0 && is_write(letter));
    post.bring(|letter| letter.to == 2);
    let late: Vec<Letter> = {
        let all = std::mem::take(&mut post.letters);
        let (late, now): (Vec<_>, Vec<_>) = all.into_iter().partition(|letter| letter.to == 1);
        post.letters = now;
        late
    };
    post.letters_but(|_| false);
    assert!(post.answer(added).is_ok());
    // Its coordinator reads something else of the key.
    post.start(0, Level::All, Op::HashGet { fields: vec!["g".into()] });
    post.letters_but(|_| false);
    for _ in 0..60 {
        post.rest(100);
        post.turn(0, None);
        post.letters_but(|_| false);
    }
    post.letters = late;
    post.letters_but(|_| false);
    post.reads_everywhere(&Op::HashGet { fields: vec!["f".into()] }, &Reply::Values(vec![Some("1".into())]));
}

/// Nor in a later life than the first.
#[test]
fn another_try_of_what_came_too_late_in_a_later_life() {
    let mut post = Post::new();
    post.ask(2, add("a"), None).unwrap();
    post.ask(1, ends_at(post.now.wall_ms + 1_000), None).unwrap();
    post.rest(2_000);
    post.ask(2, add("a"), None).unwrap();
    post.ask(1, ends_at(post.now.wall_ms + 1_000), Some(2)).unwrap();
    post.rest(2_000);
    told_as_it_stands(&mut post, 2);
}

/// At a level of all, and one that missed both.
#[test]
fn persist_crosses_an_addition() {
    let mut post = Post::new();
    post.ask(0, add("a"), None).unwrap();
    post.ask(0, ends_at(post.now.wall_ms + 1_000), None).unwrap();
    let persist = Op::SetDeadline { at_ms: None, condition: DeadlineCondition::Always };
    post.ask(0, persist, Some(2)).unwrap();
    post.rest(2_000);
    post.ask(2, add("b"), None).unwrap();
    post.reads_everywhere(&Op::SetMembers, &members(&["a", "b"]));
    post.ask(0, ends_at(post.now.wall_ms + 1_000), None).unwrap();
    post.rest(2_000);
    post.reads_everywhere(&Op::SetMembers, &members(&[]));
}

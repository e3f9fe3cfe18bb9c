//! The commands of one connection that are under way: they overlap where their keys differ, keep their order where they share one,
//! and are answered in order. Sans-IO: work and answers are whatever the caller says.
//!
//! Two reads of one key may overlap (neither can change what the other sees); a write waits for every earlier command on its keys
//! and holds up every later one. Keys are known by hash: a collision costs a needless wait, never a wrong order.

use std::collections::{HashMap, VecDeque};

/// The keys of one command: hash, and whether it may write.
#[derive(Debug)]
pub enum Touched {
    One(u64, bool),
    Many(Vec<(u64, bool)>),
}

impl Touched {
    /// Each key once, as written when any mention writes.
    pub fn many(mut keys: Vec<(u64, bool)>) -> Self {
        keys.sort_unstable_by_key(|(hash, write)| (*hash, !*write));
        keys.dedup_by_key(|(hash, _)| *hash);
        Touched::Many(keys)
    }

    fn as_slice(&self) -> Keys<'_> {
        match self {
            Touched::One(hash, write) => Keys { one: Some((*hash, *write)), many: [].iter() },
            Touched::Many(keys) => Keys { one: None, many: keys.iter() },
        }
    }
}

struct Keys<'a> {
    one: Option<(u64, bool)>,
    many: std::slice::Iter<'a, (u64, bool)>,
}

impl Iterator for Keys<'_> {
    type Item = (u64, bool);

    fn next(&mut self) -> Option<(u64, bool)> {
        self.one.take().or_else(|| self.many.next().copied())
    }
}

/// Unfinished commands on one key: the last to write, and those that read since.
#[derive(Default)]
struct Holders {
    writer: Option<u64>,
    readers: Vec<u64>,
}

enum State<W, A> {
    /// Held up by so many earlier commands.
    Waiting(W, u32),
    Running,
    Answered(A),
}

struct Slot<W, A> {
    state: State<W, A>,
    touched: Touched,
    /// Later commands that wait for this one.
    dependents: Vec<u64>,
}

/// Commands in the order they came, from the first not yet answered.
pub struct Queue<W, A> {
    first: u64,
    slots: VecDeque<Slot<W, A>>,
    keys: HashMap<u64, Holders>,
    unfinished: usize,
}

impl<W, A> Default for Queue<W, A> {
    fn default() -> Self {
        Self { first: 0, slots: VecDeque::new(), keys: HashMap::new(), unfinished: 0 }
    }
}

impl<W, A> Queue<W, A> {
    /// Commands whose answers have not been taken.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Commands that have no answer yet.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// A command that has its answer already.
    pub fn push_answer(&mut self, answer: A) {
        self.slots.push_back(Slot {
            state: State::Answered(answer),
            touched: Touched::Many(Vec::new()),
            dependents: Vec::new(),
        });
    }

    /// A command with work to do. Returned with its ticket when it may start at once; else it comes out of a later
    /// [`Queue::finish`].
    pub fn push_work(&mut self, work: W, touched: Touched) -> Option<(u64, W)> {
        let ticket = self.first + self.slots.len() as u64;
        let mut blockers = 0;
        for (hash, write) in touched.as_slice() {
            let holders = self.keys.entry(hash).or_default();
            let earlier = holders.writer.iter().chain(if write { holders.readers.iter() } else { [].iter() });
            for blocker in earlier {
                let at = (blocker - self.first) as usize;
                self.slots[at].dependents.push(ticket);
                blockers += 1;
            }
            if write {
                holders.writer = Some(ticket);
                holders.readers.clear();
            } else {
                holders.readers.push(ticket);
            }
        }
        self.unfinished += 1;
        let (state, start) = match blockers {
            0 => (State::Running, Some((ticket, work))),
            blockers => (State::Waiting(work, blockers), None),
        };
        self.slots.push_back(Slot { state, touched, dependents: Vec::new() });
        start
    }

    /// Takes note of the answer of `ticket`; the commands that only waited for it are handed to `start`.
    pub fn finish(&mut self, ticket: u64, answer: A, mut start: impl FnMut(u64, W)) {
        let at = (ticket - self.first) as usize;
        let slot = &mut self.slots[at];
        slot.state = State::Answered(answer);
        let dependents = std::mem::take(&mut slot.dependents);
        let touched = std::mem::replace(&mut slot.touched, Touched::Many(Vec::new()));
        self.unfinished -= 1;
        for (hash, _) in touched.as_slice() {
            if let Some(holders) = self.keys.get_mut(&hash) {
                if holders.writer == Some(ticket) {
                    holders.writer = None;
                }
                holders.readers.retain(|reader| *reader != ticket);
                if holders.writer.is_none() && holders.readers.is_empty() {
                    self.keys.remove(&hash);
                }
            }
        }
        for dependent in dependents {
            let slot = &mut self.slots[(dependent - self.first) as usize];
            match std::mem::replace(&mut slot.state, State::Running) {
                State::Waiting(work, 1) => start(dependent, work),
                State::Waiting(work, blockers) => slot.state = State::Waiting(work, blockers - 1),
                other => slot.state = other,
            }
        }
    }

    /// The answer of the first command, once it is there.
    pub fn pop(&mut self) -> Option<A> {
        if !matches!(self.slots.front()?.state, State::Answered(_)) {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.first += 1;
        if self.slots.is_empty() && self.slots.capacity() > 64 {
            // An idle connection keeps little.
            self.slots = VecDeque::new();
            self.keys = HashMap::new();
        }
        match slot.state {
            State::Answered(answer) => Some(answer),
            State::Waiting(..) | State::Running => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue<char, char>, name: char, keys: &[(u64, bool)]) -> Option<u64> {
        queue.push_work(name, Touched::many(keys.to_vec())).map(|(ticket, _)| ticket)
    }

    fn finish(queue: &mut Queue<char, char>, ticket: u64, answer: char) -> Vec<(u64, char)> {
        let mut started = Vec::new();
        queue.finish(ticket, answer, |ticket, work| started.push((ticket, work)));
        started
    }

    #[test]
    fn different_keys_overlap_and_answers_keep_their_order() {
        let mut queue = Queue::default();
        assert_eq!(push(&mut queue, 'a', &[(1, true)]), Some(0));
        assert_eq!(push(&mut queue, 'b', &[(2, true)]), Some(1));
        queue.push_answer('c');
        assert!(finish(&mut queue, 1, 'b').is_empty());
        assert_eq!(queue.pop(), None);
        assert!(finish(&mut queue, 0, 'a').is_empty());
        assert_eq!([queue.pop(), queue.pop(), queue.pop(), queue.pop()], [Some('a'), Some('b'), Some('c'), None]);
        assert!(queue.keys.is_empty());
    }

    #[test]
    fn one_key_keeps_the_order_of_its_writes_and_reads_overlap() {
        let mut queue = Queue::default();
        assert_eq!(push(&mut queue, 'w', &[(1, true)]), Some(0));
        assert_eq!(push(&mut queue, 'r', &[(1, false)]), None);
        assert_eq!(push(&mut queue, 's', &[(1, false)]), None);
        assert_eq!(push(&mut queue, 'x', &[(1, true)]), None);
        assert_eq!(push(&mut queue, 't', &[(1, false)]), None);
        assert_eq!(finish(&mut queue, 0, 'w'), vec![(1, 'r'), (2, 's')]);
        assert!(finish(&mut queue, 2, 's').is_empty());
        assert_eq!(finish(&mut queue, 1, 'r'), vec![(3, 'x')]);
        assert_eq!(finish(&mut queue, 3, 'x'), vec![(4, 't')]);
        finish(&mut queue, 4, 't');
        assert!(queue.keys.is_empty());
        assert_eq!(queue.unfinished(), 0);
    }

    #[test]
    fn a_command_on_many_keys_waits_for_all_of_them() {
        let mut queue = Queue::default();
        push(&mut queue, 'a', &[(1, true)]);
        push(&mut queue, 'b', &[(2, true)]);
        assert_eq!(push(&mut queue, 'm', &[(1, false), (2, true), (2, false), (3, true)]), None);
        assert_eq!(push(&mut queue, 'c', &[(3, false)]), None);
        assert_eq!(push(&mut queue, 'd', &[(1, false)]), None, "a's write is still under way");
        assert_eq!(finish(&mut queue, 0, 'a'), vec![(4, 'd')]);
        assert_eq!(finish(&mut queue, 1, 'b'), vec![(2, 'm')]);
        assert_eq!(finish(&mut queue, 2, 'm'), vec![(3, 'c')]);
    }

    proptest::proptest! {
        /// Whatever finishes first: conflicting commands never run at once, start in order, and everything ends.
        #[test]
        fn conflicting_commands_never_overlap(
            commands in proptest::collection::vec(proptest::collection::vec((0_u64..4, proptest::bool::ANY), 0..3), 1..40),
            choices in proptest::collection::vec(0_usize..1000, 40),
        ) {
            let mut queue: Queue<u64, u64> = Queue::default();
            let conflict = |a: usize, b: usize| {
                commands[a].iter().any(|(key, write)| commands[b].iter().any(|(other, also)| key == other && (*write || *also)))
            };
            let mut running: Vec<u64> = Vec::new();
            let mut finished: Vec<u64> = Vec::new();
            for (at, keys) in commands.iter().enumerate() {
                running.extend(queue.push_work(at as u64, Touched::many(keys.clone())).map(|(ticket, _)| ticket));
            }
            let mut choices = choices.into_iter();
            while !running.is_empty() {
                for a in &running {
                    for b in 0..*a {
                        if conflict(*a as usize, b as usize) {
                            assert!(finished.contains(&b), "{a} started before {b} was done");
                        }
                    }
                }
                let pick = choices.next().unwrap_or(0) % running.len();
                let ticket = running.swap_remove(pick);
                finished.push(ticket);
                queue.finish(ticket, ticket, |ticket, _| running.push(ticket));
            }
            for at in 0..commands.len() as u64 {
                assert_eq!(queue.pop(), Some(at));
            }
            assert!(queue.keys.is_empty() && queue.is_empty());
        }
    }
}

//! When may what nobody needs any more be dropped? The floor and the cut, asked for one partition at a time.
//!
//! A delete row, a closed life, a forgotten operation id may go when no mutation can come any more that it would have to hold off.
//! That is asked, not assumed, in five steps, by each owner for itself:
//!
//! 1. **Floor.** Every member promises a time below which it mints nothing more in this partition, and only while it keeps no hint
//!    there. The least of them is the floor: whatever is stamped below it exists by now.
//! 2. **Settling.** What was under way at that moment arrives, or its request has ended.
//! 3. **Hints.** Every member says again that it keeps none: what arrived late as a hint has been handed over.
//! 4. **Seen.** Every owner says what it has seen. The join of all is the cut: each mutation below the floor is in it.
//! 5. **Reached.** Every owner says that it has seen all of the cut, and this one must have seen whatever they had by then: what they
//!    minted before they knew of the removal.
//!
//! A member that is away or keeps hints holds the floor for all: `status` names it, and beyond the horizon it is fenced and left out
//! (`node::fence`). (Causal stability: Baquero, Almeida, Shoker,
//! "Making operation-based CRDTs operation-based", 2014; the floor is the same for what is ordered by stamps instead of dots.)
//!
//! This machine decides whom to ask what; the shard sends and answers, `replica::collect` drops.

use std::collections::{BTreeMap, BTreeSet};

use crate::data::clock::Hlc;
use crate::data::context::Context;
use crate::data::id::{NodeId, Partition};
use crate::node::planted::Planted;
use crate::wire::message::{Answer, Fence, Question, Ticket};

/// An answer that has not come for this long is asked for again.
const AGAIN_US: u64 = 3_000_000;
/// Whoever cannot answer as it must is asked again after this.
const HOLDING_AGAIN_US: u64 = 900_000;
/// A cut that is not reached for this long is asked for anew: what was in it may have been lost with a disk.
const REACHED_MAX_US: u64 = 30_000_000;

/// What the answers came to.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    /// Nothing stamped below it will come that has not been seen.
    pub floor: Hlc,
    /// This node's time when the asking began.
    pub began: Hlc,
    /// What every owner has seen.
    pub target: Context,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Whoever is to be left out must be away for all others too, before anybody fences it.
    Away,
    Floor,
    Settling,
    Hints,
    Seen,
    Reached,
    Done,
}

struct Ask {
    number: Ticket,
    step: Step,
    since_us: u64,
    /// Members that are fenced, and not asked.
    without: Vec<Fence>,
    /// Who has not answered as it must.
    waiting: BTreeSet<NodeId>,
    /// Those that said what keeps them from it.
    holding: BTreeSet<NodeId>,
    /// Not to be asked again before this.
    again_us: BTreeMap<NodeId, u64>,
    settled_us: u64,
    /// When the cut was known.
    cut_us: u64,
    cut: Cut,
    reached: Context,
}

impl Ask {
    fn start_over(&mut self, members: &[NodeId]) {
        self.step = if self.without.is_empty() { Step::Floor } else { Step::Away };
        self.cut = Cut { floor: Hlc(u64::MAX), began: self.cut.began, target: Context::default() };
        self.reached = Context::default();
        self.waiting = members.iter().copied().filter(|node| !is_among(&self.without, *node)).collect();
        self.holding.clear();
        self.again_us.clear();
    }
}

fn is_among(fences: &[Fence], node: NodeId) -> bool {
    fences.iter().any(|fence| fence.node == node)
}

/// Why nothing is dropped in a partition yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub partition: Partition,
    /// Microseconds since it was first asked.
    pub for_us: u64,
    pub by: Vec<NodeId>,
    /// They keep hints, or lag; otherwise they have not answered.
    pub told: bool,
}

pub struct Floors {
    asks: BTreeMap<Partition, Ask>,
    rest_until_us: BTreeMap<Partition, u64>,
    /// From the floor until nothing older can be under way.
    settle_us: u64,
    /// Between two askings of one partition.
    rest_us: u64,
    /// See [`Planted`].
    pub planted: Planted,
}

impl Floors {
    pub fn new(settle_us: u64, rest_us: u64) -> Self {
        Self { asks: BTreeMap::new(), rest_until_us: BTreeMap::new(), settle_us, rest_us, planted: Planted::None }
    }

    /// May this partition be asked for now?
    pub fn may_begin(&self, partition: Partition, now_us: u64) -> bool {
        !self.asks.contains_key(&partition)
            && self.rest_until_us.get(&partition).is_none_or(|until_us| *until_us <= now_us)
    }

    /// Begins to ask these members. `began`: this node's time.
    pub fn begin(
        &mut self,
        partition: Partition,
        number: Ticket,
        began: Hlc,
        now_us: u64,
        members: impl Iterator<Item = NodeId>,
        without: Vec<Fence>,
    ) {
        let cut = Cut { floor: Hlc(u64::MAX), began, target: Context::default() };
        let ask = Ask {
            number,
            step: if without.is_empty() { Step::Floor } else { Step::Away },
            since_us: now_us,
            waiting: members.filter(|node| !is_among(&without, *node)).collect(),
            without,
            holding: BTreeSet::new(),
            again_us: BTreeMap::new(),
            settled_us: 0,
            cut_us: 0,
            cut,
            reached: Context::default(),
        };
        self.asks.insert(partition, ask);
    }

    /// Takes an answer. One to an earlier asking, or to another question, is none.
    pub fn take(&mut self, now_us: u64, from: NodeId, partition: Partition, number: Ticket, answer: Answer) {
        let Some(ask) = self.asks.get_mut(&partition).filter(|ask| ask.number == number) else { return };
        if !ask.waiting.contains(&from) {
            return;
        }
        let met = match (ask.step, answer) {
            (Step::Floor, Answer::Floor(Some(floor))) => {
                let fastest = self.planted == Planted::FloorOfTheFastest && ask.cut.floor != Hlc(u64::MAX);
                ask.cut.floor = if fastest { ask.cut.floor.max(floor) } else { ask.cut.floor.min(floor) };
                true
            }
            (Step::Away, Answer::Away(away)) => away,
            (Step::Hints, Answer::Hints(keeps)) => !keeps,
            (Step::Seen, Answer::Seen(seen)) => {
                ask.cut.target.join(&seen);
                true
            }
            (Step::Reached, Answer::Seen(seen)) => {
                let met = seen.covers(&ask.cut.target) || self.planted == Planted::OwnersNotAsked;
                if met {
                    ask.reached.join(&seen);
                }
                met
            }
            (Step::Floor, Answer::Floor(None)) => false,
            _ => return,
        };
        if met {
            ask.waiting.remove(&from);
            ask.holding.remove(&from);
        } else {
            ask.holding.insert(from);
            ask.again_us.insert(from, now_us + HOLDING_AGAIN_US);
        }
    }

    /// What is to be asked now, and of whom: this node itself too.
    pub fn poll(
        &mut self,
        now_us: u64,
        members: &[NodeId],
        owners: impl Fn(Partition) -> Vec<NodeId>,
        is_up: impl Fn(NodeId) -> bool,
    ) -> Vec<(Partition, NodeId, Ticket, Question)> {
        let mut questions = Vec::new();
        for (partition, ask) in &mut self.asks {
            if matches!(ask.step, Step::Reached | Step::Done) && ask.cut_us + REACHED_MAX_US <= now_us {
                ask.start_over(members);
            }
            if ask.waiting.is_empty() {
                let next: Vec<NodeId> = match ask.step {
                    Step::Away => {
                        ask.step = Step::Floor;
                        members.to_vec()
                    }
                    Step::Floor => {
                        ask.step = Step::Settling;
                        ask.settled_us = now_us + self.settle_us;
                        Vec::new()
                    }
                    Step::Settling if ask.settled_us <= now_us => {
                        ask.step = Step::Hints;
                        members.to_vec()
                    }
                    Step::Hints => {
                        ask.step = Step::Seen;
                        owners(*partition)
                    }
                    Step::Seen => {
                        ask.step = Step::Reached;
                        ask.cut_us = now_us;
                        owners(*partition)
                    }
                    Step::Reached => {
                        ask.step = Step::Done;
                        Vec::new()
                    }
                    Step::Settling | Step::Done => Vec::new(),
                };
                let without = &ask.without;
                ask.waiting.extend(next.into_iter().filter(|node| !is_among(without, *node)));
                ask.again_us.clear();
            }
            let question = match ask.step {
                Step::Away => Question::Away { members: ask.without.clone() },
                Step::Floor => Question::Floor { without: ask.without.clone() },
                Step::Hints => Question::Hints,
                Step::Seen | Step::Reached => Question::Seen,
                Step::Settling | Step::Done => continue,
            };
            for node in ask.waiting.iter().filter(|node| is_up(**node)) {
                if ask.again_us.get(node).is_none_or(|again_us| *again_us <= now_us) {
                    ask.again_us.insert(*node, now_us + AGAIN_US);
                    questions.push((*partition, *node, ask.number, question.clone()));
                }
            }
        }
        questions
    }

    /// These are fenced, or are to be: whoever waits for one of them asks anew, without it. And with it, if it is back.
    pub fn leave_out(&mut self, without: &[Fence], members: &[NodeId]) {
        for ask in self.asks.values_mut() {
            let back = ask.without.iter().any(|fence| !without.contains(fence));
            let waits = without.iter().any(|fence| ask.waiting.contains(&fence.node) && !ask.without.contains(fence));
            if back || waits {
                ask.without = without.to_vec();
                ask.start_over(members);
            }
        }
    }

    /// A partition in which everything below the cut may go, now that this node has seen what the owners had. It is not asked for
    /// again before it has rested.
    pub fn next_cut<'a>(
        &mut self,
        now_us: u64,
        mine: impl Fn(Partition) -> Option<&'a Context>,
    ) -> Option<(Partition, Cut)> {
        let done = |(partition, ask): (&Partition, &Ask)| {
            (ask.step == Step::Done && mine(*partition).is_some_and(|mine| mine.covers(&ask.reached)))
                .then_some(*partition)
        };
        let partition = self.asks.iter().find_map(done)?;
        let ask = self.asks.remove(&partition).expect("found just above");
        self.rest_until_us.insert(partition, now_us + self.rest_us);
        Some((partition, ask.cut))
    }

    /// Who holds the floor of a partition.
    pub fn held(&self, partition: Partition, now_us: u64) -> Option<Held> {
        let ask = self.asks.get(&partition)?;
        let told = !ask.holding.is_empty();
        let by = if told { &ask.holding } else { &ask.waiting };
        Some(Held { partition, for_us: now_us.saturating_sub(ask.since_us), by: by.iter().copied().collect(), told })
    }

    /// The partition that has been asked for longest.
    pub fn oldest(&self, now_us: u64) -> Option<Held> {
        let (partition, _) = self.asks.iter().min_by_key(|(_, ask)| ask.since_us)?;
        self.held(*partition, now_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::id::{Dot, Incarnation};

    const P: Partition = Partition(3);
    const SETTLE_US: u64 = 10_000_000;
    /// When answers come.
    const AT_US: u64 = 2 * AGAIN_US;

    fn seen(upto: u64) -> Context {
        (1..=upto).map(|counter| Dot { incarnation: Incarnation(1), counter }).collect()
    }

    fn asked(floors: &mut Floors, now_us: u64) -> Vec<(NodeId, Question)> {
        let members = [NodeId(1), NodeId(2), NodeId(3)];
        let questions = floors.poll(now_us, &members, |_| vec![NodeId(1), NodeId(2)], |_| true);
        questions.into_iter().map(|(_, node, _, question)| (node, question)).collect()
    }

    #[test]
    fn everybody_is_asked_and_nothing_goes_before_all_have_answered() {
        let mut floors = Floors::new(SETTLE_US, 1);
        floors.begin(P, 7, Hlc(5), 0, [NodeId(1), NodeId(2), NodeId(3)].into_iter(), Vec::new());
        assert_eq!(asked(&mut floors, 0).len(), 3);
        assert!(asked(&mut floors, 1).is_empty(), "it has just been asked");
        assert_eq!(asked(&mut floors, AGAIN_US).len(), 3, "no answer came");
        floors.take(AT_US, NodeId(1), P, 7, Answer::Floor(Some(Hlc(90))));
        floors.take(AT_US, NodeId(2), P, 7, Answer::Floor(Some(Hlc(80))));
        floors.take(AT_US, NodeId(3), P, 7, Answer::Floor(None));
        floors.take(AT_US, NodeId(3), P, 6, Answer::Floor(Some(Hlc(70))));
        assert_eq!(floors.oldest(9).map(|held| (held.by, held.told)), Some((vec![NodeId(3)], true)));
        assert!(asked(&mut floors, AT_US).is_empty(), "it has just said no");
        assert_eq!(
            asked(&mut floors, AT_US + HOLDING_AGAIN_US),
            [(NodeId(3), Question::Floor { without: Vec::new() })]
        );
        floors.take(AT_US, NodeId(3), P, 7, Answer::Floor(Some(Hlc(85))));
        let begun_us = AT_US + HOLDING_AGAIN_US;
        assert!(asked(&mut floors, begun_us).is_empty(), "it settles");
        assert!(asked(&mut floors, begun_us + SETTLE_US - 1).is_empty());
        assert_eq!(asked(&mut floors, begun_us + SETTLE_US).len(), 3);
        for node in [1, 2, 3] {
            floors.take(AT_US, NodeId(node), P, 7, Answer::Hints(false));
        }
        let now_us = begun_us + SETTLE_US + 1;
        assert_eq!(asked(&mut floors, now_us), [(NodeId(1), Question::Seen), (NodeId(2), Question::Seen)]);
        floors.take(AT_US, NodeId(1), P, 7, Answer::Seen(seen(4)));
        floors.take(AT_US, NodeId(2), P, 7, Answer::Seen(seen(6)));
        assert_eq!(asked(&mut floors, now_us).len(), 2);
        floors.take(AT_US, NodeId(1), P, 7, Answer::Seen(seen(4)));
        floors.take(AT_US, NodeId(2), P, 7, Answer::Seen(seen(9)));
        assert_eq!(
            asked(&mut floors, now_us + HOLDING_AGAIN_US),
            [(NodeId(1), Question::Seen)],
            "it lags behind the cut"
        );
        floors.take(AT_US, NodeId(1), P, 7, Answer::Seen(seen(6)));
        assert!(asked(&mut floors, now_us).is_empty());
        let (short, enough) = (seen(8), seen(9));
        assert!(floors.next_cut(now_us, |_| Some(&short)).is_none(), "what the others had by then is still to come");
        let (partition, cut) = floors.next_cut(now_us, |_| Some(&enough)).expect("all is met");
        assert_eq!((partition, cut.floor, cut.began, cut.target), (P, Hlc(80), Hlc(5), seen(6)));
        assert!(!floors.may_begin(P, now_us) && floors.may_begin(P, now_us + 1));
    }

    #[test]
    fn a_cut_that_cannot_be_reached_is_asked_for_anew() {
        let mut floors = Floors::new(0, 1);
        floors.begin(P, 7, Hlc(5), 0, [NodeId(1), NodeId(2), NodeId(3)].into_iter(), Vec::new());
        asked(&mut floors, 0);
        for node in [1, 2, 3] {
            floors.take(AT_US, NodeId(node), P, 7, Answer::Floor(Some(Hlc(9))));
        }
        asked(&mut floors, AT_US);
        asked(&mut floors, AT_US);
        for node in [1, 2, 3] {
            floors.take(AT_US, NodeId(node), P, 7, Answer::Hints(false));
        }
        asked(&mut floors, AT_US);
        for node in [1, 2] {
            floors.take(AT_US, NodeId(node), P, 7, Answer::Seen(seen(4)));
        }
        assert_eq!(asked(&mut floors, AT_US).len(), 2);
        for node in [1, 2] {
            // The disk that had the fourth has been lost.
            floors.take(AT_US, NodeId(node), P, 7, Answer::Seen(seen(3)));
        }
        assert_eq!(asked(&mut floors, AT_US + REACHED_MAX_US).len(), 3, "the floor again");
        floors.take(AT_US, NodeId(1), P, 7, Answer::Seen(seen(4)));
        assert_eq!(floors.oldest(AT_US).expect("asked for").by.len(), 3, "an answer to an earlier question is none");
    }

    #[test]
    fn a_hint_that_came_late_holds_it_too() {
        let mut floors = Floors::new(0, 1);
        floors.begin(P, 7, Hlc(5), 0, [NodeId(1), NodeId(2), NodeId(3)].into_iter(), Vec::new());
        asked(&mut floors, 0);
        for node in [1, 2, 3] {
            floors.take(AT_US, NodeId(node), P, 7, Answer::Floor(Some(Hlc(9))));
        }
        asked(&mut floors, 1);
        asked(&mut floors, 2);
        floors.take(AT_US, NodeId(1), P, 7, Answer::Hints(true));
        floors.take(AT_US, NodeId(2), P, 7, Answer::Hints(false));
        floors.take(AT_US, NodeId(3), P, 7, Answer::Hints(false));
        assert_eq!(asked(&mut floors, AT_US + HOLDING_AGAIN_US), [(NodeId(1), Question::Hints)]);
        floors.take(AT_US, NodeId(1), P, 7, Answer::Hints(false));
        assert_eq!(asked(&mut floors, AT_US + HOLDING_AGAIN_US).len(), 2);
    }
}

//! What each kind of fault does.

use super::events::Event;
use super::{HOUR_MS, World};
use crate::node::turn::Input;
use crate::sim::disk::Broken;
use crate::sim::plan::{Fault, Kind, Weather};
use crate::storage::Storage;

impl World {
    pub(super) fn inflict(&mut self, fault: &Fault) {
        let Fault { kind, node, other, for_us, draw, .. } = *fault;
        self.trace.mark(&[self.now_us, 5, kind as u64, node as u64]);
        self.trace.line(|| format!("{:>10} FAULT {fault:?}", self.now_us));
        let count = self.nodes.len();
        let down_us = for_us / 2;
        match kind {
            Kind::Kill => self.kill(node, false, down_us),
            Kind::PowerCut => self.kill(node, true, down_us),
            Kind::CrashLoop => {
                let (down_us, up_us) = (1_000 + draw % 10_000, 2_000 + (draw >> 16) % 40_000);
                for crash in 0..3 + (draw >> 32) % 6 {
                    self.after(crash * (down_us + up_us), Event::Crash { node, down_us });
                }
            }
            Kind::Blackout => {
                for at in 0..count {
                    self.kill(at, true, down_us / 4 + at as u64 * 10_000);
                }
            }
            Kind::Restart => {
                if self.nodes[node].shard.is_some() {
                    self.stop(node);
                    // A node whose store has failed leaves no mark of a clean end.
                    if self.nodes[node].disk.sync().is_ok() {
                        self.ghost.synced(node);
                        self.nodes[node].clean = true;
                    }
                    self.after(down_us, Event::Start { node });
                }
            }
            Kind::Wipe => {
                // Within the budget: everybody else is there.
                if self.nodes.iter().all(|node| node.shard.is_some()) {
                    self.kill(node, false, down_us);
                    self.wipe(node);
                }
            }
            Kind::Pause => {
                if self.nodes[node].shard.is_some() {
                    let until = self.now_us + for_us;
                    let held = &mut self.nodes[node];
                    held.paused_until = held.paused_until.max(until);
                    for due in held.door.values_mut() {
                        *due += for_us;
                    }
                    let process = held.process;
                    self.after(for_us, Event::Resume { node, process });
                    self.tell_about(node);
                    for at in 0..count {
                        self.after(for_us + 100_000, Event::Notice { at, of: node, forced: None });
                    }
                }
            }
            Kind::Slow => self.nodes[node].slow_until = self.now_us + for_us,
            Kind::Cut => self.cut(node, other, for_us, true),
            Kind::CutOneWay => self.cut(node, other, for_us, false),
            Kind::Isolate => {
                for other in 0..count {
                    self.cut(node, other, for_us, true);
                }
            }
            Kind::Split => {
                for one in 0..count {
                    for two in one + 1..count {
                        if (draw >> one) & 1 != (draw >> two) & 1 {
                            self.cut(one, two, for_us, true);
                        }
                    }
                }
            }
            Kind::Suspect => {
                self.after(0, Event::Notice { at: node, of: other, forced: Some(draw % 4 == 0) });
                self.after(for_us, Event::Notice { at: node, of: other, forced: None });
            }
            Kind::ClockStep => {
                let step = (draw % (2 * self.plan.skew_ms + 1)) as i64 - self.plan.skew_ms as i64;
                self.nodes[node].skew_ms = step;
            }
            Kind::DiskError | Kind::ReadError => {
                let reads = kind == Kind::ReadError;
                self.nodes[node].disk.set_broken(if reads { Broken::Reads } else { Broken::Everything });
                self.after(for_us, Event::Mend { node, down_us });
            }
            Kind::FullDisk => self.nodes[node].low_until = self.now_us + for_us,
            Kind::OldDisk => {
                self.nodes[node].disk.back_up();
                self.after(for_us, Event::Restore { node, down_us: down_us.min(1_000_000) });
            }
            Kind::ClockLeap => {
                let skew_ms = self.nodes[node].skew_ms;
                self.nodes[node].skew_ms = if draw % 2 == 0 { HOUR_MS } else { -HOUR_MS };
                self.after(for_us, Event::SetClock { node, skew_ms });
            }
            Kind::Weather => {
                self.weather = if draw % 2 == 0 { self.plan.weather } else { Weather::FAIR };
            }
            Kind::LinkReset => {
                let (one, two) = (self.nodes[node].id, self.nodes[other].id);
                for (to, of) in [(node, two), (other, one)] {
                    if node != other {
                        let process = self.nodes[to].process;
                        self.after(1, Event::Input { to, process, input: Input::LinkDown(of) });
                    }
                }
            }
        }
        self.count(&format!("fault_{}", kind.name()), 1);
    }

    pub(super) fn cut(&mut self, one: usize, two: usize, for_us: u64, both: bool) {
        if one == two {
            return;
        }
        let until = self.now_us + for_us;
        self.cut[one][two] = self.cut[one][two].max(until);
        if both {
            self.cut[two][one] = self.cut[two][one].max(until);
        }
        for (at, of) in [(one, two), (two, one)] {
            // Membership may or may not find out: others may vouch for the one that is cut off.
            if self.chaos.chance(500_000) {
                let wait = self.chaos.between(100_000, 2_000_000);
                self.after(wait, Event::Notice { at, of, forced: None });
            }
        }
        self.after(for_us + 1, Event::Reopen { from: one, to: two });
    }
}

//! Messages under way, and who believes whom to be up.

use super::World;
use super::events::Event;
use crate::node::turn::Input;
use crate::wire::message::{PeerMessage, Refusal};

impl World {
    pub(super) fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        if from == to {
            self.violate("network", format!("node {from} sends to itself: {message:?}"));
            return;
        }
        self.judge_sent(from, &message);
        if self.cut[from][to] > self.now_us {
            self.count("sim_messages_cut", 1);
            return;
        }
        let weather = self.weather;
        if self.net.chance(weather.loss_ppm) {
            self.count("sim_messages_lost", 1);
            return;
        }
        if weather.full_ppm > 0 && self.net.chance(weather.full_ppm) {
            self.count("sim_messages_not_taken", 1);
            let refusal = Refusal::Busy { cause: "the queue is full".to_string() };
            if let Some(message) = message.refused(&format!("n{to}"), refusal) {
                let of = self.nodes[to].id;
                self.push_input(from, Input::Message { from: of, message });
            }
            return;
        }
        let (process, store) = (self.nodes[to].process, self.nodes[from].store);
        if self.net.chance(weather.double_ppm) {
            self.count("sim_messages_doubled", 1);
            let wait = self.delay() + self.net.below(2_000_000);
            self.after(wait, Event::Deliver { to, process, from, store, message: message.clone() });
        }
        let wait = self.delay();
        self.after(wait, Event::Deliver { to, process, from, store, message });
    }

    pub(super) fn delay(&mut self) -> u64 {
        let weather = self.weather;
        let tail = if self.net.chance(weather.tail_ppm) { self.net.below(weather.tail_us) } else { 0 };
        self.net.between(weather.delay_min_us, weather.delay_max_us) + tail
    }

    pub(super) fn is_reachable(&self, at: usize, of: usize) -> bool {
        let other = &self.nodes[of];
        let passes = self.cut[at][of] <= self.now_us && self.cut[of][at] <= self.now_us;
        other.shard.is_some() && other.paused_until <= self.now_us && passes
    }

    /// Everybody learns, sooner or later, that something about a node has changed.
    pub(super) fn tell_about(&mut self, of: usize) {
        for at in (0..self.nodes.len()).filter(|at| *at != of) {
            let wait = self.chaos.between(10_000, 2_000_000);
            self.after(wait, Event::Notice { at, of, forced: None });
        }
    }

    pub(super) fn notice(&mut self, at: usize, of: usize, forced: Option<bool>) {
        let up = forced.unwrap_or_else(|| self.is_reachable(at, of));
        let store = if up { self.nodes[of].store } else { self.nodes[at].stores[of] };
        let known = self.nodes[at].up[of] == up && self.nodes[at].stores[of] == store;
        if at == of || self.nodes[at].shard.is_none() || known {
            return;
        }
        self.nodes[at].up[of] = up;
        self.nodes[at].stores[of] = store;
        self.trace.line(|| format!("{:>10} {at} believes {of} is {}", self.now_us, if up { "up" } else { "down" }));
        let view = self.view_of(at);
        self.push_input(at, Input::View(view));
        if up && self.chaos.chance(500_000) {
            let process = self.nodes[at].process;
            let wait = self.chaos.below(500_000);
            self.after(wait, Event::Input { to: at, process, input: Input::LinkUp(self.nodes[of].id) });
        }
    }
}

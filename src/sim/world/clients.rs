//! Clients: one call at a time each, tried again at other nodes, and remembered with how it ended.

use super::events::Event;
use super::{SLACK_US, TRIES_MAX, WALL_START_MS, World};
use crate::data::id::OpId;
use crate::data::op::{Op, Outcome, Request, RequestError, Response};
use crate::node::turn::Input;
use crate::sim::history::{Call, End};
use crate::sim::load;

impl World {
    pub(super) fn begin_call(&mut self, client: usize) {
        if self.healed || self.now_us >= self.plan.hurt_us {
            return;
        }
        let number = self.history.calls.len();
        let wall_ms = WALL_START_MS + self.now_us / 1_000;
        let (key, op, read) =
            load::draw(&mut self.load, self.plan.kinds, self.plan.keys, number, wall_ms, &self.clients[client].read);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.load.draw().to_be_bytes());
        random[8..].copy_from_slice(&(number as u16).to_be_bytes());
        let request = Request {
            key,
            op,
            consistency: load::consistency(&mut self.load, self.plan.replicas),
            timeout_us: *self.load.pick(&[100_000, 500_000, 2_000_000]),
            op_id: Some(OpId::new(wall_ms, random)),
            fresh: true,
            // What the log alone remembers is for retries that come before it is dropped.
            remember: self.load.chance(800_000) || self.plan.log_keep_us < 10_000_000,
        };
        self.history.calls.push(Call {
            client,
            request,
            begun_us: self.now_us,
            ended_us: u64::MAX,
            end: End::Open,
            tries: 0,
            maybe: false,
            reply: None,
            receipt: None,
            read,
        });
        self.clients[client].call = Some(number);
        self.send_try(number);
    }

    pub(super) fn send_try(&mut self, call: usize) {
        let node = self.load.below(self.nodes.len() as u64) as usize;
        let held = &mut self.history.calls[call];
        held.tries += 1;
        let tries = held.tries;
        if self.nodes[node].shard.is_none() {
            // Refused at once: it was never sent.
            return self.try_again(call);
        }
        let mut request = held.request.clone();
        // What was sent before may have happened.
        held.request.fresh = false;
        request.timeout_us = held.request.timeout_us;
        let ticket = ((call as u64) << 8) | u64::from(tries);
        let wait = self.net.between(50, 500);
        let timeout_us = request.timeout_us;
        self.trace.line(|| format!("{:>10} call {call} try {tries} to {node} {request:?}", self.now_us));
        let process = self.nodes[node].process;
        let at_us = self.nodes[node].paused_until.max(self.now_us + wait);
        let slow_us = if self.nodes[node].slow_until > self.now_us { 100_000 } else { 0 };
        self.nodes[node].door.insert(ticket, at_us + timeout_us + SLACK_US + slow_us);
        self.after(wait, Event::Input { to: node, process, input: Input::Request { ticket, request } });
        self.after(timeout_us + 100_000, Event::GiveUp { ticket });
    }

    /// The call that waits for just this ticket.
    pub(super) fn waiting_for(&self, ticket: u64) -> Option<usize> {
        let call = (ticket >> 8) as usize;
        let held = &self.history.calls[call];
        (held.end == End::Open && u64::from(held.tries) == ticket & 0xff).then_some(call)
    }

    pub(super) fn take_answer(&mut self, ticket: u64, response: Response) {
        let Some(call) = self.waiting_for(ticket) else { return };
        let held = &mut self.history.calls[call];
        match response.result {
            Ok(reply) => {
                if matches!(held.op(), Op::SiblingsGet | Op::SiblingsPut { .. }) {
                    load::remember(&mut self.clients[held.client].read, &held.request.key, &reply);
                }
                held.reply = Some(reply);
                held.receipt = Some(response.receipt);
                self.end_call(call, End::Acked);
            }
            Err(error) => {
                held.maybe |= error.outcome() == Outcome::Unknown;
                let name = format!("refused_{}", error_name(&error));
                self.count(&name, 1);
                if error.retryable() {
                    self.try_again(call);
                } else {
                    self.end_failed(call);
                }
            }
        }
    }

    pub(super) fn give_up(&mut self, ticket: u64) {
        if let Some(call) = self.waiting_for(ticket) {
            self.history.calls[call].maybe = true;
            self.count("calls_unanswered", 1);
            self.try_again(call);
        }
    }

    pub(super) fn try_again(&mut self, call: usize) {
        let held = &self.history.calls[call];
        if held.tries < TRIES_MAX && self.load.chance(850_000) {
            let wait = self.load.between(1_000, 200_000);
            self.after(wait, Event::Try { call });
        } else {
            self.end_failed(call);
        }
    }

    pub(super) fn end_failed(&mut self, call: usize) {
        let end = if self.history.calls[call].maybe { End::Unknown } else { End::NotApplied };
        self.end_call(call, end);
    }

    pub(super) fn end_call(&mut self, call: usize, end: End) {
        let now_us = self.now_us;
        let held = &mut self.history.calls[call];
        held.end = end;
        if end != End::Unknown {
            held.ended_us = now_us;
        }
        let client = held.client;
        self.clients[client].call = None;
        self.trace.line(|| format!("{now_us:>10} call {call} ends: {end:?}"));
        self.count(
            match end {
                End::Acked => "calls_acked",
                End::NotApplied => "calls_not_applied",
                _ => "calls_unknown",
            },
            1,
        );
        let rest = self.load.below(self.plan.rest_us);
        self.after(rest, Event::Client { client });
    }
}

fn error_name(error: &RequestError) -> &'static str {
    match error {
        RequestError::WrongType => "wrong_type",
        RequestError::Unavailable { .. } => "unavailable",
        RequestError::Timeout { .. } => "timeout",
        RequestError::Overloaded(_) => "overloaded",
        RequestError::ClockAhead { .. } => "clock_ahead",
        RequestError::TooManySiblings { .. } => "siblings",
        RequestError::BadContext => "bad_context",
        RequestError::BadConsistency(_) => "bad_consistency",
        RequestError::OpIdExpired { .. } => "op_id_expired",
        _ => "other",
    }
}

//! Answers on their way to one connection: the lane leaves each in the connection's box, and the connection looks in when it is woken.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;

use crate::api::resp::plan::Shape;
use crate::data::op::Response;

/// An idle connection keeps room for so many.
pub const IDLE_LETTERS: usize = 64;

/// What a connection must know of a request when the answer comes.
pub struct Letter<S> {
    /// The queue's ticket.
    pub ticket: u64,
    pub shape: Shape,
    pub style: S,
    pub mutation: bool,
}

/// A letter and what it says. `None`: nobody will answer any more.
pub type Delivered<S> = (Letter<S>, Option<Response>);

/// One connection's box. Bounded by what the connection has under way.
pub struct Letters<S> {
    inner: Arc<Inner<S>>,
    /// How many are still to come.
    awaited: usize,
}

struct Inner<S> {
    delivered: Mutex<Vec<Delivered<S>>>,
    waker: AtomicWaker,
}

impl<S> Inner<S> {
    fn deliver(&self, letter: Letter<S>, response: Option<Response>) {
        // Nothing panics while holding it.
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).push((letter, response));
        self.waker.wake();
    }
}

/// Delivers its letter when it is dropped, if nobody has before.
struct Carrier<S> {
    inner: Arc<Inner<S>>,
    letter: Option<Letter<S>>,
}

impl<S> Drop for Carrier<S> {
    fn drop(&mut self) {
        if let Some(letter) = self.letter.take() {
            self.inner.deliver(letter, None);
        }
    }
}

impl<S> Default for Letters<S> {
    fn default() -> Self {
        let inner = Inner { delivered: Mutex::new(Vec::new()), waker: AtomicWaker::new() };
        Self { inner: Arc::new(inner), awaited: 0 }
    }
}

impl<S: Send + 'static> Letters<S> {
    /// No answer is on its way.
    pub fn is_empty(&self) -> bool {
        self.awaited == 0
    }

    /// What is to be called with the answer.
    pub fn send(&mut self, letter: Letter<S>) -> Box<dyn FnOnce(Response) + Send> {
        self.awaited += 1;
        let mut carrier = Carrier { inner: self.inner.clone(), letter: Some(letter) };
        Box::new(move |response| {
            if let Some(letter) = carrier.letter.take() {
                carrier.inner.deliver(letter, Some(response));
            }
        })
    }

    /// Takes what has come into `into`, which is empty. When that is nothing, the task of `context` is woken by the next.
    pub fn take(&mut self, context: &mut Context<'_>, into: &mut Vec<Delivered<S>>) {
        if self.awaited == 0 {
            return;
        }
        self.inner.waker.register(context.waker());
        let mut delivered = self.inner.delivered.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *delivered, into);
        self.awaited -= into.len();
        if self.awaited == 0 && delivered.capacity() > IDLE_LETTERS {
            *delivered = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::data::op::Reply;

    #[test]
    fn every_letter_comes_once_answered_or_not() {
        let mut letters = Letters::default();
        let letter = |ticket| Letter {
            ticket,
            shape: Shape::Plain(crate::api::resp::plan::shape::integer),
            style: (),
            mutation: false,
        };
        let (first, second) = (letters.send(letter(1)), letters.send(letter(2)));
        let mut context = Context::from_waker(Waker::noop());
        let mut come = Vec::new();
        letters.take(&mut context, &mut come);
        assert!(come.is_empty() && !letters.is_empty());
        drop(second);
        first(Response { result: Ok(Reply::Integer(7)), receipt: Default::default() });
        letters.take(&mut context, &mut come);
        let told: Vec<_> = come.iter().map(|(letter, response)| (letter.ticket, response.is_some())).collect();
        assert_eq!(told, [(2, false), (1, true)]);
        assert!(letters.is_empty());
    }
}

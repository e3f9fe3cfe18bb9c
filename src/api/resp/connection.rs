//! One connection: read what is there, start every whole command, answer in order, write once per batch.
//!
//! ```text
//!  stream -> buffer -> Parser -> Session (in order) -> Queue -> door, Letters, or a future -> Queue -> out -> stream
//!                                                      keys                                  order
//! ```
//! One task, no spawn: what is one request is handed to the door, and its answer comes by letter; commands of more are futures that this
//! task polls. Bounded: commands under way
//! (by number and by what their answers are likely to weigh), bytes of answers not yet sent, bytes read ahead. A slow reader is
//! simply not read from any more.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::api::door::Door;
use crate::api::resp::execute::{Done, execute, request};
use crate::api::resp::frame::{Frame, Version};
use crate::api::resp::letters::{Delivered, IDLE_LETTERS, Letter, Letters};
use crate::api::resp::parser::Parser;
use crate::api::resp::plan::{Plan, Terms};
use crate::api::resp::queue::Queue;
use crate::api::resp::session::{self, Client, ReplyMode, Resolved, Server, Session};
use crate::api::resp::whole;
use crate::data::consistency::Receipt;

/// Answers waiting to be sent above which no further command is started nor answer encoded.
const OUT_BYTES_HIGH: usize = 1 << 20;
/// What the answers of the commands under way may weigh together, by the weight of recent ones.
const UNDER_WAY_BYTES_MAX: usize = 64 << 20;
const READ_BYTES_MIN: usize = 1 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

/// How the answer to a command is told.
#[derive(Clone, Copy)]
struct Style {
    version: Version,
    silent: bool,
}

struct Answer {
    frame: Frame,
    style: Style,
    receipt: Option<(Receipt, usize)>,
    mutation: bool,
}

struct Work {
    plan: Plan,
    terms: Terms,
    style: Style,
}

/// A future's answer, with how to tell it.
struct Finished {
    done: Done,
    style: Style,
}

struct Connection<S> {
    stream: S,
    server: Arc<Server>,
    session: Session,
    parser: Parser,
    buffer: BytesMut,
    out: BytesMut,
    queue: Queue<Work, Answer>,
    /// A command that waits until everything before it is answered.
    held: Option<(Resolved, Style)>,
    /// The command under way is one that everything after it waits for.
    exclusive: bool,
    /// Dispatching stopped at a bound, not for want of bytes.
    blocked: bool,
    /// The other end sends no more.
    ended: bool,
    /// Written, but not known to have left the stream's own buffers.
    unflushed: bool,
    /// Bytes to ask for at a time; grows while reads fill it.
    read_bytes: usize,
    /// About what an answer weighs, slowly forgetting.
    answer_bytes: usize,
}

/// Serves one connection until it ends, breaks, or `stop` says so; then what is under way is still answered.
pub async fn run<S, D>(stream: S, door: D, server: Arc<Server>, client: Arc<Client>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    D: Door,
{
    let session = Session::new(client, &server.options);
    let mut connection = Connection {
        stream,
        parser: Parser::new(server.parser_limits()),
        server,
        session,
        buffer: BytesMut::new(),
        out: BytesMut::new(),
        queue: Queue::default(),
        held: None,
        exclusive: false,
        blocked: false,
        ended: false,
        unflushed: false,
        read_bytes: READ_BYTES_MIN,
        answer_bytes: UNDER_WAY_BYTES_MAX / 64,
    };
    // A dropped sender is a stop too.
    let mut stopping = pin!(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let mut stopped = false;
    let mut running = Running { letters: Letters::default(), futures: FuturesUnordered::new() };
    let (mut come, mut started) = (Vec::new(), Vec::new());
    let mut waited = false;
    loop {
        connection.dispatch(&door, &mut started);
        started.drain(..).for_each(|(ticket, work)| running.start(&door, ticket, work));
        connection.settle();
        if running.is_empty() && come.capacity().max(started.capacity()) > IDLE_LETTERS {
            (come, started) = (Vec::new(), Vec::new());
        }
        if connection.is_over() {
            break;
        }
        // More answers are likely on their way in the same batch: let them join this write, once.
        if !waited && !connection.out.is_empty() && connection.out.len() < OUT_BYTES_HIGH && !running.is_empty() {
            waited = true;
            tokio::task::yield_now().await;
        }
        let alive = poll_fn(|context| {
            let mut progress = false;
            running.letters.take(context, &mut come);
            for delivered in come.drain(..) {
                connection.finish(answered(delivered, &door), &mut started);
                progress = true;
            }
            while let Poll::Ready(Some(finished)) = running.futures.poll_next_unpin(context) {
                connection.finish(finished, &mut started);
                progress = true;
            }
            started.drain(..).for_each(|(ticket, work)| running.start(&door, ticket, work));
            if progress {
                return Poll::Ready(true);
            }
            if !stopped && stopping.as_mut().poll(context).is_ready() {
                stopped = true;
                connection.session.closing = true;
                return Poll::Ready(true);
            }
            match connection.poll_stream(context) {
                Poll::Ready(Ok(wrote)) => {
                    waited &= !wrote;
                    Poll::Ready(true)
                }
                Poll::Ready(Err(_)) => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if !alive {
            return;
        }
    }
    let _ = connection.stream.shutdown().await;
}

/// The commands under way.
struct Running<F> {
    /// Of those that are one request.
    letters: Letters<Style>,
    futures: FuturesUnordered<F>,
}

impl<F> Running<F> {
    fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.futures.is_empty()
    }
}

impl Running<Pin<Box<dyn Future<Output = Finished> + Send>>> {
    fn start<D: Door>(&mut self, door: &D, ticket: u64, work: Work) {
        let Work { plan, terms, style } = work;
        match plan {
            Plan::One(key, op, shape) if !whole::is_whole(&op) => {
                let mutation = !op.is_read();
                let reply = self.letters.send(Letter { ticket, shape, style, mutation });
                door.submit_with(request(door, key, op, &terms, 0), reply);
            }
            plan => {
                let door = door.clone();
                let done = async move { Finished { done: execute(door, ticket, plan, terms).await, style } };
                self.futures.push(Box::pin(done));
            }
        }
    }
}

fn answered<D: Door>((letter, response): Delivered<Style>, door: &D) -> Finished {
    let Letter { ticket, shape, style, mutation } = letter;
    let response = response.unwrap_or_else(|| door.lost(mutation));
    let receipt = Some((response.receipt, 1));
    Finished { done: Done { ticket, frame: shape.frame(response.result), receipt, mutation }, style }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Starts all whole commands that are in the buffer, as far as the bounds allow.
    fn dispatch<D: Door>(&mut self, door: &D, started: &mut Vec<(u64, Work)>) {
        self.blocked = false;
        let mut count = 0;
        while !self.session.closing {
            if self.is_full() {
                self.blocked = true;
                break;
            }
            if let Some((resolved, style)) = self.held.take() {
                self.run_command(resolved, style, door, started);
                count += 1;
                continue;
            }
            match self.parser.next(&mut self.buffer, self.session.authenticated) {
                Ok(Some(command)) => {
                    let style = Style { version: self.session.version, silent: self.is_silent() };
                    match session::resolve(command, &self.session, door) {
                        Ok(resolved) if resolved.is_barrier() && !self.queue.is_empty() => {
                            self.held = Some((resolved, style));
                        }
                        Ok(resolved) => {
                            self.run_command(resolved, style, door, started);
                            count += 1;
                        }
                        Err(refusal) => self.answer(session::refused(refusal), style),
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let style = Style { version: self.session.version, silent: false };
                    self.answer(Frame::error(error.to_string()), style);
                    self.session.closing = true;
                }
            }
        }
        if count > 0 {
            self.server.commands_total.fetch_add(count, Ordering::Relaxed);
            self.session.client.active_ms.store(door.wall_ms(), Ordering::Relaxed);
        }
        if self.session.closing {
            self.buffer = BytesMut::new();
        }
    }

    fn is_full(&self) -> bool {
        let options = &self.server.options;
        self.exclusive
            || (self.held.is_some() && !self.queue.is_empty())
            || self.queue.len() >= options.pipeline_max.max(1)
            || self.out.len() >= OUT_BYTES_HIGH
            || (!self.queue.is_empty() && self.queue.len().saturating_mul(self.answer_bytes) >= UNDER_WAY_BYTES_MAX)
    }

    fn is_silent(&mut self) -> bool {
        match self.session.reply_mode {
            ReplyMode::On => false,
            ReplyMode::Off => true,
            ReplyMode::SkipNext => {
                self.session.reply_mode = ReplyMode::On;
                true
            }
        }
    }

    fn run_command<D: Door>(&mut self, resolved: Resolved, mut style: Style, door: &D, started: &mut Vec<(u64, Work)>) {
        let barrier = resolved.is_barrier();
        let muted = self.session.reply_mode == ReplyMode::Off;
        let prepared = session::prepare(resolved, &mut self.session, &self.server, door);
        // HELLO answers in the version it chose, CLIENT REPLY in the mode it chose.
        style.version = self.session.version;
        match self.session.reply_mode {
            ReplyMode::On => style.silent &= !muted,
            // The command that chose either is silent too.
            ReplyMode::Off | ReplyMode::SkipNext => style.silent = true,
        }
        match prepared {
            Err(refusal) => self.answer(session::refused(refusal), style),
            Ok(session::Prepared { plan: Plan::Now(frame), .. }) => self.answer(frame, style),
            Ok(session::Prepared { plan, terms }) => {
                self.exclusive = barrier;
                let touched = plan.touched();
                started.extend(self.queue.push_work(Work { plan, terms, style }, touched));
            }
        }
    }

    fn answer(&mut self, frame: Frame, style: Style) {
        self.queue.push_answer(Answer { frame, style, receipt: None, mutation: false });
    }

    /// Takes note of a command that is done; the ones that waited for it go to `started`.
    fn finish(&mut self, finished: Finished, started: &mut Vec<(u64, Work)>) {
        let Finished { done: Done { ticket, frame, receipt, mutation }, style } = finished;
        let weight = frame.weight();
        self.answer_bytes = weight.max(self.answer_bytes - self.answer_bytes / 8);
        let answer = Answer { frame, style, receipt, mutation };
        self.queue.finish(ticket, answer, |ticket, work| started.push((ticket, work)));
        // An exclusive command is alone in the queue.
        self.exclusive = false;
    }

    /// Encodes the answers whose turn has come.
    fn settle(&mut self) {
        while self.out.len() < OUT_BYTES_HIGH {
            let Some(answer) = self.queue.pop() else { break };
            if let Some((receipt, count)) = answer.receipt {
                if answer.mutation {
                    let acks = receipt.acks.len();
                    self.session.acks_least = Some(self.session.acks_least.map_or(acks, |least| least.min(acks)));
                }
                self.session.receipt = Some((receipt, count));
            }
            if !answer.style.silent {
                answer.frame.encode(answer.style.version, &mut self.out);
            }
        }
    }

    fn is_over(&self) -> bool {
        let quiet = self.queue.is_empty() && self.out.is_empty() && !self.unflushed;
        quiet && (self.session.closing || (self.ended && self.held.is_none() && !self.blocked))
    }

    /// Writes and reads what the stream allows. Ready when either moved; true when all that was to be written is.
    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        let mut progress = false;
        let mut wrote = false;
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.out)? {
                Poll::Ready(0) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.out.advance(count);
                    self.unflushed = true;
                    progress = true;
                }
                Poll::Pending => break,
            }
        }
        if self.out.is_empty() && self.unflushed {
            if Pin::new(&mut self.stream).poll_flush(context)?.is_ready() {
                self.unflushed = false;
                wrote = true;
                progress = true;
            }
            if self.out.capacity() > READ_BYTES_MAX {
                self.out = BytesMut::new();
            }
        }
        if !self.ended && !self.session.closing && !self.blocked {
            match self.poll_read(context)? {
                Poll::Ready(0) => {
                    self.ended = true;
                    progress = true;
                }
                Poll::Ready(_) => progress = true,
                Poll::Pending => {}
            }
        }
        if progress { Poll::Ready(Ok(wrote)) } else { Poll::Pending }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        // A large argument is read into one piece of memory, which grows with what has really come, not with what was announced.
        let wanted = self.parser.wanted(self.buffer.len()).min(self.buffer.len().max(READ_BYTES_MAX));
        let room = self.buffer.capacity() - self.buffer.len();
        if room < wanted || room < self.read_bytes / 2 {
            self.buffer.reserve(wanted.max(self.read_bytes));
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let count = {
            let read = pin!(self.stream.read_buf(&mut self.buffer));
            std::task::ready!(read.poll(context))?
        };
        if count >= room && self.read_bytes < READ_BYTES_MAX {
            self.read_bytes *= 4;
        } else if count < self.read_bytes / 8 && self.read_bytes > READ_BYTES_MIN {
            self.read_bytes /= 2;
        }
        Poll::Ready(Ok(count))
    }
}

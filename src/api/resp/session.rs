//! What a connection is at a moment, and how a command that came in whole becomes a plan under terms.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::api::door::Door;
use crate::api::resp::RespOptions;
use crate::api::resp::commands::{self, Command, tidewater};
use crate::api::resp::frame::{Frame, Version};
use crate::api::resp::parser::{self, Oversize};
use crate::api::resp::plan::{Plan, Terms};
use crate::api::resp::refusal::{self, Refusal};
use crate::data::consistency::{Consistency, Receipt};
use crate::data::id::{NodeId, OpId, Partition};
use crate::data::op::{Key, RequestError, Whereabouts};
use crate::ring::layout::Layout;

/// The parts of [`Door`] that answer at once, for commands, which must not know which door it is.
pub trait Facts {
    fn wall_ms(&self) -> u64;
    fn random_u64(&self) -> u64;
    fn whereabouts(&self, key: &Key) -> Whereabouts;
    fn layout(&self) -> (Arc<Layout>, Vec<bool>);
    fn owners(&self, partition: Partition) -> Vec<usize>;
    fn me(&self) -> NodeId;
}

impl<D: Door> Facts for D {
    fn wall_ms(&self) -> u64 {
        Door::wall_ms(self)
    }

    fn random_u64(&self) -> u64 {
        Door::random_u64(self)
    }

    fn whereabouts(&self, key: &Key) -> Whereabouts {
        Door::whereabouts(self, key)
    }

    fn layout(&self) -> (Arc<Layout>, Vec<bool>) {
        Door::layout(self)
    }

    fn owners(&self, partition: Partition) -> Vec<usize> {
        Door::owners(self, partition)
    }

    fn me(&self) -> NodeId {
        Door::me(self)
    }
}

/// What all connections of one door share.
pub struct Server {
    pub options: RespOptions,
    /// Port that `INFO` tells.
    pub port: u16,
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    client_next: AtomicU64,
    pub connections_total: AtomicU64,
    pub rejected_total: AtomicU64,
    pub commands_total: AtomicU64,
}

/// One connection as `CLIENT LIST` tells it.
pub struct Client {
    pub id: u64,
    /// `host:port` of the other end and of ours.
    pub peer: String,
    pub local: String,
    pub since_ms: u64,
    pub active_ms: AtomicU64,
    /// Place of the last command in the command table; `usize::MAX`: none yet.
    pub command: AtomicUsize,
    texts: Mutex<ClientTexts>,
}

/// What a client told about itself.
#[derive(Clone, Default)]
pub struct ClientTexts {
    pub name: String,
    pub library: String,
    pub library_version: String,
    pub three: bool,
}

/// A poisoned lock means that a holder panicked between two plain assignments: what it guards is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Client {
    pub fn texts(&self) -> ClientTexts {
        lock(&self.texts).clone()
    }

    pub fn tell(&self, change: impl FnOnce(&mut ClientTexts)) {
        change(&mut lock(&self.texts));
    }
}

impl Server {
    pub fn new(options: RespOptions, port: u16) -> Self {
        Self {
            options,
            port,
            clients: Mutex::new(BTreeMap::new()),
            client_next: AtomicU64::new(1),
            connections_total: AtomicU64::new(0),
            rejected_total: AtomicU64::new(0),
            commands_total: AtomicU64::new(0),
        }
    }

    /// Registers a connection; `None` when there are as many as allowed.
    pub fn enter(&self, peer: String, local: String, now_ms: u64) -> Option<Arc<Client>> {
        let mut clients = lock(&self.clients);
        if clients.len() >= self.options.max_connections {
            self.rejected_total.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.connections_total.fetch_add(1, Ordering::Relaxed);
        let id = self.client_next.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client {
            id,
            peer,
            local,
            since_ms: now_ms,
            active_ms: AtomicU64::new(now_ms),
            command: AtomicUsize::new(usize::MAX),
            texts: Mutex::default(),
        });
        clients.insert(id, client.clone());
        Some(client)
    }

    pub fn leave(&self, id: u64) {
        lock(&self.clients).remove(&id);
    }

    pub fn clients(&self) -> Vec<Arc<Client>> {
        lock(&self.clients).values().cloned().collect()
    }

    /// Limits of a connection's parser: an argument that no setting allows is not even kept.
    pub fn parser_limits(&self) -> parser::Limits {
        let argument_bytes_max = self.options.value_size_max.max(self.options.key_size_max);
        parser::Limits { argument_bytes_max, command_bytes_max: argument_bytes_max.saturating_mul(2).max(64 << 20) }
    }
}

/// Which answers a client wants (`CLIENT REPLY`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReplyMode {
    #[default]
    On,
    Off,
    /// Not for the next command.
    SkipNext,
}

/// The state of one connection.
pub struct Session {
    pub client: Arc<Client>,
    pub version: Version,
    pub authenticated: bool,
    pub consistency: Consistency,
    pub timeout_ms: u64,
    pub reply_mode: ReplyMode,
    /// Receipt of the last command that had one, and how many requests it stands for.
    pub receipt: Option<(Receipt, usize)>,
    /// Least number of acknowledgements of a mutation since the last `WAIT`.
    pub acks_least: Option<usize>,
    /// Ends the connection once everything is answered.
    pub closing: bool,
}

impl Session {
    pub fn new(client: Arc<Client>, options: &RespOptions) -> Self {
        Self {
            client,
            version: Version::Two,
            authenticated: options.passwords.is_empty(),
            consistency: options.consistency,
            timeout_ms: options.timeout_ms,
            reply_mode: ReplyMode::On,
            receipt: None,
            acks_least: None,
            closing: false,
        }
    }

    /// Back to how it began (`RESET`).
    pub fn reset(&mut self, options: &RespOptions) {
        *self = Self::new(self.client.clone(), options);
        self.client
            .tell(|texts| *texts = ClientTexts { library: std::mem::take(&mut texts.library), ..Default::default() });
    }
}

/// What a command has at hand.
pub struct Call<'a> {
    /// The command's name in lower case.
    pub name: &'static str,
    /// All arguments, the name first.
    pub arguments: &'a [Bytes],
    pub session: &'a mut Session,
    pub server: &'a Server,
    pub facts: &'a dyn Facts,
}

/// A command ready to be carried out.
pub struct Prepared {
    pub plan: Plan,
    pub terms: Terms,
}

/// A command that was found, with what its wrappers said, before it has run.
pub struct Resolved {
    command: &'static Command,
    place: usize,
    arguments: Vec<Bytes>,
    /// Arguments of wrappers before the command itself.
    offset: usize,
    terms: Terms,
    oversize: Option<Oversize>,
}

impl Resolved {
    /// Must this command wait until everything before it is answered, and hold up everything after it?
    pub fn is_barrier(&self) -> bool {
        self.command.barrier
    }
}

/// Finds the command that was asked for. Wrappers (`TW.WITH`, `TW.ID`) are taken off and become terms.
pub fn resolve(command: parser::Command, session: &Session, facts: &dyn Facts) -> Result<Resolved, Refusal> {
    let parser::Command { arguments, oversize } = command;
    let mut terms =
        Terms { consistency: session.consistency, timeout_us: session.timeout_ms.saturating_mul(1_000), op_id: None };
    let mut offset = 0;
    loop {
        let rest = &arguments[offset..];
        let Some((place, found)) = commands::find(&rest[0]) else { return Err(commands::unknown(rest)) };
        let count = rest.len() as i64;
        if (found.arity > 0 && count != found.arity) || count < -found.arity {
            return Err(refusal::wrong_arity(found.name));
        }
        if !session.authenticated && !found.has(commands::NO_AUTH) {
            return Err(refusal::NO_AUTH.into());
        }
        match tidewater::unwrap(found.name, rest, &mut terms, facts)? {
            Some(taken) => offset += taken,
            None => return Ok(Resolved { command: found, place, arguments, offset, terms, oversize }),
        }
    }
}

/// Runs the deciding half of a command. State of the connection changes here, in the order of the commands.
pub fn prepare(
    resolved: Resolved,
    session: &mut Session,
    server: &Server,
    facts: &dyn Facts,
) -> Result<Prepared, Refusal> {
    let Resolved { command, place, arguments, offset, terms, oversize } = resolved;
    session.client.command.store(place, Ordering::Relaxed);
    if let Some(oversize) = oversize {
        return Err(too_large(oversize, offset, command, server));
    }
    let arguments = &arguments[offset..];
    let plan = (command.handler)(&mut Call { name: command.name, arguments, session, server, facts })?;
    plan.check(server.options.key_size_max, server.options.value_size_max).map_err(|error| refusal::of(&error))?;
    Ok(Prepared { plan, terms })
}

fn too_large(oversize: Oversize, offset: usize, command: &Command, server: &Server) -> Refusal {
    match oversize {
        Oversize::Argument { at, size } => {
            let is_key = command.is_key(at.saturating_sub(offset));
            refusal::of(&if is_key {
                RequestError::KeyTooLarge { size, limit: server.options.key_size_max as u64 }
            } else {
                RequestError::ValueTooLarge { size, limit: server.options.value_size_max as u64 }
            })
        }
        Oversize::Command { limit } => {
            format!("ERR the arguments of one command may have {limit} bytes together: send it in parts").into()
        }
    }
}

/// The operation id a client wrote.
pub fn parse_op_id(text: &Bytes) -> Result<OpId, Refusal> {
    std::str::from_utf8(text).ok().and_then(OpId::parse).ok_or_else(|| {
        "ERR the operation id must be a UUID of version 7, such as 0190163d-8694-739b-aea5-966c26f8ad91".into()
    })
}

/// An error as a frame.
pub fn refused(refusal: Refusal) -> Frame {
    Frame::Error(refusal)
}

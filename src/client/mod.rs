//! The LIBRARY that others embed: a client that knows the cluster.
//!
//! ```text
//!   Client (what a program calls)
//!      |  choices: consistency, timeout, operation id
//!   calls      tries, pauses, one outcome of all tries together
//!      |    \
//!   pool     routing   which node next (pure)
//!      |
//!   link       tickets: many requests under way on one link
//!      |
//!   quic -> net
//! ```
//!
//! A client learns the layout from any node, sends each request to an owner of its key that is up, and when a node does not answer
//! goes on with the next, under the same operation id, until the call's timeout. So a write that was acknowledged counts once,
//! whatever happened on the way, and a call that failed says whether it may have been applied ([`ClientError::outcome`]).
//!
//! Trusts: the nodes' certificates for who they are, and the nodes for the layout. Does not do: caching values, batching several keys
//! into one request (send them side by side: they share links), ordering of one caller's requests under way at once.

mod answer;
mod calls;
mod error;
mod link;
mod options;
mod owners;
mod pool;
mod quic;
pub mod routing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use answer::{Answer, Page, Siblings};
use calls::Calls;
pub use error::ClientError;
pub use options::ClientOptions;

use crate::data::consistency::Consistency;
use crate::data::decimal::Decimal;
use crate::data::id::{NodeId, OpId, Partition};
use crate::data::op::{
    Condition, DeadlineCondition, Key, Kind, Op, Reply, Request, RequestError, ScanPage, ScanRequest, SetExpiry,
    Whereabouts,
};
use crate::net::entropy;
use crate::ring::layout::{Layout, Member};
use crate::wire::client::{ClientMessage, ServerMessage};
use crate::wire::fault::{FaultOrder, FaultStatus};
use crate::wire::message::PAGE_PLACES;
use crate::wire::status::{KeyStatus, NodeStatus};

/// A handle to a cluster. Clones are cheap and share links, layout and retry budget; [`with`](Client::with),
/// [`within`](Client::within) and [`named`](Client::named) give clones that ask for something else.
///
/// ```no_run
/// use tidewater::client::{Client, ClientOptions};
/// use tidewater::data::consistency::{Consistency, Level};
/// # async fn example(identity: tidewater::net::tls::Identity) -> Result<(), tidewater::client::ClientError> {
/// let client = Client::connect(ClientOptions::new(["127.0.0.1:9001", "127.0.0.1:9002"], identity)).await?;
///
/// client.set("greeting", "hello").await?;
/// let answer = client.get("greeting").await?;
/// assert_eq!(answer.value.as_deref(), Some(&b"hello"[..]));
/// println!("{} owners answered", answer.receipt.owners());
///
/// // One call with other choices: every owner must acknowledge, and two of them must have fsynced.
/// let careful = Consistency { write: Level::All, durable: Some(Level::Count(2)), ..Consistency::default() };
/// client.with(careful).increment("visits", 1).await?;
///
/// // Siblings: concurrent writes are both kept until somebody who saw both writes again.
/// let cart = client.siblings("cart").await?.value;
/// client.put_sibling("cart", "[1,2,3]", Some(&cart.context)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    calls: Arc<Calls>,
    choices: Choices,
}

#[derive(Clone, Copy, Debug)]
struct Choices {
    consistency: Consistency,
    timeout: Duration,
    name: Option<Name>,
}

#[derive(Clone, Copy, Debug)]
struct Name {
    op_id: OpId,
    fresh: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "Client({:?}, {:?})", self.calls.options().seeds, self.choices)
    }
}

impl Client {
    /// Asks the seeds for the layout; with that the client is ready. Links to nodes are opened when they are needed.
    ///
    /// # Errors
    /// [`ClientError::NoSeed`] when none of the seeds answered with a layout, [`ClientError::Identity`] when the certificate cannot be
    /// used.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let transport =
            quic::Quic::open(&options).map_err(|error| ClientError::Identity { cause: error.to_string() })?;
        Self::connect_over(Arc::new(transport), options).await
    }

    async fn connect_over(transport: Arc<dyn link::Transport>, options: ClientOptions) -> Result<Self, ClientError> {
        let choices = Choices { consistency: options.consistency, timeout: options.timeout, name: None };
        Ok(Self { calls: Calls::connect(transport, options).await?, choices })
    }

    /// Closes the links of this client and all its clones. Calls under way fail. Dropping the last clone does the same.
    pub fn close(&self) {
        self.calls.close();
    }

    // --- choices

    /// This client with other consistency.
    pub fn with(&self, consistency: Consistency) -> Self {
        Self { choices: Choices { consistency, ..self.choices }, ..self.clone() }
    }

    /// This client with another timeout, for all tries of a call together.
    pub fn within(&self, timeout: Duration) -> Self {
        Self { choices: Choices { timeout, ..self.choices }, ..self.clone() }
    }

    /// This client with a name for the next mutation, and for no more than one, that may have been sent before: it will count once.
    pub fn named(&self, op_id: OpId) -> Self {
        self.name(Name { op_id, fresh: false })
    }

    /// As [`named`](Client::named) for a name that was never sent, which spares the coordinator a look.
    pub fn freshly_named(&self, op_id: OpId) -> Self {
        self.name(Name { op_id, fresh: true })
    }

    fn name(&self, name: Name) -> Self {
        Self { choices: Choices { name: Some(name), ..self.choices }, ..self.clone() }
    }

    /// A name for an operation: this moment and 74 random bits.
    pub fn new_op_id() -> OpId {
        OpId::new(entropy::wall_ms(), entropy::random_bytes())
    }

    // --- any component

    /// Asks any [`Op`]; the verbs below are this with the fitting types.
    pub async fn request(&self, key: impl AsRef<[u8]>, op: Op) -> Result<Answer<Reply>, ClientError> {
        let name = if op.is_read() {
            None
        } else {
            Some(self.choices.name.unwrap_or_else(|| Name { op_id: Self::new_op_id(), fresh: true }))
        };
        let op_id = name.map(|name| name.op_id);
        let request = Request {
            consistency: self.choices.consistency,
            op_id,
            fresh: name.is_none_or(|name| name.fresh),
            remember: name.is_some(),
            ..Request::new(Key::new(Bytes::copy_from_slice(key.as_ref())), op)
        };
        let met = self.calls.request(request, self.choices.timeout).await?;
        Ok(Answer { value: met.reply, receipt: met.receipt, op_id, attempts: met.attempts })
    }

    /// What the key holds; `None`: nothing.
    pub async fn kind(&self, key: impl AsRef<[u8]>) -> Result<Answer<Option<Kind>>, ClientError> {
        let answer = self.request(key, Op::Kind).await?;
        expect(answer, "a kind", |reply| if let Reply::Kind(kind) = reply { Ok(kind) } else { Err(reply) })
    }

    /// Does the key hold anything?
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<Answer<bool>, ClientError> {
        boolean(self.request(key, Op::Exists).await?)
    }

    /// Removes whatever the key holds, as far as it was seen. Was anything there?
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Answer<bool>, ClientError> {
        boolean(self.request(key, Op::Delete).await?)
    }

    /// When the key expires: `None`: no such key, `Some(None)`: never, else milliseconds since 1970.
    pub async fn deadline(&self, key: impl AsRef<[u8]>) -> Result<Answer<Option<Option<u64>>>, ClientError> {
        let answer = self.request(key, Op::Deadline).await?;
        expect(answer, "a deadline", |reply| if let Reply::Deadline(at) = reply { Ok(at) } else { Err(reply) })
    }

    /// Lets the key live until `at_ms` (milliseconds since 1970), or for ever. False: there is no such key.
    pub async fn expire_at(&self, key: impl AsRef<[u8]>, at_ms: Option<u64>) -> Result<Answer<bool>, ClientError> {
        boolean(self.request(key, Op::SetDeadline { at_ms, condition: DeadlineCondition::Always }).await?)
    }

    // --- strings and counters

    /// The string; `None`: the key holds none.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Answer<Option<Bytes>>, ClientError> {
        value(self.request(key, Op::Get).await?)
    }

    /// Writes a string that never expires.
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Answer<()>, ClientError> {
        Ok(self.set_if(key, value, Condition::Always, SetExpiry::Never).await?.map(|_| ()))
    }

    /// Writes a string. False: the condition did not hold. A condition is best effort: two writers at once may both find it to hold.
    pub async fn set_if(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        condition: Condition,
        expiry: SetExpiry,
    ) -> Result<Answer<bool>, ClientError> {
        boolean(self.request(key, Op::Set { value: value.into(), expiry, condition, old: false }).await?)
    }

    /// Adds to a counter and gives its sum as the coordinator sees it.
    pub async fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<Answer<i64>, ClientError> {
        integer(self.request(key, Op::Increment { by: Decimal::from_integer(by), integer: true }).await?)
    }

    /// Adds a decimal number to a counter.
    pub async fn increment_decimal(&self, key: impl AsRef<[u8]>, by: Decimal) -> Result<Answer<Decimal>, ClientError> {
        decimal(self.request(key, Op::Increment { by, integer: false }).await?)
    }

    // --- sets

    /// Adds members. How many did the coordinator not know yet?
    pub async fn add_to_set(
        &self,
        key: impl AsRef<[u8]>,
        members: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Answer<i64>, ClientError> {
        integer(self.request(key, Op::SetAdd { members: list(members) }).await?)
    }

    /// Removes members as far as they were seen: one that is added at the same time stays. How many were there?
    pub async fn remove_from_set(
        &self,
        key: impl AsRef<[u8]>,
        members: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Answer<i64>, ClientError> {
        integer(self.request(key, Op::SetRemove { members: list(members) }).await?)
    }

    /// All members, sorted. Up to 10,000, or 1 MiB of them, are read at one moment; more are read page by page, each within the timeout.
    /// The receipt is that of all pages: the fewest acknowledgements, and whatever happened at any of them.
    pub async fn set_members(&self, key: impl AsRef<[u8]>) -> Result<Answer<Vec<Bytes>>, ClientError> {
        let key = key.as_ref();
        self.walk(|from| self.set_page(key, from, PAGE_PLACES)).await
    }

    /// About `limit` members from a place on: 0 first, and then the place that came with the page before, until none comes. At least 1
    /// and at most 10,000 are given at once, fewer when they are large. Costs the page, not the set.
    pub async fn set_page(
        &self,
        key: impl AsRef<[u8]>,
        from: u64,
        limit: u32,
    ) -> Result<Answer<Page<Bytes>>, ClientError> {
        let answer = self.request(key, Op::SetPage { from, limit }).await?;
        expect(answer, "a page of members", |reply| match reply {
            Reply::MemberPage { members, next } => Ok(Page { items: members, next }),
            other => Err(other),
        })
    }

    /// Which of these are members, in the order asked?
    pub async fn set_contains(
        &self,
        key: impl AsRef<[u8]>,
        members: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Answer<Vec<bool>>, ClientError> {
        let answer = self.request(key, Op::SetContains { members: list(members) }).await?;
        expect(answer, "yes and no", |reply| if let Reply::Bools(each) = reply { Ok(each) } else { Err(reply) })
    }

    /// How many members? Read at one moment: of a large set this takes long.
    pub async fn set_length(&self, key: impl AsRef<[u8]>) -> Result<Answer<i64>, ClientError> {
        integer(self.request(key, Op::SetLength).await?)
    }

    // --- hashes

    /// Writes fields. How many did the coordinator not know yet?
    pub async fn hash_set(
        &self,
        key: impl AsRef<[u8]>,
        fields: impl IntoIterator<Item = (impl AsRef<[u8]>, impl AsRef<[u8]>)>,
    ) -> Result<Answer<i64>, ClientError> {
        let pair = |(field, value): (_, _)| (copy(field), copy(value));
        let fields = fields.into_iter().map(pair).collect();
        integer(self.request(key, Op::HashSet { fields, absent_only: false }).await?)
    }

    /// The values of fields, in the order asked.
    pub async fn hash_get(
        &self,
        key: impl AsRef<[u8]>,
        fields: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Answer<Vec<Option<Bytes>>>, ClientError> {
        let answer = self.request(key, Op::HashGet { fields: list(fields) }).await?;
        expect(answer, "values", |reply| if let Reply::Values(each) = reply { Ok(each) } else { Err(reply) })
    }

    /// All fields with their values, sorted by field; large ones page by page, as [`Client::set_members`].
    pub async fn hash_all(&self, key: impl AsRef<[u8]>) -> Result<Answer<Vec<(Bytes, Bytes)>>, ClientError> {
        let key = key.as_ref();
        self.walk(|from| self.hash_page(key, from, PAGE_PLACES)).await
    }

    /// About `limit` fields with their values, as [`Client::set_page`].
    pub async fn hash_page(
        &self,
        key: impl AsRef<[u8]>,
        from: u64,
        limit: u32,
    ) -> Result<Answer<Page<(Bytes, Bytes)>>, ClientError> {
        let answer = self.request(key, Op::HashPage { from, limit }).await?;
        expect(answer, "a page of fields", |reply| match reply {
            Reply::PairPage { pairs, next } => Ok(Page { items: pairs, next }),
            other => Err(other),
        })
    }

    /// Removes fields as far as they were seen. How many were there?
    pub async fn hash_remove(
        &self,
        key: impl AsRef<[u8]>,
        fields: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Answer<i64>, ClientError> {
        integer(self.request(key, Op::HashRemove { fields: list(fields) }).await?)
    }

    /// Adds to a field that is a counter.
    pub async fn hash_increment(
        &self,
        key: impl AsRef<[u8]>,
        field: impl AsRef<[u8]>,
        by: i64,
    ) -> Result<Answer<i64>, ClientError> {
        let op = Op::HashIncrement { field: copy(field), by: Decimal::from_integer(by), integer: true };
        integer(self.request(key, op).await?)
    }

    /// All pages of a collection as one answer.
    async fn walk<T: Ord, F>(&self, page: impl Fn(u64) -> F) -> Result<Answer<Vec<T>>, ClientError>
    where
        F: Future<Output = Result<Answer<Page<T>>, ClientError>>,
    {
        let Answer { value: Page { mut items, mut next }, mut receipt, op_id, mut attempts } = page(0).await?;
        while let Some(from) = next {
            let more = page(from).await?;
            items.extend(more.value.items);
            next = more.value.next;
            receipt = receipt.and(more.receipt);
            attempts = attempts.max(more.attempts);
        }
        items.sort_unstable();
        Ok(Answer { value: items, receipt, op_id, attempts })
    }

    // --- siblings and flags

    /// The concurrent values of the key, and the context to write with.
    pub async fn siblings(&self, key: impl AsRef<[u8]>) -> Result<Answer<Siblings>, ClientError> {
        siblings(self.request(key, Op::SiblingsGet).await?)
    }

    /// Writes one value in place of just those that `context` saw. `None` replaces nothing and so adds a sibling. Gives the state after it.
    pub async fn put_sibling(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        context: Option<&Bytes>,
    ) -> Result<Answer<Siblings>, ClientError> {
        siblings(self.request(key, Op::SiblingsPut { value: value.into(), context: context.cloned() }).await?)
    }

    /// Is the flag on?
    pub async fn flag(&self, key: impl AsRef<[u8]>) -> Result<Answer<bool>, ClientError> {
        boolean(self.request(key, Op::FlagGet).await?)
    }

    /// Sets the flag; on wins over an off that did not see it. Gives the former state.
    pub async fn set_flag(&self, key: impl AsRef<[u8]>, on: bool) -> Result<Answer<bool>, ClientError> {
        boolean(self.request(key, Op::FlagSet { on }).await?)
    }

    // --- the cluster

    /// A walk over all keys, partition by partition, pages of about `page` keys. It is no snapshot: keys written meanwhile may or may
    /// not be seen.
    pub fn scan(&self, page: u32) -> Scan {
        let partitions = self.calls.map().layout.partitions;
        Scan { client: self.clone(), limit: page.max(1), partition: 0, partitions, after: None }
    }

    /// One page of the walk over one partition, for those who walk several at once.
    pub async fn scan_page(
        &self,
        partition: Partition,
        after: Option<u64>,
        limit: u32,
    ) -> Result<ScanPage, ClientError> {
        self.calls.scan(ScanRequest { partition, after, limit, timeout_us: 0 }, self.choices.timeout).await
    }

    /// Slot, partition, owners and stand-ins of a key.
    pub async fn whereabouts(&self, key: impl AsRef<[u8]>) -> Result<Whereabouts, ClientError> {
        let key = Key::new(copy(key));
        let question = |ticket| ClientMessage::Where { ticket, key: key.clone() };
        self.calls
            .ask_any(Some(&key), question, "whereabouts", |message| match message {
                ServerMessage::Where { whereabouts, .. } => Ok(whereabouts),
                other => Err(Box::new(other)),
            })
            .await
    }

    /// How one node is, in its own words.
    pub async fn status(&self, node: NodeId) -> Result<NodeStatus, ClientError> {
        let asked = self.calls.ask_node(node, |ticket| ClientMessage::Status { ticket }, self.choices.timeout);
        match asked.await? {
            ServerMessage::Status { status, .. } => Ok(*status),
            other => Err(calls::unexpected("a status", &other)),
        }
    }

    /// Makes one node compare all its rows with the other owners. Its status, then and later, tells how far it has come.
    pub async fn scrub(&self, node: NodeId) -> Result<NodeStatus, ClientError> {
        match self.calls.ask_node(node, |ticket| ClientMessage::Scrub { ticket }, self.choices.timeout).await? {
            ServerMessage::Status { status, .. } => Ok(*status),
            other => Err(calls::unexpected("a status", &other)),
        }
    }

    /// Has one node suffer a fault, or heals it; the node must have been started with `allow_faults`. Gives all faults that are on there
    /// then. For [`FaultOrder::Kill`], [`FaultOrder::Wipe`] and [`FaultOrder::Pause`] the answer comes about 50 ms before; these are not tried
    /// again when there is none, and the error says whether they may have happened.
    pub async fn fault(&self, node: NodeId, order: FaultOrder) -> Result<FaultStatus, ClientError> {
        let tries = if order.is_repeatable() { 2 } else { 1 };
        let question = |ticket| ClientMessage::Fault { ticket, order: order.clone() };
        match self.calls.ask_node_times(node, question, tries, self.choices.timeout).await? {
            ServerMessage::Fault { status: Ok(status), .. } => Ok(*status),
            ServerMessage::Fault { status: Err(error), .. } => Err(refused(error)),
            other => Err(calls::unexpected("a state of faults", &other)),
        }
    }

    /// What one node knows of a key.
    pub async fn explain(&self, node: NodeId, key: impl Into<Bytes>) -> Result<KeyStatus, ClientError> {
        let key = Key::new(key.into());
        let question = |ticket| ClientMessage::Explain { ticket, key: key.clone() };
        match self.calls.ask_node(node, question, self.choices.timeout).await? {
            ServerMessage::Explained { known: Ok(known), .. } => Ok(*known),
            ServerMessage::Explained { known: Err(error), .. } => Err(refused(error)),
            other => Err(calls::unexpected("an explanation", &other)),
        }
    }

    /// The layout as the client knows it, and who is up (`up[i]` speaks of `layout.members[i]`).
    pub fn layout(&self) -> (Layout, Vec<bool>) {
        let map = self.calls.map();
        (map.layout.clone(), map.up.clone())
    }

    /// Asks the cluster for the layout and who is up, now.
    pub async fn refresh_layout(&self) -> Result<(Layout, Vec<bool>), ClientError> {
        let refreshed = self.calls.refresh().await;
        let map = refreshed.map_err(|why| ClientError::NoSeed { tried: vec![("the cluster".into(), why)] })?;
        Ok((map.layout.clone(), map.up.clone()))
    }

    /// The member called `name`.
    pub fn member(&self, name: &str) -> Result<Member, ClientError> {
        let map = self.calls.map();
        let found = map.layout.members.iter().find(|member| member.name == name);
        found.cloned().ok_or_else(|| calls::unknown(&map, name))
    }
}

/// A walk over all keys of the cluster; see [`Client::scan`].
pub struct Scan {
    client: Client,
    limit: u32,
    partition: u16,
    partitions: u16,
    after: Option<u64>,
}

impl Scan {
    /// The next keys with their kinds, perhaps none; `None` when every partition is done. After an error the same page may be asked for
    /// again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<(Key, Kind)>>, ClientError> {
        if self.partition >= self.partitions {
            return Ok(None);
        }
        let page = self.client.scan_page(Partition(self.partition), self.after, self.limit).await?;
        self.after = page.next;
        if page.next.is_none() {
            self.partition += 1;
        }
        Ok(Some(page.keys))
    }

    /// How many partitions are done, and of how many.
    pub fn progress(&self) -> (u16, u16) {
        (self.partition, self.partitions)
    }
}

/// A question that is no request was refused.
fn refused(error: RequestError) -> ClientError {
    let outcome = error.outcome();
    ClientError::Refused { error, outcome, op_id: None, receipt: Box::default(), attempts: 1 }
}

fn copy(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

fn list(items: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<Bytes> {
    items.into_iter().map(copy).collect()
}

/// The answer's value as the type that the verb promises.
fn expect<T>(
    answer: Answer<Reply>,
    wanted: &'static str,
    read: impl FnOnce(Reply) -> Result<T, Reply>,
) -> Result<Answer<T>, ClientError> {
    let Answer { value, receipt, op_id, attempts } = answer;
    match read(value) {
        Ok(value) => Ok(Answer { value, receipt, op_id, attempts }),
        Err(other) => Err(ClientError::UnexpectedReply { wanted, got: format!("{other:?}") }),
    }
}

fn boolean(answer: Answer<Reply>) -> Result<Answer<bool>, ClientError> {
    expect(answer, "yes or no", |reply| if let Reply::Bool(yes) = reply { Ok(yes) } else { Err(reply) })
}

fn integer(answer: Answer<Reply>) -> Result<Answer<i64>, ClientError> {
    expect(answer, "an integer", |reply| if let Reply::Integer(number) = reply { Ok(number) } else { Err(reply) })
}

fn decimal(answer: Answer<Reply>) -> Result<Answer<Decimal>, ClientError> {
    expect(answer, "a number", |reply| match reply {
        Reply::Decimal(number) => Ok(number),
        Reply::Integer(number) => Ok(Decimal::from_integer(number)),
        other => Err(other),
    })
}

fn value(answer: Answer<Reply>) -> Result<Answer<Option<Bytes>>, ClientError> {
    expect(answer, "a value", |reply| if let Reply::Value(value) = reply { Ok(value) } else { Err(reply) })
}

fn siblings(answer: Answer<Reply>) -> Result<Answer<Siblings>, ClientError> {
    expect(answer, "siblings", |reply| match reply {
        Reply::Siblings { values, context } => Ok(Siblings { values, context }),
        other => Err(other),
    })
}

//! Walks: over the keys of the cluster, and over the members of one key.
//!
//! All walks are stateless: a cursor is a place in the order of hashes, in which keys, members and fields are stored. What is there throughout a walk is told at least once; what
//! comes or goes meanwhile may be told or not; a key may be told twice.

use bytes::Bytes;

use super::{Command, FAST, READ, barrier, integer, keys::kind_name, plain, word};
use crate::api::resp::frame::Frame;
use crate::api::resp::glob;
use crate::api::resp::plan::{Goal, Plan, Walk};
use crate::api::resp::refusal::{Refusal, SYNTAX};
use crate::api::resp::session::Call;
use crate::data::op::Kind;

/// More than this per page is answered with this many.
const COUNT_MAX: i64 = 10_000;

pub const COMMANDS: &[Command] = &[
    barrier(plain("scan", -2, READ, "generic", "Walk the keys of the whole cluster", scan)),
    barrier(plain("keys", 2, READ, "generic", "All keys of the cluster that match; costs a walk over all", keys)),
    barrier(plain("randomkey", 1, READ, "generic", "Some key of the cluster", randomkey)),
    barrier(plain("dbsize", 1, READ | FAST, "server", "Count the keys of the cluster; costs a walk over all", dbsize)),
];

/// The options of a walk.
pub struct Asked {
    pub cursor: u64,
    pub count: u32,
    pub pattern: Option<Bytes>,
    kind: Option<Kind>,
    pub without_values: bool,
}

impl Asked {
    /// Reads the cursor at `at` and the options after it.
    pub fn parse(call: &Call<'_>, at: usize) -> Result<Self, Refusal> {
        let cursor = std::str::from_utf8(&call.arguments[at]).ok().and_then(|text| text.parse().ok());
        let cursor = cursor.ok_or("ERR invalid cursor")?;
        let mut asked = Self { cursor, count: 10, pattern: None, kind: None, without_values: false };
        let mut options = call.arguments[at + 1..].iter();
        while let Some(option) = options.next() {
            let option = word(option);
            if option == "NOVALUES" && call.name == "hscan" {
                asked.without_values = true;
                continue;
            }
            let value = options.next().ok_or(SYNTAX)?;
            match option.as_str() {
                "COUNT" => match integer(value)? {
                    ..1 => return Err(SYNTAX.into()),
                    count => asked.count = count.min(COUNT_MAX) as u32,
                },
                "MATCH" => asked.pattern = (value.as_ref() != b"*").then(|| value.clone()),
                "TYPE" if call.name == "scan" => {
                    let kinds = [Kind::String, Kind::Set, Kind::Hash, Kind::Siblings, Kind::Flag];
                    let kind = kinds.into_iter().find(|kind| value.eq_ignore_ascii_case(kind_name(*kind).as_bytes()));
                    let unknown = || format!("ERR unknown type name '{}'", String::from_utf8_lossy(value));
                    asked.kind = Some(kind.ok_or_else(unknown)?);
                }
                _ => return Err(SYNTAX.into()),
            }
        }
        Ok(asked)
    }
}

/// A page of a collection: the cursor to go on with, and what of it matches. A cursor is a place, so the walk needs no memory.
pub fn page<T>(items: Vec<T>, name: impl Fn(&T) -> &Bytes, next: Option<u64>, asked: &Asked) -> (Frame, Vec<T>) {
    let matching = |item: &T| asked.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, name(item)));
    (Frame::text(next.unwrap_or(0).to_string()), items.into_iter().filter(matching).collect())
}

fn walk(goal: Goal, pattern: Option<Bytes>, kind: Option<Kind>) -> Plan {
    Plan::Walk(Box::new(Walk { goal, pattern, kind }))
}

fn scan(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let asked = Asked::parse(call, 1)?;
    Ok(walk(Goal::Page { cursor: asked.cursor, count: asked.count }, asked.pattern, asked.kind))
}

fn keys(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(walk(Goal::All, Some(call.arguments[1].clone()), None))
}

fn randomkey(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(walk(Goal::Any { seed: call.facts.random_u64() }, None, None))
}

fn dbsize(_: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(walk(Goal::Count, None, None))
}

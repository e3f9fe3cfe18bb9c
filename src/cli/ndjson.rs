//! A key as one line of JSON: what `export` writes and `import` reads.
//!
//! ```text
//!  {"key":"a","string":"x"}                     {"key":"n","counter":5}
//!  {"key":"s","set":["x","y"]}                  {"key":"h","hash":{"f":"v"}}
//!  {"key":"c","siblings":["x","y"]}             {"key":"f","flag":true}
//!  {"key":"a","string":"x","expire_at_ms":1790000000000}
//! ```
//!
//! Bytes that are no UTF-8 stand as `{"base64":"..."}` wherever a text may stand; a hash with a field that is no UTF-8 is written as
//! pairs: `"hash":[[field, value], ...]`. Numbers may stand for their text. A key may have several components in one line.
//!
//! A string that is counted upon (`INCR`) is exported as the string it shows, which Redis and Tidewater count on from there: so a
//! round trip keeps every visible value, not which of it was a counter.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::render::{bytes_of_json, json_bytes};
use crate::data::decimal::Decimal;
use crate::data::op::{Condition, DeadlineCondition, Op, SetExpiry};

/// Members and fields that go in one request, and about how many bytes of them.
const CHUNK_ITEMS: usize = 512;
const CHUNK_BYTES: usize = 1 << 20;

/// One key with what it holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    pub key: Bytes,
    /// In the order in which they are written.
    pub parts: Vec<Part>,
    /// Milliseconds since 1970.
    pub expire_at_ms: Option<u64>,
}

/// One component of a key.
#[derive(Clone, PartialEq, Debug)]
pub enum Part {
    String(Bytes),
    /// Added to what is there.
    Counter(Decimal),
    Set(Vec<Bytes>),
    Hash(Vec<(Bytes, Bytes)>),
    Siblings(Vec<Bytes>),
    Flag(bool),
}

/// One request of an item.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    pub op: Op,
    /// Made twice under two names it would count twice: its name must be remembered before it is sent.
    pub once: bool,
}

impl Item {
    /// Reads one line. The error says what is wrong and what is allowed.
    pub fn parse(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?;
        let Value::Object(fields) = value else { return Err("a line must be one object".into()) };
        let mut item = Self { key: Bytes::new(), parts: Vec::new(), expire_at_ms: None };
        let key = fields.get("key").ok_or("the object has no \"key\"")?;
        item.key = named("key", bytes_of_json(key))?;
        for (name, value) in &fields {
            let part = match name.as_str() {
                "key" => continue,
                "expire_at_ms" => {
                    let at_ms = value.as_u64().ok_or("expire_at_ms: use whole milliseconds since 1970")?;
                    item.expire_at_ms = Some(at_ms);
                    continue;
                }
                "string" => Part::String(named(name, bytes_of_json(value))?),
                "counter" => Part::Counter(named(name, number(value))?),
                "set" => Part::Set(named(name, list(value))?),
                "hash" => Part::Hash(named(name, pairs(value))?),
                "siblings" => Part::Siblings(named(name, list(value))?),
                "flag" => Part::Flag(value.as_bool().ok_or("flag: use true or false")?),
                other => {
                    return Err(format!(
                        "\"{other}\" is not known: use key, string, counter, set, hash, siblings, flag, expire_at_ms"
                    ));
                }
            };
            item.parts.push(part);
        }
        if item.parts.is_empty() {
            return Err("the object holds no value: give string, counter, set, hash, siblings or flag".into());
        }
        // A string comes first: writing it replaces components of other kinds.
        item.parts.sort_by_key(|part| !matches!(part, Part::String(_)));
        Ok(item)
    }

    /// One line, with no line end.
    pub fn line(&self) -> String {
        let mut fields = Map::new();
        fields.insert("key".into(), json_bytes(&self.key));
        for part in &self.parts {
            let (name, value) = match part {
                Part::String(value) => ("string", json_bytes(value)),
                Part::Counter(sum) => match sum.to_integer() {
                    Some(integer) => ("counter", integer.into()),
                    None => ("counter", sum.to_string().into()),
                },
                Part::Set(members) => ("set", members.iter().map(|member| json_bytes(member)).collect()),
                Part::Hash(pairs) => ("hash", hash(pairs)),
                Part::Siblings(values) => ("siblings", values.iter().map(|value| json_bytes(value)).collect()),
                Part::Flag(on) => ("flag", (*on).into()),
            };
            fields.insert(name.into(), value);
        }
        if let Some(at_ms) = self.expire_at_ms {
            fields.insert("expire_at_ms".into(), at_ms.into());
        }
        Value::Object(fields).to_string()
    }

    /// The requests that write it, in order.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut deadline = self.expire_at_ms;
        let mut step = |op, once| steps.push(Step { op, once });
        for part in &self.parts {
            match part {
                Part::String(value) => {
                    let expiry = deadline.take().map_or(SetExpiry::Never, SetExpiry::At);
                    step(Op::Set { value: value.clone(), expiry, condition: Condition::Always, old: false }, false);
                }
                Part::Counter(by) => step(Op::Increment { by: *by, integer: false }, true),
                Part::Set(members) => {
                    for members in chunks(members, Bytes::len) {
                        step(Op::SetAdd { members }, false);
                    }
                }
                Part::Hash(pairs) => {
                    for fields in chunks(pairs, |(field, value)| field.len() + value.len()) {
                        step(Op::HashSet { fields, absent_only: false }, false);
                    }
                }
                Part::Siblings(values) => {
                    for value in values {
                        step(Op::SiblingsPut { value: value.clone(), context: None }, true);
                    }
                }
                Part::Flag(on) => step(Op::FlagSet { on: *on }, false),
            }
        }
        if let Some(at_ms) = deadline {
            step(Op::SetDeadline { at_ms: Some(at_ms), condition: DeadlineCondition::Always }, false);
        }
        steps
    }
}

fn named<T>(name: &str, read: Result<T, String>) -> Result<T, String> {
    read.map_err(|why| format!("{name}: {why}"))
}

fn number(value: &Value) -> Result<Decimal, String> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err("use a number".into()),
    };
    Decimal::parse(text.as_bytes()).ok_or_else(|| format!("'{text}' is not a number that can be counted by"))
}

fn list(value: &Value) -> Result<Vec<Bytes>, String> {
    value.as_array().ok_or("use a list")?.iter().map(bytes_of_json).collect()
}

fn pairs(value: &Value) -> Result<Vec<(Bytes, Bytes)>, String> {
    match value {
        Value::Object(fields) => {
            let pair = |(field, value): (&String, &Value)| Ok((Bytes::from(field.clone()), bytes_of_json(value)?));
            fields.iter().map(pair).collect()
        }
        Value::Array(pairs) => {
            let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
                Some([field, value]) => Ok((bytes_of_json(field)?, bytes_of_json(value)?)),
                _ => Err("each pair must be [field, value]".to_owned()),
            };
            pairs.iter().map(pair).collect()
        }
        _ => Err("use an object, or a list of [field, value]".into()),
    }
}

fn hash(pairs: &[(Bytes, Bytes)]) -> Value {
    let text = |(field, value): &(Bytes, Bytes)| {
        std::str::from_utf8(field).ok().map(|field| (field.to_owned(), json_bytes(value)))
    };
    match pairs.iter().map(text).collect::<Option<Map<String, Value>>>() {
        Some(fields) => Value::Object(fields),
        None => pairs.iter().map(|(field, value)| Value::from(vec![json_bytes(field), json_bytes(value)])).collect(),
    }
}

/// Cuts a list so that no request gets too long; one item may be as long as it is.
fn chunks<T: Clone>(items: &[T], size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let full = chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK_ITEMS || bytes + size(item) > CHUNK_BYTES);
        if full {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += size(item);
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(item.clone());
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blob() -> impl Strategy<Value = Bytes> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..16).prop_map(Bytes::from),
            "[a-z0-9 \"\\\\é]{0,12}".prop_map(Bytes::from),
        ]
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            blob().prop_map(Part::String),
            any::<i64>().prop_map(|number| Part::Counter(Decimal::from_integer(number))),
            (-1_000_000_i128..1_000_000).prop_map(|units| Part::Counter(Decimal(units))),
            prop::collection::vec(blob(), 0..6).prop_map(Part::Set),
            prop::collection::btree_map(blob(), blob(), 0..6).prop_map(|map| Part::Hash(map.into_iter().collect())),
            prop::collection::vec(blob(), 0..6).prop_map(Part::Siblings),
            any::<bool>().prop_map(Part::Flag),
        ]
    }

    proptest! {
        #[test]
        fn a_key_comes_back_from_its_line(key in blob(), part in part(), expire_at_ms in any::<Option<u64>>()) {
            let item = Item { key, parts: vec![part], expire_at_ms };
            let line = item.line();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(Item::parse(&line), Ok(item));
        }

        #[test]
        fn any_line_is_read_or_refused(line in ".*") {
            let _ = Item::parse(&line);
        }
    }

    #[test]
    fn several_components_are_written_string_first() {
        let item = Item::parse(r#"{"key":"a","set":["x"],"flag":true,"string":"s","expire_at_ms":5}"#).expect("fine");
        let steps = item.steps();
        assert!(matches!(steps[0].op, Op::Set { expiry: SetExpiry::At(5), .. }));
        assert_eq!(steps.len(), 3);
        let item = Item::parse(r#"{"key":"a","set":["x"],"expire_at_ms":5}"#).expect("fine");
        assert!(matches!(item.steps()[1].op, Op::SetDeadline { at_ms: Some(5), .. }));
    }

    #[test]
    fn only_what_would_count_twice_needs_a_name() {
        let once = |line: &str| Item::parse(line).expect(line).steps().iter().map(|step| step.once).collect::<Vec<_>>();
        assert_eq!(once(r#"{"key":"a","counter":5}"#), [true]);
        assert_eq!(once(r#"{"key":"a","siblings":["x","y"]}"#), [true, true]);
        assert_eq!(once(r#"{"key":"a","set":["x"],"hash":{"f":1},"string":"s","flag":false}"#), [false; 4]);
    }

    #[test]
    fn long_collections_are_cut() {
        let members: Vec<Bytes> = (0..1_200).map(|at| Bytes::from(format!("m{at}"))).collect();
        let item = Item { key: Bytes::from("s"), parts: vec![Part::Set(members.clone())], expire_at_ms: None };
        let mut sent = Vec::new();
        for step in item.steps() {
            let Op::SetAdd { members } = step.op else { panic!("an addition") };
            assert!(members.len() <= CHUNK_ITEMS);
            sent.extend(members);
        }
        assert_eq!(sent, members);
        assert_eq!(chunks(&[Bytes::from(vec![0; 2 * CHUNK_BYTES]), Bytes::from("x")], Bytes::len).len(), 2);
    }

    #[test]
    fn faults_are_told_with_what_is_allowed() {
        for (line, told) in [
            ("", "no JSON"),
            ("[1]", "one object"),
            (r#"{"string":"x"}"#, "no \"key\""),
            (r#"{"key":"a"}"#, "holds no value"),
            (r#"{"key":"a","strin":"x"}"#, "use key, string, counter"),
            (r#"{"key":"a","counter":"many"}"#, "not a number"),
            (r#"{"key":"a","set":"x"}"#, "use a list"),
            (r#"{"key":"a","hash":[["f"]]}"#, "[field, value]"),
            (r#"{"key":{"base64":"%"},"string":"x"}"#, "base64 is damaged"),
            (r#"{"key":"a","flag":1}"#, "true or false"),
            (r#"{"key":"a","string":"x","expire_at_ms":-1}"#, "milliseconds since 1970"),
        ] {
            let error = Item::parse(line).expect_err(line);
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}

//! How answers look: bytes as text or JSON, receipts as a person wants them, tables, sizes and times.

use std::fmt::Write;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::data::consistency::{Ack, Consistency, Receipt};
use crate::data::id::NodeId;
use crate::ring::layout::Layout;

/// Bytes as one line for a person: text as it is, but for control characters; what is no text, escaped as Redis's own client does.
pub fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let mut out = String::with_capacity(text.len());
            for letter in text.chars() {
                if letter.is_control() && letter != '\n' && letter != '\t' {
                    out.extend(letter.escape_default());
                } else {
                    out.push(letter);
                }
            }
            out
        }
        Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// Bytes in JSON: a string, or `{"base64": "..."}` when they are no UTF-8. Import reads both back.
pub fn json_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({ "base64": BASE64_STANDARD.encode(bytes) }),
    }
}

/// The bytes that [`json_bytes`] wrote; numbers and booleans stand for their text. The error says what is allowed.
pub fn bytes_of_json(value: &Value) -> Result<Bytes, String> {
    match value {
        Value::String(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Value::Number(number) => Ok(Bytes::from(number.to_string())),
        Value::Object(fields) => match (fields.len(), fields.get("base64")) {
            (1, Some(Value::String(text))) => {
                let decoded = BASE64_STANDARD.decode(text);
                decoded.map(Bytes::from).map_err(|error| format!("the base64 is damaged: {error}"))
            }
            _ => Err("an object may only be {\"base64\": \"...\"} here".into()),
        },
        _ => Err("use a string, a number or {\"base64\": \"...\"}".into()),
    }
}

pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The names that a receipt's numbers stand for.
pub struct Names<'a>(pub &'a Layout);

impl Names<'_> {
    pub fn name(&self, node: NodeId) -> String {
        let member = self.0.members.iter().find(|member| member.id == node);
        member.map_or_else(|| format!("{node} (not in the layout)"), |member| member.name.clone())
    }

    fn zone(&self, node: NodeId) -> &str {
        let member = self.0.members.iter().find(|member| member.id == node);
        member.map_or("?", |member| member.zone.as_str())
    }

    fn list(&self, nodes: &[NodeId]) -> String {
        nodes.iter().map(|node| self.name(*node)).collect::<Vec<_>>().join(", ")
    }
}

/// A receipt for a person: what was asked, who did what, what was missing, how long it took.
///
/// ```text
///   asked         write quorum: 2 acknowledgements
///   coordinator   n2 (zone b), layout 1, 0.8 ms
///   acknowledged  n2   owner               zone b
///                 n1   owner               zone a   fsynced
///                 n4   stand-in for n3     zone c
///   missing       n3
/// ```
pub fn receipt<T>(answer: &Answer<T>, read: bool, asked: &Consistency, names: &Names) -> String {
    let receipt = &answer.receipt;
    let mut lines = vec![("asked", wish(read, asked, receipt.needed))];
    let took = duration(Duration::from_micros(receipt.took_us));
    match receipt.coordinator {
        Some(node) => lines.push((
            "coordinator",
            format!("{} (zone {}), layout {}, {took}", names.name(node), names.zone(node), receipt.layout),
        )),
        None => lines.push(("coordinator", format!("none: refused before one was found, {took}"))),
    }
    let acks = acknowledgements(&receipt.acks, names);
    let mut acks = acks.lines();
    lines.push(("acknowledged", acks.next().unwrap_or("nobody").to_owned()));
    lines.extend(acks.map(|ack| ("", ack.to_owned())));
    if !receipt.missing.is_empty() {
        // With its level met a request does not wait for the rest; that is no fault of theirs.
        let met = receipt.acks.len() >= usize::from(receipt.needed);
        let missing = |node: &NodeId| match receipt.acks.iter().any(|ack| ack.stand_in_for == Some(*node)) {
            false if met => format!("{} (not waited for)", names.name(*node)),
            _ => names.name(*node),
        };
        lines.push(("missing", receipt.missing.iter().map(missing).collect::<Vec<_>>().join(", ")));
    }
    for (label, nodes) in [("disagreed", &receipt.disagreed), ("repaired", &receipt.repaired)] {
        if !nodes.is_empty() {
            lines.push((label, names.list(nodes)));
        }
    }
    if receipt.stamped_again {
        lines.push((
            "stamped",
            "again, above a newer write that was met, or where a replica knew it to belong".to_owned(),
        ));
    }
    if receipt.duplicate {
        lines.push(("duplicate", "this operation was known already: it counts once".to_owned()));
    }
    if receipt.unchanged {
        lines.push(("unchanged", "there was nothing to do, and nothing was written".to_owned()));
    }
    if receipt.doubted > 0 {
        let increments = counted(u64::from(receipt.doubted), "increment");
        lines.push(("doubted", format!("{increments} that may be counted twice: not every owner was heard")));
    }
    if let Some(op_id) = answer.op_id {
        lines.push(("operation", op_id.to_string()));
    }
    if answer.attempts > 1 {
        lines.push(("tries", answer.attempts.to_string()));
    }
    lines.iter().fold(String::new(), |mut out, (label, line)| {
        let _ = writeln!(out, "  {label:<13} {line}");
        out
    })
}

fn wish(read: bool, asked: &Consistency, needed: u8) -> String {
    let (verb, level, noun) =
        if read { ("read", asked.read, "answer") } else { ("write", asked.write, "acknowledgement") };
    let mut wish = format!("{verb} {level}: {needed} {noun}{}", if needed == 1 { "" } else { "s" });
    if let (false, Some(durable)) = (read, asked.durable) {
        let _ = write!(wish, ", durable {durable}");
    }
    if asked.zones > 1 {
        let _ = write!(wish, ", {} zones", asked.zones);
    }
    if asked.owners_only {
        wish.push_str(", owners only");
    }
    wish
}

fn acknowledgements(acks: &[Ack], names: &Names) -> String {
    let row = |ack: &Ack| {
        let part = match ack.stand_in_for {
            None => "owner".to_owned(),
            Some(owner) => format!("stand-in for {}", names.name(owner)),
        };
        let fsynced = if ack.fsynced { "fsynced" } else { "" };
        vec![names.name(ack.node), part, format!("zone {}", names.zone(ack.node)), fsynced.to_owned()]
    };
    columns(&acks.iter().map(row).collect::<Vec<_>>())
}

/// A receipt for a machine.
pub fn receipt_json(receipt: &Receipt, names: &Names) -> Value {
    let list = |nodes: &[NodeId]| nodes.iter().map(|node| names.name(*node)).collect::<Vec<_>>();
    let ack = |ack: &Ack| {
        json!({
            "node": names.name(ack.node),
            "zone": names.zone(ack.node),
            "stand_in_for": ack.stand_in_for.map(|owner| names.name(owner)),
            "fsynced": ack.fsynced,
        })
    };
    json!({
        "coordinator": receipt.coordinator.map(|node| names.name(node)),
        "layout": receipt.layout,
        "needed": receipt.needed,
        "acks": receipt.acks.iter().map(ack).collect::<Vec<_>>(),
        "missing": list(&receipt.missing),
        "disagreed": list(&receipt.disagreed),
        "repaired": list(&receipt.repaired),
        "stamped_again": receipt.stamped_again,
        "duplicate": receipt.duplicate,
        "unchanged": receipt.unchanged,
        "doubted": receipt.doubted,
        "took_us": receipt.took_us,
    })
}

/// Rows as aligned columns, two spaces between, nothing at the ends of lines.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `17 B`, `1.5 KiB`, `3.2 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if size < 1023.95 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    format!("{size:.1} {unit}")
}

/// `850 us`, `1.2 ms`, `3.4 s`, `2 m 05 s`, `3 h 20 m`, `5 d 4 h`.
pub fn duration(time: Duration) -> String {
    let us = time.as_micros();
    let s = time.as_secs();
    match s {
        0 if us < 1_000 => format!("{us} us"),
        0 => format!("{:.1} ms", us as f64 / 1e3),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{} m {:02} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {:02} m", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// `1 key`, `1,234 keys`: for nouns that take an s.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::consistency::Level;
    use crate::ring::layout::Member;

    fn layout() -> Layout {
        let member = |(name, zone): (&str, &str)| Member {
            id: NodeId::from_name(name),
            name: name.into(),
            zone: zone.into(),
            weight: 1,
            quic: String::new(),
            resp: String::new(),
            http: String::new(),
        };
        let members = [("n1", "a"), ("n2", "b"), ("n3", "c"), ("n4", "c")].map(member).to_vec();
        Layout { version: 7, parent: 0, replicas: 3, partitions: 16, members }
    }

    fn answer() -> Answer<()> {
        let node = NodeId::from_name;
        let ack = |name, stand_in_for: Option<&str>, fsynced| Ack {
            node: node(name),
            zone: 0,
            stand_in_for: stand_in_for.map(node),
            fsynced,
        };
        Answer {
            value: (),
            receipt: Receipt {
                coordinator: Some(node("n2")),
                layout: 7,
                acks: vec![ack("n2", None, false), ack("n1", None, true), ack("n4", Some("n3"), false)],
                needed: 2,
                missing: vec![node("n3"), node("n1")],
                disagreed: vec![node("n1")],
                repaired: vec![node("n1")],
                took_us: 834,
                ..Receipt::default()
            },
            op_id: None,
            attempts: 2,
        }
    }

    #[test]
    fn a_receipt_tells_who_did_what() {
        let asked = Consistency { write: Level::Quorum, ..Consistency::default() };
        let told = receipt(&answer(), false, &asked, &Names(&layout()));
        assert_eq!(
            told,
            "  asked         write quorum: 2 acknowledgements
  coordinator   n2 (zone b), layout 7, 834 us
  acknowledged  n2  owner            zone b
                n1  owner            zone a  fsynced
                n4  stand-in for n3  zone c
  missing       n3, n1 (not waited for)
  disagreed     n1
  repaired      n1
  tries         2
"
        );
    }

    #[test]
    fn a_receipt_in_json_names_the_nodes() {
        let told = receipt_json(&answer().receipt, &Names(&layout()));
        assert_eq!(told["coordinator"], "n2");
        assert_eq!(told["acks"][2]["stand_in_for"], "n3");
        assert_eq!(told["missing"], json!(["n3", "n1"]));
    }

    #[test]
    fn a_receipt_of_a_refusal_is_readable_too() {
        let refused = Answer { value: (), receipt: Receipt::default(), op_id: None, attempts: 1 };
        let told = receipt(&refused, true, &Consistency::default(), &Names(&layout()));
        assert!(told.contains("nobody"), "{told}");
    }

    #[test]
    fn sizes_times_and_counts_are_told_briefly() {
        for (size, told) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (u64::MAX, "16384.0 PiB")]
        {
            assert_eq!(bytes(size), told);
        }
        for (us, told) in [
            (7, "7 us"),
            (1_200, "1.2 ms"),
            (3_400_000, "3.4 s"),
            (125_000_000, "2 m 05 s"),
            (12_000_000_000, "3 h 20 m"),
            (446_400_000_000, "5 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_micros(us)), told);
        }
        assert_eq!((counted(1, "key"), counted(1_234, "key")), ("1 key".into(), "1,234 keys".into()));
        assert_eq!((count(7), count(1_234), count(1_234_567)), ("7".into(), "1,234".into(), "1,234,567".into()));
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        assert_eq!(text("naïve".as_bytes()), "naïve");
        assert_eq!(text(b"\x1b[31m"), "\\u{1b}[31m");
        assert_eq!(text(b"\xff\"a"), "\"\\xff\\\"a\"");
    }

    proptest! {
        #[test]
        fn bytes_come_back_from_json(bytes in prop::collection::vec(any::<u8>(), 0..64), text in ".*") {
            prop_assert_eq!(bytes_of_json(&json_bytes(&bytes)), Ok(Bytes::from(bytes)));
            prop_assert_eq!(bytes_of_json(&json_bytes(text.as_bytes())), Ok(Bytes::from(text)));
        }
    }
}

//! For people and programs: the paths, the node's account of itself, where a key lives.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::{Site, answer};
use crate::api::door::Door;
use crate::data::op::{Key, Whereabouts};
use crate::wire::status::NodeStatus;

/// Who this is and what can be asked.
pub async fn index<D: Door>(State(site): State<Site<D>>) -> Response {
    let me = site.door.me();
    let (layout, _) = site.door.layout();
    let name = layout.members.iter().find(|member| member.id == me).map_or("?", |member| &member.name);
    let name = name.replace('&', "&amp;").replace('<', "&lt;");
    let links: Vec<_> = ["/health", "/ready", "/status", "/metrics", "/where?key=a"]
        .iter()
        .map(|path| format!("<a href=\"{path}\">{path}</a>"))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let links = links.join(" ");
    let body = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>Tidewater {name}</title>\n\
         <p>Tidewater {version}, node {name} ({me}). This door is read only.\n\
         <p>{links}\n"
    );
    answer::page(StatusCode::OK, answer::HTML, body)
}

pub async fn status<D: Door>(State(site): State<Site<D>>) -> Response {
    answer::json(StatusCode::OK, &status_json(&site.door.status().await))
}

/// All of it as it stands, but ids as 16 hexadecimal digits: most JSON readers round integers above 2^53.
fn status_json(status: &NodeStatus) -> Value {
    let mut page = serde_json::to_value(status).expect("structs whose map keys are strings are always JSON");
    page["node"] = status.node.to_string().into();
    page["incarnation"] = status.incarnation.to_string().into();
    for (at, peer) in status.peers.iter().enumerate() {
        page["peers"][at]["node"] = peer.node.to_string().into();
    }
    for (at, fault) in status.faults.iter().flat_map(|faults| &faults.network).enumerate() {
        page["faults"]["network"][at]["peer"] = fault.peer.to_string().into();
    }
    page
}

pub async fn whereabouts<D: Door>(State(site): State<Site<D>>, RawQuery(query): RawQuery) -> Response {
    match key_of(query.as_deref().unwrap_or_default(), site.key_size_max) {
        Ok(key) => answer::json(StatusCode::OK, &WherePage::new(site.door.whereabouts(&Key::new(key)))),
        Err(fault) => answer::refusal(StatusCode::BAD_REQUEST, "bad request", &fault.to_string()),
    }
}

#[derive(Serialize)]
struct WherePage {
    slot: u16,
    partition: u16,
    layout: u64,
    /// Owners first, then stand-ins, in order of preference.
    nodes: Vec<WhereNode>,
}

#[derive(Serialize)]
struct WhereNode {
    node: String,
    name: String,
    zone: String,
    owner: bool,
    up: bool,
}

impl WherePage {
    fn new(found: Whereabouts) -> Self {
        let nodes = found.nodes.into_iter().map(|(node, name, zone, owner, up)| WhereNode {
            node: node.to_string(),
            name,
            zone,
            owner,
            up,
        });
        Self { slot: found.slot, partition: found.partition.0, layout: found.layout, nodes: nodes.collect() }
    }
}

/// Why a query names no key. Nothing was looked up.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
enum QueryError {
    #[error("no key was given: ask /where?key=..., any byte as %xx")]
    Missing,
    #[error("'key' is given twice: ask for one key at a time")]
    Twice,
    #[error("unknown parameter '{name}': only 'key' is known")]
    Unknown { name: String },
    #[error("'%' at byte {at} of the key is not followed by two hexadecimal digits: write '%' itself as %25")]
    Escape { at: usize },
    #[error("the key has {size} bytes: at most {max} are allowed")]
    Long { size: usize, max: usize },
}

/// The bytes of `key=...`, which need not be text. As in a form, `+` is a space.
fn key_of(query: &str, size_max: usize) -> Result<Vec<u8>, QueryError> {
    let mut key = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "key" {
            return Err(QueryError::Unknown { name: name.chars().take(64).collect() });
        }
        if key.replace(unescape(value.as_bytes())?).is_some() {
            return Err(QueryError::Twice);
        }
    }
    let key = key.ok_or(QueryError::Missing)?;
    if key.len() > size_max {
        return Err(QueryError::Long { size: key.len(), max: size_max });
    }
    Ok(key)
}

fn unescape(text: &[u8]) -> Result<Vec<u8>, QueryError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'%' => {
                let digit = |offset| text.get(at + offset).and_then(|digit| char::from(*digit).to_digit(16));
                let (Some(high), Some(low)) = (digit(1), digit(2)) else { return Err(QueryError::Escape { at }) };
                bytes.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            b'+' => bytes.push(b' '),
            plain => bytes.push(plain),
        }
        at += 1;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_one_key_of_any_bytes() {
        let cases: [(&str, Result<&[u8], QueryError>); 11] = [
            ("key=user:1", Ok(b"user:1")),
            ("key=", Ok(b"")),
            ("key", Ok(b"")),
            ("key=a%00%fF%25b+c%2B=d", Ok(b"a\0\xff%b c+=d")),
            ("&key=a&", Ok(b"a")),
            ("", Err(QueryError::Missing)),
            ("key=a&key=b", Err(QueryError::Twice)),
            ("key=a&limit=3", Err(QueryError::Unknown { name: "limit".into() })),
            ("key=a%2", Err(QueryError::Escape { at: 1 })),
            ("key=%+1", Err(QueryError::Escape { at: 0 })),
            ("key=123456789", Err(QueryError::Long { size: 9, max: 8 })),
        ];
        for (query, expected) in cases {
            // The longest good case is 10 bytes; only the last is told to fit into 8.
            let size_max = if query.ends_with('9') { 8 } else { 64 };
            assert_eq!(key_of(query, size_max), expected.map(<[u8]>::to_vec), "{query}");
        }
    }
}

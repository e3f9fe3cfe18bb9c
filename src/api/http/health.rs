//! For probes. `/health`: would a restart help? `/ready`: should requests be sent here?
//!
//! A node that others see as down is healthy, and a node that waits for others is ready: every live node answers.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{Site, answer};
use crate::api::door::Door;

/// 200 while the process runs and its store is not fenced.
pub async fn health<D: Door>(State(site): State<Site<D>>) -> Response {
    match site.door.status().await.fenced {
        None => answer::page(StatusCode::OK, answer::PLAIN, "ok"),
        Some(reason) => fenced(&reason),
    }
}

/// 200 while this node is a member that its own view has up, and its store is open.
pub async fn ready<D: Door>(State(site): State<Site<D>>) -> Response {
    if let Some(reason) = site.door.status().await.fenced {
        return fenced(&reason);
    }
    let me = site.door.me();
    let (layout, up) = site.door.layout();
    let version = layout.version;
    match layout.members.iter().position(|member| member.id == me) {
        None => {
            let reason = format!("node {me} is no member of layout {version}");
            answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "not a member", &reason)
        }
        Some(index) if up.get(index) == Some(&true) => answer::page(StatusCode::OK, answer::PLAIN, "ready"),
        Some(index) => {
            let name = &layout.members[index].name;
            let reason = format!("the view of node {name} has the node itself down: it is joining or leaving");
            answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "down", &reason)
        }
    }
}

fn fenced(reason: &str) -> Response {
    answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "fenced", reason)
}

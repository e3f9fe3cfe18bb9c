//! What is loaded: a cluster that is started here, or nodes that somebody else started, and who they are.

use std::sync::Arc;
use std::time::Duration;

use tidewater::{Client, ClientOptions};
use tokio::time::timeout;

use crate::args::{Protocol, RunArgs};
use crate::cluster::{Cluster, Outcome, Wanted};
use crate::load::crew::Door;
use crate::target::resp::Manner;
use crate::target::slots::Shared;
use crate::target::wire::Wire;

/// What is loaded.
pub struct Subject {
    pub door: Door,
    /// Somebody who can ask the nodes how they are.
    pub client: Option<Client>,
    pub local: Option<Cluster>,
    pub nodes: Vec<String>,
    pub replicas: u8,
    /// For the report.
    pub text: String,
    pub durability: String,
    pub levels: (String, String),
    pub is_tidewater: bool,
}

/// Starts or finds what is to be loaded.
pub async fn subject(args: &RunArgs) -> Outcome<Subject> {
    let local = match &args.target {
        Some(_) => None,
        None => Some(
            Cluster::start_as(Wanted {
                nodes: args.nodes,
                replicas: args.replicas.min(args.nodes.min(32) as u8),
                first_port: args.port,
                apart: false,
                allow_faults: true,
            })
            .await?,
        ),
    };
    let options = match (&local, &args.target) {
        (Some(cluster), _) => Some(cluster.options.clone()),
        (None, Some(target)) => {
            let seeds = if target.protocol == Protocol::Native { target.nodes.clone() } else { args.quic.clone() };
            match &args.tls_dir {
                Some(dir) if !seeds.is_empty() => {
                    let identity = tidewater::cli::connect::identity(dir).map_err(|error| error.to_string())?;
                    Some(ClientOptions::new(seeds, identity))
                }
                _ => None,
            }
        }
        (None, None) => None,
    };
    let client = match (&local, &options) {
        (Some(cluster), _) => Some(cluster.client.clone()),
        (None, Some(options)) => Some(Client::connect(options.clone()).await?),
        (None, None) => None,
    };
    let layout = client.as_ref().map(|client| client.layout().0);
    let nodes: Vec<String> =
        layout.iter().flat_map(|layout| layout.members.iter().map(|member| member.name.clone())).collect();
    let replicas =
        layout.as_ref().map_or(args.replicas, |layout| layout.replicas.min(layout.members.len().min(255) as u8));
    let consistency = args.consistency();
    let (door, is_tidewater) = match args.protocol() {
        Protocol::Native => {
            let options = options.ok_or("--target quic:// needs --tls-dir")?;
            (Door::Native(Box::new(ClientOptions { timeout: args.timeout, ..options }), consistency), true)
        }
        Protocol::Resp => {
            let addresses = match (&local, &args.target) {
                (Some(cluster), _) => cluster.nodes.iter().map(|node| node.resp.clone()).collect(),
                (None, Some(target)) => target.nodes.clone(),
                (None, None) => Vec::new(),
            };
            resp_door(args, &addresses).await?
        }
    };
    let count = if nodes.is_empty() { String::new() } else { format!(", {} nodes", nodes.len()) };
    let text = match (args.protocol(), is_tidewater) {
        (Protocol::Native, _) => format!("tidewater{count}, native"),
        (Protocol::Resp, true) => format!("tidewater{count}, RESP"),
        (Protocol::Resp, false) => "redis, RESP".into(),
    };
    let waits = if args.wait > 0 { format!(", WAIT {}", args.wait) } else { String::new() };
    let (levels, durability) = if is_tidewater {
        let needed = consistency.write.needed(replicas);
        let fsynced = consistency.durable.map(|level| format!(", {level} fsynced")).unwrap_or_default();
        let kept = if consistency.owners_only { "owners" } else { "owners or stand-ins" };
        let durability = format!("{needed} of {replicas} {kept} have it in the operating system's cache{fsynced}");
        ((consistency.write.to_string(), consistency.read.to_string()), durability)
    } else {
        let durability = format!("the primary has it as its appendfsync says{waits}");
        ((format!("primary{waits}"), "primary".to_owned()), durability)
    };
    Ok(Subject { door, client, local, nodes, replicas, text, durability, levels, is_tidewater })
}

/// Finds out who speaks there.
async fn resp_door(args: &RunArgs, addresses: &[String]) -> Outcome<(Door, bool)> {
    let consistency = args.consistency();
    let mut words: Vec<String> = ["TW.CONSISTENCY", "WRITE"].map(String::from).into();
    words.push(consistency.write.to_string());
    if let Some(level) = consistency.durable {
        words.extend(["DURABLE".into(), level.to_string()]);
    }
    words.extend(["ZONES".into(), consistency.zones.to_string()]);
    words.extend(["OWNERS".into(), if consistency.owners_only { "yes" } else { "no" }.into()]);
    words.extend(["TIMEOUT".into(), args.timeout.as_millis().to_string()]);
    let greeting = |level: String| words.iter().cloned().chain(["READ".into(), level]).collect::<Vec<_>>();
    let usual = greeting(consistency.read.to_string());
    let mut last = String::new();
    for address in addresses {
        let asked: Vec<&[u8]> = usual.iter().map(String::as_bytes).collect();
        let said = timeout(args.timeout, async { Wire::open(address).await?.ask_text(&asked).await }).await;
        let is_tidewater = match said {
            Ok(Ok(Ok(_))) => true,
            Ok(Ok(Err(said))) if said.to_ascii_lowercase().contains("unknown command") => false,
            Ok(Ok(Err(said))) => return Err(format!("{address}: {said}").into()),
            Ok(Err(error)) => {
                last = format!("{address}: {error}");
                continue;
            }
            Err(_) => {
                last = format!("{address} does not answer");
                continue;
            }
        };
        if !is_tidewater && args.names_consistency() {
            return Err(format!("{address} is not Tidewater and knows no levels: leave them out, or use --wait").into());
        }
        let manner = Manner {
            // The server's own deadline comes first, so that its word is heard.
            timeout: args.timeout + Duration::from_millis(500),
            wait: args.wait,
            greeting: is_tidewater.then(|| usual.clone()),
            greeting_all: is_tidewater.then(|| greeting("all".into())),
        };
        let shared = Shared::open(addresses, is_tidewater).await?;
        return Ok((Door::Resp(Arc::new(shared), Arc::new(manner)), is_tidewater));
    }
    Err(format!("nobody answers: {last}").into())
}

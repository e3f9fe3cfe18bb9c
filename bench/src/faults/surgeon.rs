//! Does to a cluster what a scenario says. Processes that we started ourselves are stopped, killed and started by us; networks and
//! clocks are hurt by the nodes themselves, which must have been started with `--allow-faults`, and so is everything in a cluster that
//! somebody else started.

use std::fs;
use std::time::Duration;

use tidewater::Client;
use tidewater::data::id::NodeId;
use tidewater::wire::fault::{FaultOrder, NetworkFault};

use super::schedule::{Action, Effect, Fault};
use crate::cluster::{Cluster, Outcome};

/// A fault that nobody ends, because we are gone, ends by itself so much later.
const BY_ITSELF: Duration = Duration::from_secs(30);
/// For faults without an end, which the end of the run ends.
const LONG: Duration = Duration::from_secs(12 * 3_600);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Whoever can hurt a cluster and heal it.
#[allow(async_fn_in_trait, reason = "the player is generic over it and stays on its thread")]
pub trait Surgeon {
    /// Can all of this be done? Asked before the run.
    fn check(&self, fault: &Fault) -> Result<(), String>;
    async fn begin(&mut self, fault: &Fault) -> Outcome<()>;
    async fn end(&mut self, fault: &Fault) -> Outcome<()>;
}

/// The node that is told, its peers, and what it is to do to them.
type Order = (String, Vec<NodeId>, Vec<NetworkFault>);

/// Hurts a cluster of Tidewater nodes.
pub struct Hands {
    client: Client,
    /// The processes, if they are ours.
    local: Option<Cluster>,
    /// Network faults that are on: all must be told again to a node that was started anew.
    network: Vec<Fault>,
}

impl Hands {
    pub fn new(client: Client, local: Option<Cluster>) -> Self {
        Self { client: client.within(Duration::from_secs(3)), local, network: Vec::new() }
    }

    pub fn local(&self) -> Option<&Cluster> {
        self.local.as_ref()
    }

    fn id(&self, name: &str) -> Outcome<NodeId> {
        Ok(self.client.member(name)?.id)
    }

    fn ids(&self, names: &[String]) -> Outcome<Vec<NodeId>> {
        names.iter().map(|name| self.id(name)).collect()
    }

    /// What each node is told for a network fault.
    fn orders(&self, action: &Action) -> Outcome<Vec<Order>> {
        let mut orders = Vec::new();
        match action {
            Action::Network { sides, effect } => {
                let faults = match effect {
                    Effect::Cut => vec![NetworkFault::CutOut, NetworkFault::CutIn],
                    Effect::Loss { ppm } => vec![NetworkFault::Loss { ppm: *ppm }],
                    Effect::Duplicate { ppm } => vec![NetworkFault::Duplicate { ppm: *ppm }],
                    Effect::Delay { delay, jitter } => {
                        let us = |time: &Duration| time.as_micros() as u32;
                        vec![NetworkFault::Delay { us: us(delay) }, NetworkFault::Jitter { us: us(jitter) }]
                    }
                };
                for (at, side) in sides.iter().enumerate() {
                    let others = sides.iter().enumerate().filter(|(other, _)| *other != at);
                    let peers: Vec<String> = others.flat_map(|(_, side)| side.iter().cloned()).collect();
                    let peers = self.ids(&peers)?;
                    orders.extend(side.iter().map(|node| (node.clone(), peers.clone(), faults.clone())));
                }
            }
            Action::OneWay { from, to } => {
                let (senders, receivers) = (self.ids(from)?, self.ids(to)?);
                orders.extend(from.iter().map(|node| (node.clone(), receivers.clone(), vec![NetworkFault::CutOut])));
                orders.extend(to.iter().map(|node| (node.clone(), senders.clone(), vec![NetworkFault::CutIn])));
            }
            _ => {}
        }
        Ok(orders)
    }

    /// Tells a network fault to its nodes, or only to one. Who is down cannot be told; the other side of a cut is.
    async fn hurt(&self, fault: &Fault, only: Option<&str>) -> Outcome<()> {
        let for_ms = fault.lasts.map_or(LONG, |lasts| lasts + BY_ITSELF).as_millis() as u64;
        let mut told = 0;
        let mut last = None;
        for (node, peers, faults) in self.orders(&fault.action)? {
            if only.is_some_and(|only| only != node) {
                continue;
            }
            match self.client.fault(self.id(&node)?, FaultOrder::network(peers, faults, Some(for_ms))).await {
                Ok(_) => told += 1,
                Err(error) => last = Some(format!("{node}: {error}")),
            }
        }
        match last {
            Some(error) if told == 0 => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn start(&mut self, nodes: &[String]) -> Outcome<()> {
        let Some(local) = &mut self.local else { return Ok(()) };
        for node in nodes {
            local.spawn(place(local, node)?)?;
        }
        if self.network.is_empty() {
            return Ok(());
        }
        for node in nodes {
            let local = self.local.as_ref().ok_or("the cluster is gone")?;
            local.until_open(place(local, node)?).await?;
            for fault in &self.network {
                self.hurt(fault, Some(node)).await?;
            }
        }
        Ok(())
    }

    async fn tell(&self, nodes: &[String], order: impl Fn() -> FaultOrder) -> Outcome<()> {
        for node in nodes {
            self.client.fault(self.id(node)?, order()).await.map_err(|error| format!("{node}: {error}"))?;
        }
        Ok(())
    }
}

impl Surgeon for Hands {
    fn check(&self, fault: &Fault) -> Result<(), String> {
        match (&fault.action, &self.local) {
            (Action::Restart { .. }, None) => {
                Err(format!("'{}': nodes that somebody else started cannot be restarted from here", fault.text))
            }
            (Action::Pause { .. }, None) if fault.lasts.is_none_or(|lasts| lasts > PAUSE_MAX) => Err(format!(
                "'{}': a node that is asked to stand still does so for 10m at most: say for how long",
                fault.text
            )),
            _ => Ok(()),
        }
    }

    async fn begin(&mut self, fault: &Fault) -> Outcome<()> {
        match &fault.action {
            Action::Network { .. } | Action::OneWay { .. } => {
                self.hurt(fault, None).await?;
                self.network.push(fault.clone());
            }
            Action::Clock { nodes, offset_ms } => {
                let for_ms = fault.lasts.map_or(LONG, |lasts| lasts + BY_ITSELF).as_millis() as u64;
                self.tell(nodes, || FaultOrder::Clock { offset_ms: *offset_ms, for_ms: Some(for_ms) }).await?;
            }
            Action::Pause { nodes } => match &self.local {
                Some(local) => {
                    for node in nodes {
                        local.signal(place(local, node)?, libc::SIGSTOP)?;
                    }
                }
                None => {
                    let for_ms = fault.lasts.unwrap_or(PAUSE_MAX).as_millis() as u64;
                    self.tell(nodes, || FaultOrder::Pause { for_ms }).await?;
                }
            },
            Action::Kill { nodes } => match &mut self.local {
                Some(local) => {
                    for node in nodes {
                        let at = place(local, node)?;
                        local.kill(at)?;
                    }
                }
                None => self.tell(nodes, || FaultOrder::Kill).await?,
            },
            Action::Wipe { nodes } => match &mut self.local {
                Some(local) => {
                    for node in nodes {
                        let at = place(local, node)?;
                        local.kill(at)?;
                        fs::remove_dir_all(&local.nodes[at].store)?;
                    }
                }
                None => self.tell(nodes, || FaultOrder::Wipe).await?,
            },
            Action::Restart { nodes } => {
                let local =
                    self.local.as_mut().ok_or("nodes that somebody else started cannot be restarted from here")?;
                for node in nodes {
                    let at = place(local, node)?;
                    local.stop_gently(at).await?;
                }
                self.start(nodes).await?;
            }
        }
        Ok(())
    }

    async fn end(&mut self, fault: &Fault) -> Outcome<()> {
        match &fault.action {
            Action::Network { .. } | Action::OneWay { .. } => {
                if let Some(at) = self.network.iter().position(|known| known == fault) {
                    self.network.remove(at);
                }
                for (node, peers, _) in self.orders(&fault.action)? {
                    // Who is down has lost it anyway, and who cannot be told now forgets it by itself.
                    let _ = self.client.fault(self.id(&node)?, FaultOrder::HealPeers { peers }).await;
                }
                for fault in &self.network {
                    self.hurt(fault, None).await?;
                }
            }
            Action::Clock { nodes, .. } => {
                for node in nodes {
                    let _ = self.client.fault(self.id(node)?, FaultOrder::Clock { offset_ms: 0, for_ms: None }).await;
                }
            }
            Action::Pause { nodes } => {
                if let Some(local) = &self.local {
                    for node in nodes {
                        local.signal(place(local, node)?, libc::SIGCONT)?;
                    }
                }
            }
            Action::Kill { nodes } | Action::Wipe { nodes } => self.start(nodes).await?,
            Action::Restart { .. } => {}
        }
        Ok(())
    }
}

/// The place of `n3`.
fn place(local: &Cluster, node: &str) -> Outcome<usize> {
    let found = local.nodes.iter().position(|known| known.name == node);
    found.ok_or_else(|| format!("there is no node {node}").into())
}

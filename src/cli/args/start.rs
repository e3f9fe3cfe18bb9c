//! The verbs that start nodes: `dev`, `node` and `demo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::duration;

/// `tidewater dev`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater dev                               three nodes; redis-cli -p 7001 set a 1
  tidewater dev --nodes 5 --zones 3           five nodes in three zones
  tidewater dev --data /tmp/tide --resp-port 7101 --quic-port 9101 --http-port 8101
  tidewater dev --allow-faults                nodes that `tidewater faults` may cut off, stop and kill
  tidewater dev --restart 2                   from another terminal: start node 2 again after it was killed

Ctrl-C stops all nodes in an orderly way. A node that is killed stays down until it is started
again, by --restart or by its own command line `tidewater node --config DIR/nK/node.toml`.")]
pub struct DevArgs {
    /// How many nodes [default: 3, or what the data folder was made with]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: Option<u16>,
    /// Where certificates, settings, stores and logs are kept
    #[arg(long, value_name = "DIR", default_value = "./tidewater-data")]
    pub data: PathBuf,
    /// RESP port of the first node; the others count up [default: 7001]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub resp_port: Option<u16>,
    /// QUIC port of the first node; the others count up [default: 9001]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub quic_port: Option<u16>,
    /// HTTP port of the first node; the others count up [default: 8001]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub http_port: Option<u16>,
    /// Owners of each key [default: 3, or as many as there are nodes]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=7))]
    pub replicas: Option<u8>,
    /// Spread the nodes over this many zones, turn by turn [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub zones: Option<u16>,
    /// Start node K again in a cluster that runs already, and return
    #[arg(
        long,
        value_name = "K",
        conflicts_with_all = ["nodes", "resp_port", "quic_port", "http_port", "replicas", "zones"],
        value_parser = clap::value_parser!(u16).range(1..=64)
    )]
    pub restart: Option<u16>,
    /// Let `tidewater faults` hurt the nodes that are started now
    #[arg(long)]
    pub allow_faults: bool,
    /// How long to wait until every node is ready
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub ready_timeout: Duration,
}

/// `tidewater node`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater node --config /etc/tidewater/node.toml
  tidewater node --config node.toml --check
  tidewater node --config node.toml --set memory=1GiB --set swim.probe_period=500ms

Every setting may also be given in the environment: TIDEWATER_MEMORY=1GiB, or, with two underscores
for the dot, TIDEWATER_SWIM__PROBE_PERIOD=500ms. --set wins over it, and it over the file.")]
pub struct NodeArgs {
    /// The settings; deploy/node.toml tells them all
    #[arg(long, value_name = "FILE", env = "TIDEWATER_CONFIG")]
    pub config: PathBuf,
    /// Give one setting another value, as name=value or section.name=value
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub overrides: Vec<String>,
    /// Let every client hurt this node on purpose (`tidewater faults`); the same as --set allow_faults=true
    #[arg(long)]
    pub allow_faults: bool,
    /// Judge the settings, print what they mean and stop
    #[arg(long, conflicts_with = "probe")]
    pub check: bool,
    /// Say whether the node of these settings is open on this machine (exit code 0: it is; 1: it is not)
    #[arg(long)]
    pub probe: bool,
}

/// `tidewater demo`
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Where the demo's cluster is kept
    #[arg(long, value_name = "DIR", default_value = "./tidewater-demo")]
    pub data: PathBuf,
    /// Files and folders to import [default: the sources of the crates in the local cargo registry]
    #[arg(long = "from", value_name = "PATH")]
    pub from: Vec<PathBuf>,
    /// Import at most this many files
    #[arg(long, value_name = "COUNT", default_value_t = 4000)]
    pub files: u32,
    /// RESP port of the first node
    #[arg(long, value_name = "PORT", default_value_t = 7401)]
    pub resp_port: u16,
    /// QUIC port of the first node
    #[arg(long, value_name = "PORT", default_value_t = 9401)]
    pub quic_port: u16,
    /// HTTP port of the first node
    #[arg(long, value_name = "PORT", default_value_t = 8401)]
    pub http_port: u16,
    /// Keep the data folder when done
    #[arg(long)]
    pub keep: bool,
}

//! `tidewater tls`: which certificates, for whom.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Output;

/// `tidewater tls`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater tls init --dir ca --cluster shop
  tidewater tls issue --dir ca --name n1 --role node --host n1.example.net
  tidewater tls issue --dir ca --name client --role client
  tidewater tls show --dir ca

Keep ca.key away from the nodes: whoever has it can make members of this cluster.")]
pub struct TlsArgs {
    #[command(subcommand)]
    pub verb: TlsVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum TlsVerb {
    /// Make the authority of a new cluster: ca.crt and ca.key
    Init(TlsInitArgs),
    /// Issue a certificate for a node or a client: NAME.crt and NAME.key
    Issue(TlsIssueArgs),
    /// Show the certificates of a folder: names, roles and when they end
    Show(TlsShowArgs),
}

#[derive(Args, Clone, Debug)]
pub struct TlsInitArgs {
    /// Where ca.crt and ca.key are written
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The cluster's name; certificates of another name are refused
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// How many days the authority lasts
    #[arg(long, value_name = "COUNT", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
}

#[derive(Args, Clone, Debug)]
pub struct TlsIssueArgs {
    /// The folder that holds ca.crt and ca.key
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The node's name as in node.toml, or the client's
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// What the certificate is for
    #[arg(long, value_enum, value_name = "ROLE")]
    pub role: TlsRole,
    /// A host name or address at which Redis clients reach the node over TLS; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Where NAME.crt, NAME.key and a copy of ca.crt are written [default: --dir]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How many days it lasts
    #[arg(long, value_name = "COUNT", default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// Replace a certificate of this name
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsRole {
    Node,
    Client,
}

#[derive(Args, Clone, Debug)]
pub struct TlsShowArgs {
    #[arg(long, value_name = "DIR", default_value = "./tidewater-data/tls")]
    pub dir: PathBuf,
    /// The form of what is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

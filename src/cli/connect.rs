//! From what was typed about the cluster to a client of it.

use std::path::Path;

use super::CliError;
use super::args::{ConnectArgs, RequestArgs};
use crate::client::{Client, ClientError, ClientOptions};
use crate::data::consistency::Consistency;
use crate::net::entropy;
use crate::net::tls::Identity;

/// Whom a person's commands believe and who they are, in the folder of `--tls-dir`.
pub const AUTHORITY: &str = "ca.crt";
const CERTIFICATE: &str = "client.crt";
const KEY: &str = "client.key";

/// A client for one request's choices.
pub async fn for_request(args: &RequestArgs) -> Result<Client, CliError> {
    connect(&args.connect, args.consistency.consistency()).await
}

/// A client with these choices.
pub async fn connect(args: &ConnectArgs, consistency: Consistency) -> Result<Client, CliError> {
    let options = options(args, consistency)?;
    Client::connect(options).await.map_err(|error| match error {
        ClientError::NoSeed { .. } => CliError::failed(format!(
            "{error}\nIs the cluster running? Start one with `tidewater dev`, or name its nodes with --connect HOST:PORT."
        )),
        other => other.into(),
    })
}

/// What a client is told before it connects.
pub fn options(args: &ConnectArgs, consistency: Consistency) -> Result<ClientOptions, CliError> {
    let identity = identity(&args.tls_dir)?;
    Ok(ClientOptions { consistency, timeout: args.timeout, ..ClientOptions::new(args.connect.clone(), identity) })
}

/// The certificate in a folder of `--tls-dir`.
pub fn identity(tls_dir: &Path) -> Result<Identity, CliError> {
    let file = |name: &str| tls_dir.join(name);
    Identity::load(&file(AUTHORITY), &file(CERTIFICATE), &file(KEY), entropy::wall_ms()).map_err(|error| {
        CliError::failed(format!(
            "{error}\nThe folder of --tls-dir ({}) must hold {AUTHORITY}, {CERTIFICATE} and {KEY}. `tidewater dev` makes them; for \
             another cluster use `tidewater tls issue --role client`.",
            tls_dir.display()
        ))
    })
}

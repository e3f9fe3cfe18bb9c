//! `tidewater node`: one node in the foreground, until it is told to stop.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::api::http::{self, HttpOptions};
use crate::api::resp::{self, Plain, RespOptions};
use crate::host::options::NodeConfig;
use crate::host::{Host, clock};
use crate::net::tls::{Identity, TlsAcceptor, TlsStream, resp_server_config};

use super::args::start::NodeArgs;
use super::config::{self, Loaded};
use super::dev::StopSignals;
use super::process::ReadyFile;
use super::settings::Place;
use super::{CliError, print};

/// Makes its own runtime, with as many threads as the settings say.
pub fn run(mut args: NodeArgs) -> Result<ExitCode, CliError> {
    if args.allow_faults {
        args.overrides.push("allow_faults=true".to_owned());
    }
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let loaded = config::load(&args.config, &environment, &args.overrides)?;
    if args.check {
        print(&told(&loaded))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.probe {
        return probe(&loaded.config);
    }
    start_log(&loaded.config.log.filter)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    super::runtime(loaded.config.thread_count())?.block_on(serve(loaded.config))
}

fn probe(config: &NodeConfig) -> Result<ExitCode, CliError> {
    let name = &config.name;
    match ReadyFile::read(&config.data) {
        Some(process) => print(&format!("{name} is open (pid {})\n", process.pid)).map(|()| ExitCode::SUCCESS),
        None => Err(CliError::failed(format!("{name} is not open"))),
    }
}

/// Runs the node until a signal comes. The ready file and the word to the service manager come when the doors are open.
async fn serve(config: NodeConfig) -> Result<ExitCode, CliError> {
    // Before the start, which may be long: a stop that comes meanwhile is obeyed when it can be.
    let mut stop = StopSignals::listen()?;
    let data = config.data.clone();
    let host = start(config).await?;
    let ready = ReadyFile::write(&data).map_err(CliError::io(format!("cannot write to {}", data.display())))?;
    notify("READY=1");
    stop.received().await;
    notify("STOPPING=1");
    tracing::info!("stopping");
    drop(ready);
    host.stop().await?;
    Ok(ExitCode::SUCCESS)
}

/// A running node with its doors.
struct Running {
    host: Host,
    resp: tokio::task::JoinHandle<std::io::Result<()>>,
    http: tokio::task::JoinHandle<std::io::Result<()>>,
    close: watch::Sender<bool>,
}

impl Running {
    /// Doors first, so that nobody is let in to a node that is going; then the node itself.
    async fn stop(self) -> Result<(), CliError> {
        let Self { host, resp, http, close } = self;
        // The door may have closed by itself: then there is nobody to tell.
        let _ = close.send(true);
        let doors = async { (resp.await, http.await) };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(8), doors).await;
        host.stop().await.map_err(|error| CliError::failed(error.to_string()))
    }
}

async fn start(config: NodeConfig) -> Result<Running, CliError> {
    let name = config.name.clone();
    let failed = |error: &dyn std::fmt::Display| CliError::failed(format!("{name}: {error}"));
    let listener = TcpListener::bind(config.resp.listen).await.map_err(|error| {
        failed(&format_args!("cannot listen for RESP on {} (setting resp.listen): {error}", config.resp.listen))
    })?;
    let pages = TcpListener::bind(config.http.listen).await.map_err(|error| {
        failed(&format_args!("cannot listen for HTTP on {} (setting http.listen): {error}", config.http.listen))
    })?;
    let host = Host::start(&config).await.map_err(|error| failed(&error))?;
    let (close, closed) = watch::channel(false);
    let options = RespOptions {
        passwords: config.resp.passwords.iter().map(|password| password.0.clone()).collect(),
        max_connections: config.resp.connections_max as usize,
        value_size_max: config.limits.value_bytes_max as usize,
        key_size_max: config.limits.key_bytes_max as usize,
        timeout_ms: config.timeout_ms,
        pipeline_max: config.resp.pipeline_max as usize,
        consistency: config.consistency,
    };
    let http_options = HttpOptions { key_size_max: config.limits.key_bytes_max as usize, ..HttpOptions::default() };
    let http = tokio::spawn(http::serve(pages, host.handle().clone(), http_options, closed.clone()));
    let handle = host.handle().clone();
    let resp = if config.resp.tls {
        let identity =
            Identity::load(&config.tls.authority, &config.tls.certificate, &config.tls.key, clock::wall_ms())
                .map_err(|error| failed(&error))?;
        let acceptor = resp_server_config(&identity, false).map_err(|error| failed(&error))?;
        tokio::spawn(resp::serve(listener, Tls(acceptor), handle, options, closed))
    } else {
        tokio::spawn(resp::serve(listener, Plain, handle, options, closed))
    };
    tracing::info!(node = name, quic = %config.quic.listen, resp = %config.resp.listen, "ready");
    Ok(Running { host, resp, http, close })
}

/// TLS around each connection of the RESP door.
#[derive(Clone)]
struct Tls(TlsAcceptor);

impl resp::Accept for Tls {
    type Stream = TlsStream;

    async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream> {
        self.0.accept(stream).await
    }
}

/// Lines for people, on the standard error. RUST_LOG wins over the settings.
fn start_log(filter: &str) -> Result<(), CliError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            CliError::usage(format!("environment variable RUST_LOG: '{text}' is no filter: {error}"))
        })?,
        _ => EnvFilter::try_new(filter).map_err(|error| CliError::usage(format!("log.filter: {error}")))?,
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    log.try_init().map_err(|error| CliError::failed(format!("cannot start the log: {error}")))
}

/// Tells systemd how we are, where it asks (`Type=notify`); best effort, as its protocol wants it.
fn notify(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || -> std::io::Result<()> {
        let address = match name.as_encoded_bytes() {
            [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
            _ => SocketAddr::from_pathname(&name)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
        Ok(())
    };
    if let Err(error) = send() {
        tracing::warn!("the service manager could not be told '{state}': {error}");
    }
}

fn told(loaded: &Loaded) -> String {
    let width = loaded.meanings.iter().map(|meaning| meaning.field.len()).max().unwrap_or(0);
    let mut text = String::new();
    for meaning in &loaded.meanings {
        let place = match &meaning.place {
            Place::File { line, .. } => format!("line {line}"),
            Place::Environment(variable) => variable.clone(),
            Place::Flag => "--set".into(),
            Place::Nowhere => "default".into(),
        };
        let _ = writeln!(text, "{:<width$} = {:<32} # {place}", meaning.field, meaning.value);
    }
    for warning in &loaded.warnings {
        let _ = writeln!(text, "# warning: {warning}");
    }
    text
}

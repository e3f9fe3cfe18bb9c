//! `tidewater dev`: starts the nodes of a local cluster, tells how to reach them, watches, and stops them on Ctrl-C.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use super::args::start::DevArgs;
use super::local::{LocalCluster, LocalEvent, Wish, restart, restart_command};
use super::{CliError, print};

const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How long nodes may take to stop in order.
const STOP_GRACE: Duration = Duration::from_secs(10);

pub async fn run(args: DevArgs) -> Result<ExitCode, CliError> {
    let program = own_program()?;
    if let Some(number) = args.restart {
        let pid = restart(&args.data, number, &program, args.allow_faults, args.ready_timeout).await?;
        print(&format!("n{number} is back (pid {pid}).\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let wish = Wish {
        nodes: args.nodes,
        resp_port: args.resp_port,
        quic_port: args.quic_port,
        http_port: args.http_port,
        replicas: args.replicas,
        zones: args.zones,
        allow_faults: args.allow_faults,
    };
    // Before anything is started, so that no Ctrl-C leaves it behind.
    let mut stop = StopSignals::listen()?;
    let mut cluster = LocalCluster::open(&args.data, &wish, program)?;
    let started = tokio::select! {
        started = cluster.start_all(args.ready_timeout) => started.map(|()| true),
        () = stop.received() => Ok(false),
    };
    let watched = match started {
        Ok(true) => watch(&mut cluster, &mut stop).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    stop_all(&mut cluster, &mut stop).await;
    watched.map(|()| ExitCode::SUCCESS)
}

/// The binary that runs now.
pub fn own_program() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(CliError::io("cannot find this program's own file"))
}

/// Ctrl-C, a closed terminal, or a request to end.
pub struct StopSignals {
    interrupt: SignalStream,
    terminate: SignalStream,
    hang_up: SignalStream,
}

impl StopSignals {
    /// From now on these signals no longer end the process.
    pub fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::io("cannot listen to signals"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The next of them.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

async fn watch(cluster: &mut LocalCluster, stop: &mut StopSignals) -> Result<(), CliError> {
    print(&welcome(cluster))?;
    loop {
        tokio::select! {
            () = stop.received() => return Ok(()),
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        for event in cluster.poll() {
            print(&told(&event, cluster))?;
        }
    }
}

async fn stop_all(cluster: &mut LocalCluster, stop: &mut StopSignals) {
    if !cluster.is_running() {
        return;
    }
    // The terminal may be gone, and that is no reason to leave nodes behind.
    let _ = print("\nStopping the nodes (again Ctrl-C: at once) ...\n");
    let late = tokio::select! {
        late = cluster.stop_all(STOP_GRACE) => Some(late),
        () = stop.received() => None,
    };
    let late = match late {
        Some(late) => late,
        None => cluster.stop_all(Duration::ZERO).await,
    };
    let message = match late.is_empty() {
        true => "All are stopped; the data is kept.\n".to_owned(),
        false => format!("Stopped by force: {}. The data is kept.\n", late.join(", ")),
    };
    let _ = print(&message);
}

fn welcome(cluster: &LocalCluster) -> String {
    let plan = &cluster.plan;
    let mut text =
        format!("\n{} nodes, {} owners of each key, in {}\n\n", plan.nodes, plan.replicas, cluster.data.display());
    let _ = writeln!(text, "  {:<5} {:>8}  {:<16} {:<16} {:<23} LOG", "NODE", "PID", "REDIS", "QUIC", "HTTP");
    for node in cluster.nodes() {
        let pid = node.pid().map_or("down".into(), |pid| pid.to_string());
        let http = format!("http://{}", node.http);
        let _ = writeln!(
            text,
            "  {:<5} {pid:>8}  {:<16} {:<16} {http:<23} {}",
            node.name,
            node.resp,
            node.quic,
            node.log.display()
        );
    }
    let last = plan.resp_port + plan.nodes - 1;
    let (first, second) = (plan.resp_port, last);
    let mut clients = String::new();
    if cluster.addresses()[0] != "127.0.0.1:9001" {
        let _ = write!(clients, " --connect {}", cluster.addresses()[0]);
    }
    if cluster.data != std::path::Path::new("./tidewater-data") {
        let _ = write!(clients, " --tls-dir {}", cluster.tls_dir().display());
    }
    let faults = if cluster.allow_faults { format!("\x20 tidewater faults show{clients}\n") } else { String::new() };
    let victim = cluster.nodes().last().and_then(|node| node.pid()).unwrap_or_default();
    let _ = write!(
        text,
        "\nTry, in another terminal:\n\
         \x20 redis-cli -p {first} set a 1 && redis-cli -p {second} get a\n\
         \x20 redis-cli -p {first} TW.WHERE a\n\
         \x20 tidewater status{clients}\n{faults}\
         \x20 kill -9 {victim}; redis-cli -p {first} incr a; {}\n\n\
         Ctrl-C stops all nodes.\n\n",
        restart_command(&cluster.data, plan.nodes, cluster.allow_faults)
    );
    text
}

fn told(event: &LocalEvent, cluster: &LocalCluster) -> String {
    match event {
        LocalEvent::Back { name, pid } => format!("{name} is back (pid {pid}).\n"),
        LocalEvent::Ended { number, name, how, log_tail } => {
            let mut text = format!(
                "{name} {how}. Start it again: {}\n",
                restart_command(&cluster.data, *number, cluster.allow_faults)
            );
            for line in log_tail {
                let _ = writeln!(text, "    {line}");
            }
            text
        }
    }
}

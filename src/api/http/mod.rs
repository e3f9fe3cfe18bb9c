//! The HTTP door: how a node is, for people, probes and Prometheus. Read only.
//!
//! ```text
//!  TCP -> hyper (parses, bounds) -> axum (path, method) -> admin   /  /status  /where
//!                                                       -> health  /health  /ready       -> Door
//!                                                       -> metrics /metrics
//! ```
//! hyper is driven here rather than by `axum::serve`, which can bound neither the wait for a request nor the number of connections.
//! Whatever a client does or leaves undone, a connection ends by itself:
//! 1. The next request's head has to come within the timeout, and to be short.
//! 2. A request is answered within the timeout, if only by saying that the node did not answer. Bodies are not read.
//! 3. A connection takes no more requests after [`CONNECTION_AGE_MAX`], and has the timeout to end what is under way.
//!
//! Trusts: those who can reach the address; there is no password, since nothing here changes or shows data. Does not: serve keys,
//! keep anything, or speak TLS.

mod admin;
mod answer;
mod health;
mod metrics;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::api::door::Door;

/// Settings of the HTTP door.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Connections served at once; one more is told so and closed.
    pub max_connections: usize,
    /// How long a client may take to ask, the node to answer and the client to take the answer, each, in milliseconds.
    pub timeout_ms: u64,
    /// Largest key that `/where` takes, in bytes.
    pub key_size_max: usize,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { max_connections: 256, timeout_ms: 5_000, key_size_max: 32 << 10 }
    }
}

impl HttpOptions {
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// After this long a connection takes no more requests, so that none holds its place for ever.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// Longest request line and headers, in bytes. A longer path than 64 KiB hyper refuses by itself.
const HEAD_BYTES_MAX: usize = 80 << 10;
/// Connections being told at once that there are too many; beyond these they are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
/// How long telling that may take.
const TURN_AWAY: Duration = Duration::from_secs(1);
/// Pause after the machine refused a connection (no more file descriptors): trying at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves HTTP/1.1 on `listener` until `shutdown` turns true (or its sender is gone); then takes no more, answers what is under way
/// and returns, at the latest after the timeout.
pub async fn serve<D: Door>(
    listener: TcpListener,
    door: D,
    options: HttpOptions,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let timeout = options.timeout();
    let places = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
    let words = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let router = router(door, options);
    let stop = shutdown.clone();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                report(ended);
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                if let Ok(place) = places.clone().try_acquire_owned() {
                    let (router, stop) = (router.clone(), stop.clone());
                    connections.spawn(async move {
                        serve_one(stream, router, timeout, stop).await;
                        drop(place);
                    });
                } else if let Ok(word) = words.clone().try_acquire_owned() {
                    connections.spawn(async move {
                        turn_away(stream).await;
                        drop(word);
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Each ends by itself, see above.
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
    Ok(())
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an HTTP connection ended by a bug");
    }
}

async fn serve_one(stream: TcpStream, router: Router, patience: Duration, mut stop: watch::Receiver<bool>) {
    // Answers are written whole: waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_header_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => Ok(ended),
        () = async {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = sleep(CONNECTION_AGE_MAX) => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            timeout(patience, connection).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection broke"),
        Err(_) => tracing::debug!("an HTTP connection was cut off: its client did not take the answer"),
    }
}

/// Says that there are too many, so that a probe can tell it from a dead node.
async fn turn_away(mut stream: TcpStream) {
    let body = "{\"status\":\"overloaded\",\"reason\":\"too many HTTP connections at this node: try again\"}\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        answer::JSON,
        body.len()
    );
    let mut heard = [0; 4096];
    let told = timeout(TURN_AWAY, async {
        // Closing while bytes are unread resets the connection, which may take the answer along.
        if stream.read(&mut heard).await? > 0 {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            while stream.read(&mut heard).await? > 0 {}
        }
        io::Result::Ok(())
    });
    let _ = told.await;
}

/// What every path may use.
#[derive(Clone)]
struct Site<D> {
    door: D,
    key_size_max: usize,
}

fn router<D: Door>(door: D, options: HttpOptions) -> Router {
    let site = Site { door, key_size_max: options.key_size_max };
    Router::new()
        .route("/", get(admin::index::<D>))
        .route("/health", get(health::health::<D>))
        .route("/ready", get(health::ready::<D>))
        .route("/status", get(admin::status::<D>))
        .route("/metrics", get(metrics::metrics::<D>))
        .route("/where", get(admin::whereabouts::<D>))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(options.timeout(), in_time))
        .with_state(site)
}

async fn unknown(uri: Uri) -> Response {
    let reason = format!("there is no {}: GET / lists what there is", uri.path());
    answer::refusal(StatusCode::NOT_FOUND, "not found", &reason)
}

async fn wrong_method(method: Method) -> Response {
    let reason = format!("{method} is not taken here: this door is read only, use GET or HEAD");
    answer::refusal(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", &reason)
}

/// Answers for a node that does not.
async fn in_time(State(patience): State<Duration>, request: Request, next: Next) -> Response {
    timeout(patience, next.run(request)).await.unwrap_or_else(|_| {
        let reason = format!("the node gave no account of itself within {} ms", patience.as_millis());
        answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "timeout", &reason)
    })
}

//! What a client may be told when it connects.

use std::time::Duration;

use crate::data::consistency::Consistency;
use crate::net::tls::Identity;

/// How to reach a cluster and how patient to be with it.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// QUIC addresses (`host:port`) of some nodes. One that answers is enough: it tells the others. Three are better than one.
    pub seeds: Vec<String>,
    /// The client's certificate and key, and the cluster's authority.
    pub identity: Identity,
    /// What each call asks for unless [`Client::with`](super::Client::with) says otherwise.
    pub consistency: Consistency,
    /// The longest a call may take, all tries together. Default 2 s.
    pub timeout: Duration,
    /// How long the first try of a call may take; each further try may take twice as long. Keep it well below `timeout`, so that
    /// there is time for another node when one does not answer. Default 400 ms.
    pub first_try_timeout: Duration,
    /// How long opening a link may take. Default 2 s.
    pub dial_timeout: Duration,
    /// Requests under way per node before more are refused here, without being sent. Default 4096.
    pub in_flight_max: usize,
    /// Largest message either way, in bytes; a bit above the cluster's largest value. Default 16 MiB.
    pub frame_bytes_max: usize,
    /// Retries that may be made at once after a quiet time; in the long run they are a tenth of the calls, and ten a second are
    /// always allowed. Default 256.
    pub retry_burst: u32,
    /// How old the client's idea of the layout and of who is up may get while it is used. Default 5 s.
    pub layout_age_max: Duration,
}

impl ClientOptions {
    /// The defaults, for these seeds and this identity.
    pub fn new(seeds: impl IntoIterator<Item = impl Into<String>>, identity: Identity) -> Self {
        Self {
            seeds: seeds.into_iter().map(Into::into).collect(),
            identity,
            consistency: Consistency::default(),
            timeout: Duration::from_secs(2),
            first_try_timeout: Duration::from_millis(400),
            dial_timeout: Duration::from_secs(2),
            in_flight_max: 4096,
            frame_bytes_max: 16 << 20,
            retry_burst: 256,
            layout_age_max: Duration::from_secs(5),
        }
    }
}

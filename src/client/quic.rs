//! Links over QUIC, as the client wants them.

use std::sync::Arc;

use bytes::Bytes;

use super::link::{BoxFuture, Dialled, Ear, SendRefused, Transport, Wire};
use super::options::ClientOptions;
use crate::net::endpoint::{Endpoint, NetError};
use crate::net::link::{CloseCode, Link, LinkEnd, SendError, Sink};
use crate::net::options::NetOptions;
use crate::wire::frame::{Class, FrameError};

/// How long the other side is given to hear that the client has gone.
const GOODBYE_MS: u64 = 200;

pub(crate) struct Quic {
    endpoint: Endpoint,
}

impl Quic {
    /// Must be called inside a tokio runtime, on which all links will run.
    pub fn open(options: &ClientOptions) -> Result<Self, NetError> {
        let net = NetOptions {
            dial_timeout_ms: u64::try_from(options.dial_timeout.as_millis()).unwrap_or(u64::MAX),
            ..NetOptions::for_frames(options.frame_bytes_max)
        };
        Ok(Self { endpoint: Endpoint::client(options.identity.clone(), net)? })
    }
}

impl Transport for Quic {
    fn dial<'a>(
        &'a self,
        address: &'a str,
        name: Option<&'a str>,
        ear: Arc<dyn Ear>,
    ) -> BoxFuture<'a, Result<Dialled, String>> {
        Box::pin(async move {
            let sink = Arc::new(Hearing(ear));
            let link = match name {
                Some(name) => self.endpoint.dial(address, name, sink).await,
                None => self.endpoint.dial_any(address, sink).await,
            };
            let link = link.map_err(|error| error.to_string())?;
            Ok(Dialled { name: link.peer().name().to_owned(), wire: Box::new(Sending(link)) })
        })
    }

    fn close(&self) {
        let endpoint = self.endpoint.clone();
        // Without a runtime there is nobody left to say goodbye.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { endpoint.close(CloseCode::Done, "the client is done", GOODBYE_MS).await });
        }
    }
}

struct Sending(Link);

impl Wire for Sending {
    fn send(&self, frame: &Bytes) -> Result<(), SendRefused> {
        self.0.send(Class::Foreground, frame).map_err(|error| match error {
            SendError::Full => SendRefused::Full,
            SendError::Unframeable(FrameError::TooLarge { len, max }) => {
                SendRefused::TooLarge { size: len as u64, limit: max as u64 }
            }
            SendError::Closed | SendError::Unframeable(FrameError::Empty) | SendError::DatagramTooLarge { .. } => {
                SendRefused::Closed
            }
        })
    }

    fn close(&self, why: &str) {
        self.0.close(CloseCode::Done, why);
    }
}

struct Hearing(Arc<dyn Ear>);

impl Sink for Hearing {
    fn on_frames(&self, _: &Link, _: Class, frames: Vec<Bytes>) {
        self.0.on_frames(frames);
    }

    fn on_datagram(&self, _: &Link, _: Bytes) {}

    fn on_closed(&self, _: &Link, end: &LinkEnd) {
        self.0.on_closed(&end.text);
    }
}

//! The UDP socket under quinn: binding it, its buffers, and how many packets go into one system call.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

/// What the kernel takes and gives in one segmented send or receive: the length field of UDP.
const SEGMENTED_BYTES_MAX: usize = 65_507;

/// Wraps `socket` for quinn after asking for larger buffers: a burst that finds the receive buffer full is lost, and retransmitting
/// costs far more than memory.
pub(super) fn wrap(socket: UdpSocket, buffer_bytes: usize) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let options = socket2::SockRef::from(&socket);
    // The kernel clips these to its own limit; a refusal leaves its default, with which everything still works.
    let _ = options.set_recv_buffer_size(buffer_bytes);
    let _ = options.set_send_buffer_size(buffer_bytes);
    TokioRuntime.wrap_udp_socket(socket)
}

/// Keeps segmented sends within what the kernel takes. quinn puts ten packets into one whatever their size, which beyond 6.5 KB a packet
/// the kernel refuses as too long, and then all ten are lost.
#[derive(Debug)]
pub(super) struct Segmented {
    inner: Arc<dyn AsyncUdpSocket>,
    /// Of the packets in segmented sends so far: it grows when probing finds that a path carries more.
    largest: AtomicUsize,
    packets_received: usize,
}

impl Segmented {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, udp_bytes_max: u16) -> Self {
        let in_one = (SEGMENTED_BYTES_MAX + 1).div_ceil(usize::from(udp_bytes_max)) + 1;
        let packets_received = inner.max_receive_segments().min(in_one).max(1);
        Self { inner, largest: AtomicUsize::new(1), packets_received }
    }

    /// The few sends that were made up before it was known that packets had become larger.
    fn split(&self, transmit: &Transmit, packet: usize) -> io::Result<()> {
        let together = (SEGMENTED_BYTES_MAX / packet).max(1) * packet;
        for (at, contents) in transmit.contents.chunks(together).enumerate() {
            let part = Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn,
                contents,
                segment_size: Some(packet),
                src_ip: transmit.src_ip,
            };
            match self.inner.try_send(&part) {
                // To say so now would have quinn send all of it again: the rest is lost, which QUIC is made for.
                Err(error) if at > 0 && error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                other => other?,
            }
        }
        Ok(())
    }
}

impl AsyncUdpSocket for Segmented {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        if let Some(packet) = transmit.segment_size {
            if packet > self.largest.load(Ordering::Relaxed) {
                self.largest.store(packet, Ordering::Relaxed);
            }
            if transmit.contents.len() > SEGMENTED_BYTES_MAX {
                return self.split(transmit, packet);
            }
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        let fit = SEGMENTED_BYTES_MAX / self.largest.load(Ordering::Relaxed).max(1);
        self.inner.max_transmit_segments().min(fit).max(1)
    }

    fn max_receive_segments(&self) -> usize {
        self.packets_received
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

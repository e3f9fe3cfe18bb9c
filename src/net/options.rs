//! How QUIC is tuned, and why so.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::wire::frame::{Class, FRAME_BYTES_MAX_DEFAULT};

/// What may be set about links. Sizes in bytes, times in milliseconds; the limits say what [`NetOptions::clamped`] makes of a value
/// outside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// The largest payload of one frame, both ways. All nodes and clients of a cluster must agree. 1 KiB to 256 MiB.
    pub frame_bytes_max: usize,
    /// How much may wait per link and class before `Full`; one frame may overshoot it. At least 64 KiB, and well above the largest
    /// frame: what comes behind a frame that fills the queue is dropped, and whoever asked waits for its deadline.
    pub queue_bytes_max: usize,
    /// How many frames may wait per link and class before `Full`. At least 16.
    pub queue_frames_max: usize,
    /// How long dialling may take, all of it: name, handshake, welcome. 10 to 60,000.
    pub dial_timeout_ms: u64,
    /// How many handshakes of others may be under way; more are refused. 1 to 4096.
    pub handshakes_max: usize,
    /// Silence after which a keep-alive is sent. Less than a third of the idle timeout.
    pub keep_alive_ms: u64,
    /// Silence after which a link counts as gone. Never a failure detector: SWIM is, and it is quicker. 1,000 to 600,000.
    pub idle_timeout_ms: u64,
    /// How much one stream may have under way unread. At least bandwidth times round trip, or a transfer does not fill the network; not much
    /// more, since what a transfer has under way stands in line before everybody's next packet. 64 KiB to 256 MiB.
    pub stream_window_bytes: u32,
    /// The largest UDP payload that is tried for (1,200 to 32,000). What the path really carries is found out by probing; a network with
    /// plain Ethernet frames settles near 1,472 whatever stands here.
    pub udp_bytes_max: u16,
    /// An acknowledgement is owed after this many packets ... 1 to 64.
    pub ack_packets: u32,
    /// ... or after this time, whichever comes first. 1 to 25.
    pub ack_delay_ms: u64,
    /// Send and receive buffers asked of the kernel for the one UDP socket; it gives no more than `net.core.{r,w}mem_max`.
    pub socket_buffer_bytes: usize,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
            queue_bytes_max: 4 * FRAME_BYTES_MAX_DEFAULT,
            queue_frames_max: 32 << 10,
            dial_timeout_ms: 3_000,
            handshakes_max: 64,
            keep_alive_ms: 1_500,
            idle_timeout_ms: 8_000,
            stream_window_bytes: 2 << 20,
            udp_bytes_max: 16_000,
            ack_packets: 10,
            ack_delay_ms: 5,
            socket_buffer_bytes: 4 << 20,
        }
    }
}

impl NetOptions {
    /// The defaults for links that carry frames of up to this size: a few of them fit the queue.
    pub fn for_frames(frame_bytes_max: usize) -> Self {
        let default = Self::default();
        Self { frame_bytes_max, queue_bytes_max: default.queue_bytes_max.max(4 * frame_bytes_max), ..default }
    }

    /// The same with every value within its limits.
    pub fn clamped(mut self) -> Self {
        self.frame_bytes_max = self.frame_bytes_max.clamp(1 << 10, 256 << 20);
        self.queue_bytes_max = self.queue_bytes_max.max(64 << 10);
        self.queue_frames_max = self.queue_frames_max.max(16);
        self.dial_timeout_ms = self.dial_timeout_ms.clamp(10, 60_000);
        self.handshakes_max = self.handshakes_max.clamp(1, 4096);
        self.idle_timeout_ms = self.idle_timeout_ms.clamp(1_000, 600_000);
        self.keep_alive_ms = self.keep_alive_ms.clamp(100, self.idle_timeout_ms / 3);
        self.stream_window_bytes = self.stream_window_bytes.clamp(64 << 10, 256 << 20);
        self.udp_bytes_max = self.udp_bytes_max.clamp(1_200, 32_000);
        self.ack_packets = self.ack_packets.clamp(1, 64);
        self.ack_delay_ms = self.ack_delay_ms.clamp(1, 25);
        self
    }

    /// quinn's settings for these options, which must be clamped.
    pub(super) fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        let idle = IdleTimeout::from(VarInt::from_u32(self.idle_timeout_ms as u32));
        transport.max_idle_timeout(Some(idle)).keep_alive_interval(Some(Duration::from_millis(self.keep_alive_ms)));

        // One stream each way per class, and no more: a peer that opens another is not one of ours.
        transport.max_concurrent_uni_streams(VarInt::from_u32(Class::COUNT as u32));
        transport.max_concurrent_bidi_streams(VarInt::from_u32(0));

        // The bulkhead between classes. A stream can have at most its own window under way, and the link's windows hold those of all
        // classes twice (quinn keeps a piece until all of it is acknowledged), so a class that is stuck cannot use up another's room.
        let stream = u64::from(self.stream_window_bytes);
        let link = stream * Class::COUNT as u64 * 2;
        transport.stream_receive_window(VarInt::from_u32(self.stream_window_bytes));
        transport.receive_window(VarInt::from_u64(link).expect("three clamped windows fit in 62 bits"));
        transport.send_window(link);
        // Classes have different priorities and one stream each, so there is nobody to be fair to.
        transport.send_fairness(false);

        // Membership speaks by datagrams of about a kilobyte, a few a second; old ones are worth nothing.
        transport.datagram_receive_buffer_size(Some(256 << 10)).datagram_send_buffer_size(256 << 10);

        // Each packet costs its own encryption, header and turn through quinn, so fewer and larger are cheaper wherever the path carries
        // them; loopback and data-centre networks do.
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.udp_bytes_max);
        transport.mtu_discovery_config(Some(mtu));

        // By default every second packet is acknowledged at once, by a system call of its own. Answers mostly carry the acknowledgement
        // along if it may wait for them.
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(self.ack_packets));
        acks.max_ack_delay(Some(Duration::from_millis(self.ack_delay_ms)));
        transport.ack_frequency_config(Some(acks));

        // Cubic, which quinn calls ready; its BBR is marked experimental. The initial window is large because acknowledgements come
        // seldom (above) and because peers sit in one data centre: the internet's cautious ten packets would stall on both.
        let mut cubic = CubicConfig::default();
        cubic.initial_window(1 << 20);
        transport.congestion_controller_factory(Arc::new(cubic));
        // Nodes know each other's round trip to be short; the standard's guess of 333 ms would delay the first retransmission.
        transport.initial_rtt(Duration::from_millis(50));
        transport.allow_spin(false);
        transport
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_own_limits() {
        assert_eq!(NetOptions::default().clamped(), NetOptions::default());
        let wild =
            NetOptions { idle_timeout_ms: 0, keep_alive_ms: u64::MAX, udp_bytes_max: 0, ..NetOptions::default() };
        let tame = wild.clamped();
        assert!(tame.keep_alive_ms * 3 <= tame.idle_timeout_ms);
        tame.transport();
    }
}

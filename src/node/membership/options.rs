//! How eager the failure detector is, setting by setting.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// How SWIM is tuned. All nodes of a cluster should use the same values.
///
/// A crash is seen by everybody after about `probe_period_ms` (somebody's turn to ping it) + `probe_period_ms` (no answer) +
/// `suspect_ms` + a few `gossip_period_ms`: with the defaults 2 to 3 seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwimOptions {
    /// How often one other member, each in turn, is pinged. At least twice `probe_rtt_ms`, since the way around through others
    /// has to fit into what is left. Lower finds crashes sooner and costs packets: one ping and one answer per node and period.
    pub probe_period_ms: u64,
    /// How long a direct ping may take before others are asked to try. A high percentile of the round trip between members,
    /// including how long a busy process takes to get to it; more on busy machines than on slow networks.
    pub probe_rtt_ms: u64,
    /// How long a suspected member has for its "I live" to come round before it is down. A small multiple of
    /// `probe_period_ms`; raise it when busy nodes are taken for dead.
    pub suspect_ms: u64,
    /// How many others are asked to ping on one's behalf. More see through one-way cuts and loss; 3 is plenty.
    pub indirect_probes: usize,
    /// How often news, if there are any, are sent by themselves instead of waiting for a ping to ride on.
    pub gossip_period_ms: u64,
    /// To how many members news are sent each time.
    pub gossip_fanout: usize,
    /// How many times a node repeats one piece of news. About 4 times the decimal logarithm of the number of members suffices
    /// without loss; more against loss.
    pub transmissions: u8,
    /// How often members believed down are greeted, so that a healed partition or a node that came back finds together without
    /// anybody's help. A quarter of it is jitter.
    pub announce_period_ms: u64,
    /// The largest datagram made, and the largest accepted. Has to fit the transport: a QUIC datagram before path MTU discovery
    /// has room for about 1,150 bytes. All nodes need the same.
    pub packet_bytes: usize,
}

impl Default for SwimOptions {
    fn default() -> Self {
        Self {
            probe_period_ms: 500,
            probe_rtt_ms: 200,
            suspect_ms: 1_200,
            indirect_probes: 3,
            gossip_period_ms: 200,
            gossip_fanout: 3,
            transmissions: 10,
            announce_period_ms: 1_000,
            packet_bytes: 1_100,
        }
    }
}

/// A setting outside of what works, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwimOptionsError {
    #[error("{field} is {given}; allowed is {least} to {most}")]
    OutOfRange { field: &'static str, given: u64, least: u64, most: u64 },
    #[error(
        "probe_period_ms is {period_ms}, less than twice probe_rtt_ms ({rtt_ms}); raise the period or lower the round trip"
    )]
    PeriodBelowTwoRoundTrips { period_ms: u64, rtt_ms: u64 },
}

/// Field name, least, most.
const PROBE_PERIOD_MS: (&str, u64, u64) = ("probe_period_ms", 20, 60_000);
const PROBE_RTT_MS: (&str, u64, u64) = ("probe_rtt_ms", 5, 30_000);
const SUSPECT_MS: (&str, u64, u64) = ("suspect_ms", 20, 600_000);
const INDIRECT_PROBES: (&str, u64, u64) = ("indirect_probes", 1, 32);
const GOSSIP_PERIOD_MS: (&str, u64, u64) = ("gossip_period_ms", 10, 60_000);
const GOSSIP_FANOUT: (&str, u64, u64) = ("gossip_fanout", 1, 32);
const TRANSMISSIONS: (&str, u64, u64) = ("transmissions", 1, 100);
const ANNOUNCE_PERIOD_MS: (&str, u64, u64) = ("announce_period_ms", 50, 600_000);
const PACKET_BYTES: (&str, u64, u64) = ("packet_bytes", 256, 16_384);

impl SwimOptions {
    /// Whether every setting is in range, for those who read configuration. [`Membership::new`](super::Membership::new) itself
    /// never refuses: it uses the nearest allowed value.
    pub fn check(&self) -> Result<(), SwimOptionsError> {
        for ((field, least, most), given) in self.fields() {
            if given < least || given > most {
                return Err(SwimOptionsError::OutOfRange { field, given, least, most });
            }
        }
        if self.probe_period_ms < 2 * self.probe_rtt_ms {
            return Err(SwimOptionsError::PeriodBelowTwoRoundTrips {
                period_ms: self.probe_period_ms,
                rtt_ms: self.probe_rtt_ms,
            });
        }
        Ok(())
    }

    /// The nearest allowed settings.
    pub(super) fn clamped(&self) -> Self {
        let within = |(_, least, most): (&str, u64, u64), given: u64| given.clamp(least, most);
        let probe_rtt_ms = within(PROBE_RTT_MS, self.probe_rtt_ms);
        Self {
            probe_period_ms: within(PROBE_PERIOD_MS, self.probe_period_ms).max(2 * probe_rtt_ms),
            probe_rtt_ms,
            suspect_ms: within(SUSPECT_MS, self.suspect_ms),
            indirect_probes: within(INDIRECT_PROBES, self.indirect_probes as u64) as usize,
            gossip_period_ms: within(GOSSIP_PERIOD_MS, self.gossip_period_ms),
            gossip_fanout: within(GOSSIP_FANOUT, self.gossip_fanout as u64) as usize,
            transmissions: within(TRANSMISSIONS, u64::from(self.transmissions)) as u8,
            announce_period_ms: within(ANNOUNCE_PERIOD_MS, self.announce_period_ms),
            packet_bytes: within(PACKET_BYTES, self.packet_bytes as u64) as usize,
        }
    }

    /// The same in foca's words. Its own announcing is left off: it stops when everybody is down, which is when it is needed most.
    pub(super) fn to_foca(&self) -> foca::Config {
        let count = |number: usize| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        foca::Config {
            probe_period: Duration::from_millis(self.probe_period_ms),
            probe_rtt: Duration::from_millis(self.probe_rtt_ms),
            num_indirect_probes: count(self.indirect_probes),
            max_transmissions: NonZeroU8::new(self.transmissions).unwrap_or(NonZeroU8::MIN),
            suspect_to_down_after: Duration::from_millis(self.suspect_ms),
            // Never forgotten: whoever was down comes back under another name, and the list is bounded by the layout.
            remove_down_after: None,
            max_packet_size: count(self.packet_bytes),
            notify_down_members: true,
            periodic_announce: None,
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(foca::PeriodicParams {
                frequency: Duration::from_millis(self.gossip_period_ms),
                num_members: count(self.gossip_fanout),
            }),
        }
    }

    fn fields(&self) -> [((&'static str, u64, u64), u64); 9] {
        [
            (PROBE_PERIOD_MS, self.probe_period_ms),
            (PROBE_RTT_MS, self.probe_rtt_ms),
            (SUSPECT_MS, self.suspect_ms),
            (INDIRECT_PROBES, self.indirect_probes as u64),
            (GOSSIP_PERIOD_MS, self.gossip_period_ms),
            (GOSSIP_FANOUT, self.gossip_fanout as u64),
            (TRANSMISSIONS, u64::from(self.transmissions)),
            (ANNOUNCE_PERIOD_MS, self.announce_period_ms),
            (PACKET_BYTES, self.packet_bytes as u64),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_and_nonsense_is_named_and_clamped() {
        SwimOptions::default().check().unwrap();
        assert_eq!(SwimOptions::default().clamped(), SwimOptions::default());

        let nonsense = SwimOptions { probe_rtt_ms: 0, packet_bytes: 1, ..SwimOptions::default() };
        assert_eq!(
            nonsense.check(),
            Err(SwimOptionsError::OutOfRange { field: "probe_rtt_ms", given: 0, least: 5, most: 30_000 })
        );
        nonsense.clamped().check().unwrap();

        let tight = SwimOptions { probe_period_ms: 300, probe_rtt_ms: 200, ..SwimOptions::default() };
        assert_eq!(tight.check(), Err(SwimOptionsError::PeriodBelowTwoRoundTrips { period_ms: 300, rtt_ms: 200 }));
        tight.clamped().check().unwrap();
    }
}

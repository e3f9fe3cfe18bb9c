//! What SWIM says, as bytes: fixed sizes, big-endian, a version in front, everything checked before anything is believed.
//!
//! ```text
//! packet   = header [count:u16 member*count]        the bracket is absent in announce and turn-undead
//! header   = version:u8 source:identity incarnation:u16 destination:identity kind:u8 [about:identity] [probe:u8]
//! member   = identity incarnation:u16 state:u8
//! identity = node:u64 generation:u64 renewals:u32 store:u64
//! ```

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};

use crate::data::id::{NodeId, StoreId};

/// One process of one node, as the cluster knows it. Ordered: of two with the same node, the higher is the later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    /// Which start of the process.
    pub(super) generation: u64,
    /// How many times this process was declared down and came back.
    pub(super) renewals: u32,
    /// What its data lie in.
    pub(super) store: StoreId,
}

impl Identity {
    /// The least identity of a node: greets whoever answers to that id.
    pub(super) fn anyone(node: NodeId) -> Self {
        Self { node, generation: 0, renewals: 0, store: StoreId(0) }
    }

    /// One that beats `rival` as a new start would, over the same store as before. `None` at the end of all numbers.
    pub(super) fn above(self, rival: Self) -> Option<Self> {
        match rival.generation.checked_add(1) {
            Some(generation) => Some(Self { generation, renewals: 0, ..self }),
            None => Some(Self { generation: rival.generation, renewals: rival.renewals.checked_add(1)?, ..self }),
        }
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { renewals: self.renewals.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self > adversary
    }
}

const VERSION: u8 = 2;
const IDENTITY_BYTES: usize = 8 + 8 + 4 + 8;
const MEMBER_BYTES: usize = IDENTITY_BYTES + 2 + 1;
/// Up to and with the kind.
const HEADER_BYTES: usize = 1 + IDENTITY_BYTES + 2 + IDENTITY_BYTES + 1;

/// Why bytes are not a packet, or a packet does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PacketError {
    #[error("{wanted} bytes wanted, {left} left")]
    Short { wanted: usize, left: usize },
    #[error("version {found}, this node speaks {VERSION}")]
    Version { found: u8 },
    #[error("message kind {found} is unknown")]
    Kind { found: u8 },
    #[error("member state {found} is unknown")]
    State { found: u8 },
    #[error("{left} bytes after the end")]
    Trailing { left: usize },
    #[error("no room for {wanted} bytes, {left} left")]
    Full { wanted: usize, left: usize },
}

/// A packet that was understood to its last byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) header: Header<Identity>,
    /// `None` where the kind carries none.
    pub(super) news: Option<Vec<Member<Identity>>>,
}

impl Packet {
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, PacketError> {
        let mut codec = PacketCodec;
        let header = codec.decode_header(&mut bytes)?;
        let mut news = None;
        if !matches!(header.message, Message::Announce | Message::TurnUndead) {
            need(&bytes, 2)?;
            let count = usize::from(bytes.get_u16());
            // Checked before anything is allocated: a count is only a claim.
            need(&bytes, count * MEMBER_BYTES)?;
            let members = (0..count).map(|_| codec.decode_member(&mut bytes)).collect::<Result<Vec<_>, _>>()?;
            news = Some(members);
        }
        if bytes.has_remaining() {
            return Err(PacketError::Trailing { left: bytes.remaining() });
        }
        Ok(Self { header, news })
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, PacketError> {
        let mut codec = PacketCodec;
        let mut bytes = Vec::new();
        codec.encode_header(&self.header, &mut bytes)?;
        if let Some(news) = &self.news {
            let wanted = news.len() * MEMBER_BYTES;
            let count = u16::try_from(news.len()).map_err(|_| PacketError::Full { wanted, left: 0 })?;
            bytes.put_u16(count);
            for member in news {
                codec.encode_member(member, &mut bytes)?;
            }
        }
        Ok(bytes)
    }
}

/// Foca's view of the same bytes.
pub(super) struct PacketCodec;

impl Codec<Identity> for PacketCodec {
    type Error = PacketError;

    fn encode_header(&mut self, header: &Header<Identity>, mut buf: impl BufMut) -> Result<(), PacketError> {
        let (kind, about, probe) = match &header.message {
            Message::Ping(probe) => (0, None, Some(*probe)),
            Message::Ack(probe) => (1, None, Some(*probe)),
            Message::PingReq { target, probe_number } => (2, Some(*target), Some(*probe_number)),
            Message::IndirectPing { origin, probe_number } => (3, Some(*origin), Some(*probe_number)),
            Message::IndirectAck { target, probe_number } => (4, Some(*target), Some(*probe_number)),
            Message::ForwardedAck { origin, probe_number } => (5, Some(*origin), Some(*probe_number)),
            Message::Announce => (6, None, None),
            Message::Feed => (7, None, None),
            Message::Gossip => (8, None, None),
            Message::TurnUndead => (9, None, None),
            // Custom broadcasts are never made here; their kind has no number.
            Message::Broadcast => return Err(PacketError::Kind { found: u8::MAX }),
        };
        room(&buf, HEADER_BYTES + about.map_or(0, |_| IDENTITY_BYTES) + probe.map_or(0, |_| 1))?;
        buf.put_u8(VERSION);
        put_identity(&header.src, &mut buf);
        buf.put_u16(header.src_incarnation);
        put_identity(&header.dst, &mut buf);
        buf.put_u8(kind);
        if let Some(about) = about {
            put_identity(&about, &mut buf);
        }
        if let Some(probe) = probe {
            buf.put_u8(probe);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, PacketError> {
        need(&buf, HEADER_BYTES)?;
        let version = buf.get_u8();
        if version != VERSION {
            return Err(PacketError::Version { found: version });
        }
        let src = get_identity(&mut buf)?;
        let src_incarnation = buf.get_u16();
        let dst = get_identity(&mut buf)?;
        let kind = buf.get_u8();
        let message = match kind {
            0 => Message::Ping(get_probe(&mut buf)?),
            1 => Message::Ack(get_probe(&mut buf)?),
            2 => Message::PingReq { target: get_identity(&mut buf)?, probe_number: get_probe(&mut buf)? },
            3 => Message::IndirectPing { origin: get_identity(&mut buf)?, probe_number: get_probe(&mut buf)? },
            4 => Message::IndirectAck { target: get_identity(&mut buf)?, probe_number: get_probe(&mut buf)? },
            5 => Message::ForwardedAck { origin: get_identity(&mut buf)?, probe_number: get_probe(&mut buf)? },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::TurnUndead,
            found => return Err(PacketError::Kind { found }),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Identity>, mut buf: impl BufMut) -> Result<(), PacketError> {
        room(&buf, MEMBER_BYTES)?;
        put_identity(member.id(), &mut buf);
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, PacketError> {
        need(&buf, MEMBER_BYTES)?;
        let id = get_identity(&mut buf)?;
        let incarnation = buf.get_u16();
        let state = match buf.get_u8() {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            found => return Err(PacketError::State { found }),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

fn need(buf: &impl Buf, wanted: usize) -> Result<(), PacketError> {
    let left = buf.remaining();
    if left < wanted { Err(PacketError::Short { wanted, left }) } else { Ok(()) }
}

fn room(buf: &impl BufMut, wanted: usize) -> Result<(), PacketError> {
    let left = buf.remaining_mut();
    if left < wanted { Err(PacketError::Full { wanted, left }) } else { Ok(()) }
}

fn put_identity(identity: &Identity, buf: &mut impl BufMut) {
    buf.put_u64(identity.node.0);
    buf.put_u64(identity.generation);
    buf.put_u32(identity.renewals);
    buf.put_u64(identity.store.0);
}

fn get_identity(buf: &mut impl Buf) -> Result<Identity, PacketError> {
    need(buf, IDENTITY_BYTES)?;
    Ok(Identity {
        node: NodeId(buf.get_u64()),
        generation: buf.get_u64(),
        renewals: buf.get_u32(),
        store: StoreId(buf.get_u64()),
    })
}

fn get_probe(buf: &mut impl Buf) -> Result<u8, PacketError> {
    need(buf, 1)?;
    Ok(buf.get_u8())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity() -> impl Strategy<Value = Identity> {
        (any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(node, generation, renewals, store)| {
            Identity { node: NodeId(node), generation, renewals, store: StoreId(store) }
        })
    }

    fn message() -> impl Strategy<Value = Message<Identity>> {
        (0..10, identity(), any::<u8>()).prop_map(|(kind, identity, probe_number)| match kind {
            0 => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq { target: identity, probe_number },
            3 => Message::IndirectPing { origin: identity, probe_number },
            4 => Message::IndirectAck { target: identity, probe_number },
            5 => Message::ForwardedAck { origin: identity, probe_number },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            _ => Message::TurnUndead,
        })
    }

    fn member() -> impl Strategy<Value = Member<Identity>> {
        let state = prop_oneof![Just(State::Alive), Just(State::Suspect), Just(State::Down)];
        (identity(), any::<u16>(), state).prop_map(|(id, incarnation, state)| Member::new(id, incarnation, state))
    }

    fn packet() -> impl Strategy<Value = Packet> {
        (identity(), any::<u16>(), identity(), message(), prop::collection::vec(member(), 0..40)).prop_map(
            |(src, src_incarnation, dst, message, news)| {
                let news = (!matches!(message, Message::Announce | Message::TurnUndead)).then_some(news);
                Packet { header: Header { src, src_incarnation, dst, message }, news }
            },
        )
    }

    proptest! {
        #[test]
        fn packets_come_back_as_they_went(packet in packet()) {
            let bytes = packet.encode().unwrap();
            prop_assert_eq!(Packet::decode(&bytes), Ok(packet));
        }

        #[test]
        fn cut_or_lengthened_packets_are_refused(packet in packet(), cut in any::<prop::sample::Index>()) {
            let mut bytes = packet.encode().unwrap();
            prop_assert!(Packet::decode(&bytes[..cut.index(bytes.len())]).is_err());
            bytes.push(0);
            prop_assert!(Packet::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_an_answer_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            let _ = Packet::decode(&bytes);
            let mut versioned = vec![VERSION];
            versioned.extend(bytes);
            let _ = Packet::decode(&versioned);
        }
    }

    #[test]
    fn a_full_buffer_is_refused_clean() {
        let mut codec = PacketCodec;
        let mut bytes = Vec::new();
        let member = Member::alive(Identity::anyone(NodeId(1)));
        let outcome = codec.encode_member(&member, (&mut bytes).limit(MEMBER_BYTES - 1));
        assert_eq!(outcome, Err(PacketError::Full { wanted: MEMBER_BYTES, left: MEMBER_BYTES - 1 }));
        assert!(bytes.is_empty());
    }

    #[test]
    fn later_identities_win() {
        use foca::Identity as _;
        let first = Identity { node: NodeId(7), generation: 3, renewals: 5, store: StoreId(1) };
        let renewed = first.renew().unwrap();
        let restarted = first.above(first).unwrap();
        assert!(renewed.win_addr_conflict(&first) && !first.win_addr_conflict(&renewed));
        assert!(restarted.win_addr_conflict(&renewed));
        let last = Identity { node: NodeId(7), generation: u64::MAX, renewals: u32::MAX, store: StoreId(1) };
        assert_eq!(last.above(last), None);
    }
}

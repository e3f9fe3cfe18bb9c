//! Who owns what: a versioned, hash-chained list of members.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::slot::SLOTS;
use crate::data::id::{NodeId, hash64};

/// Most members a layout may have: a table has a 16-bit number for each member in each partition.
pub const MEMBERS_MAX: usize = 1_000;
/// Most owners a partition may have.
pub const REPLICAS_MAX: u8 = 7;
/// Most bytes of the name of a node or zone.
pub const NAME_BYTES_MAX: usize = 63;
/// Most a member may weigh. Weights are relative: 1 everywhere is the same as 1000 everywhere.
pub const WEIGHT_MAX: u32 = 1_000;

/// One version of who the members are. Every node computes the same placement from the same layout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layout {
    pub version: u64,
    /// Hash of the layout this one replaces; 0 for the first.
    pub parent: u64,
    /// N: owners of each partition (fewer when there are fewer members).
    pub replicas: u8,
    /// Q: number of partitions, fixed at cluster birth.
    pub partitions: u16,
    /// Sorted by name.
    pub members: Vec<Member>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    pub id: NodeId,
    pub name: String,
    pub zone: String,
    pub weight: u32,
    /// `host:port` at which peers and native clients reach it.
    pub quic: String,
    /// `host:port` of its RESP door.
    pub resp: String,
    /// `host:port` of its HTTP door.
    pub http: String,
}

/// Why a layout is refused. Nothing was changed; each says what is allowed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LayoutError {
    #[error("the layout has no members; name at least one")]
    NoMembers,
    #[error("the layout has {count} members; at most {limit} are allowed")]
    TooManyMembers { count: usize, limit: usize },
    #[error("replicas = {replicas}: use 1 to {REPLICAS_MAX}")]
    Replicas { replicas: u8 },
    #[error("partitions = {partitions}: use a power of two from 1 to {SLOTS}")]
    Partitions { partitions: u16 },
    #[error("the {what} {name:?} is not allowed: use 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' or '-'")]
    Name { what: &'static str, name: String },
    #[error("two members are called {name:?}; a name is a node's identity and must be its own")]
    SameName { name: String },
    #[error("the names {first:?} and {second:?} hash to the same node id; rename one of them")]
    SameId { first: String, second: String },
    #[error("the member {name:?} has the id {id}; its name makes it {expected}")]
    ForeignId { name: String, id: NodeId, expected: NodeId },
    #[error("the members are not sorted by name: {second:?} comes after {first:?}")]
    Unsorted { first: String, second: String },
    #[error("the member {name:?} has weight {weight}; use 1 to {WEIGHT_MAX}")]
    Weight { name: String, weight: u32 },
    #[error("the member {name:?} has the {door} address {address:?}; use host:port with a port from 1 to 65535")]
    Address { name: String, door: &'static str, address: String },
    #[error("{first} and {second} both use {address}; each needs its own")]
    SameAddress { first: String, second: String, address: String },
}

impl Layout {
    /// The first version of a cluster's layout. Sorts the members by name; refuses what [`Layout::validate`] refuses.
    pub fn first(replicas: u8, partitions: u16, mut members: Vec<Member>) -> Result<Self, LayoutError> {
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let layout = Self { version: 1, parent: 0, replicas, partitions, members };
        layout.validate()?;
        Ok(layout)
    }

    /// Can a cluster run on this? To be asked of every layout that comes from outside: a file, a peer, a node's answer.
    pub fn validate(&self) -> Result<(), LayoutError> {
        if self.members.is_empty() {
            return Err(LayoutError::NoMembers);
        }
        if self.members.len() > MEMBERS_MAX {
            return Err(LayoutError::TooManyMembers { count: self.members.len(), limit: MEMBERS_MAX });
        }
        if !(1..=REPLICAS_MAX).contains(&self.replicas) {
            return Err(LayoutError::Replicas { replicas: self.replicas });
        }
        if !self.partitions.is_power_of_two() || self.partitions > SLOTS {
            return Err(LayoutError::Partitions { partitions: self.partitions });
        }
        self.members.iter().try_for_each(Member::validate)?;
        self.names_differ()?;
        self.addresses_differ()
    }

    /// A sentence for a person when there are fewer members than owners asked for: allowed, but not what was meant for long.
    pub fn shortfall(&self) -> Option<String> {
        let (replicas, members) = (self.replicas, self.members.len());
        (members < usize::from(replicas)).then(|| {
            format!("replicas = {replicas} with {members} members: each partition has {members} owners until more join")
        })
    }

    /// Names this version and, through `parent`, all before it: the hash of every field as explicit bytes, so that it is the same
    /// on every machine and for ever.
    pub fn hash(&self) -> u64 {
        let mut bytes = Vec::with_capacity(64 + 96 * self.members.len());
        bytes.extend(b"tidewater layout 1");
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(self.parent.to_be_bytes());
        bytes.push(self.replicas);
        bytes.extend(self.partitions.to_be_bytes());
        bytes.extend((self.members.len() as u64).to_be_bytes());
        for member in &self.members {
            bytes.extend(member.id.0.to_be_bytes());
            bytes.extend(member.weight.to_be_bytes());
            for text in [&member.name, &member.zone, &member.quic, &member.resp, &member.http] {
                // The length first: no two lists of texts run together into the same bytes.
                bytes.extend((text.len() as u64).to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
        hash64(&bytes)
    }

    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Its place in `members`.
    pub fn index_of(&self, id: NodeId) -> Option<usize> {
        self.members.iter().position(|member| member.id == id)
    }

    /// The distinct zone names, sorted.
    pub fn zones(&self) -> Vec<&str> {
        let mut zones: Vec<&str> = self.members.iter().map(|member| member.zone.as_str()).collect();
        zones.sort_unstable();
        zones.dedup();
        zones
    }

    /// Where the zone of this member stands in [`Layout::zones`]; `None` for a stranger.
    pub fn zone_index(&self, id: NodeId) -> Option<u16> {
        let zone = self.member(id)?.zone.as_str();
        let at = self.zones().binary_search(&zone).expect("a member's zone is among the zones");
        u16::try_from(at).ok()
    }

    fn names_differ(&self) -> Result<(), LayoutError> {
        for pair in self.members.windows(2) {
            let (first, second) = (pair[0].name.clone(), pair[1].name.clone());
            match first.cmp(&second) {
                Ordering::Less => {}
                Ordering::Equal => return Err(LayoutError::SameName { name: first }),
                Ordering::Greater => return Err(LayoutError::Unsorted { first, second }),
            }
        }
        let mut ids: Vec<(NodeId, &str)> =
            self.members.iter().map(|member| (member.id, member.name.as_str())).collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            None => Ok(()),
            Some(pair) => Err(LayoutError::SameId { first: pair[0].1.into(), second: pair[1].1.into() }),
        }
    }

    /// QUIC is UDP and the other doors are TCP: only within each must addresses differ.
    fn addresses_differ(&self) -> Result<(), LayoutError> {
        let door = |member: &Member, door: &str| format!("the {door} door of {:?}", member.name);
        let quic = self.members.iter().map(|member| (member.quic.as_str(), door(member, "quic")));
        let tcp = self.members.iter().flat_map(|member| {
            [(member.resp.as_str(), door(member, "resp")), (member.http.as_str(), door(member, "http"))]
        });
        let distinct = |mut doors: Vec<(&str, String)>| {
            doors.sort_unstable();
            match doors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                None => Ok(()),
                Some(pair) => Err(LayoutError::SameAddress {
                    first: pair[0].1.clone(),
                    second: pair[1].1.clone(),
                    address: pair[0].0.into(),
                }),
            }
        };
        distinct(quic.collect())?;
        distinct(tcp.collect())
    }
}

impl Member {
    fn validate(&self) -> Result<(), LayoutError> {
        name_allowed("node name", &self.name)?;
        name_allowed("zone name", &self.zone)?;
        let expected = NodeId::from_name(&self.name);
        if self.id != expected {
            return Err(LayoutError::ForeignId { name: self.name.clone(), id: self.id, expected });
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return Err(LayoutError::Weight { name: self.name.clone(), weight: self.weight });
        }
        for (door, address) in [("quic", &self.quic), ("resp", &self.resp), ("http", &self.http)] {
            if !address_allowed(address) {
                return Err(LayoutError::Address { name: self.name.clone(), door, address: address.clone() });
            }
        }
        Ok(())
    }
}

fn name_allowed(what: &'static str, name: &str) -> Result<(), LayoutError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(LayoutError::Name { what, name: name.into() })
}

/// `host:port`, with a name, an IPv4 address or an IPv6 address in brackets for a host. Resolving it is not done here.
fn address_allowed(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return false;
    }
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // From `core`: an address and nothing that could be opened with it.
        Some(v6) => v6.parse::<core::net::Ipv6Addr>().is_ok(),
        None => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            (1..=253).contains(&host.len()) && host.bytes().all(plain)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, port: u16) -> Member {
        let at = |door: u16| format!("127.0.0.1:{}", port + door);
        Member {
            id: NodeId::from_name(name),
            name: name.into(),
            zone: "default".into(),
            weight: 1,
            quic: at(0),
            resp: at(1_000),
            http: at(2_000),
        }
    }

    fn three() -> Vec<Member> {
        vec![member("n3", 9_003), member("n1", 9_001), member("n2", 9_002)]
    }

    /// What `change` makes of the member `n1` of a good layout is refused with an error that `says` these words.
    fn refused(change: impl Fn(&mut Member), says: &str) {
        let mut members = three();
        change(&mut members[1]);
        let error = Layout::first(3, 1_024, members).expect_err(says).to_string();
        assert!(error.contains(says), "{error:?} should say {says:?}");
    }

    fn rename(member: &mut Member, name: &str) {
        member.name = name.into();
        member.id = NodeId::from_name(name);
    }

    #[test]
    fn a_good_layout_is_taken_and_sorted() {
        let layout = Layout::first(3, 1_024, three()).unwrap();
        let names: Vec<&str> = layout.members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);
        assert_eq!((layout.version, layout.parent, layout.shortfall()), (1, 0, None));
        assert_eq!(layout.index_of(NodeId::from_name("n2")), Some(1));
        assert_eq!(layout.member(NodeId::from_name("n9")), None);
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_is_allowed() {
        assert_eq!(Layout::first(3, 1_024, Vec::new()), Err(LayoutError::NoMembers));
        assert_eq!(Layout::first(0, 1_024, three()), Err(LayoutError::Replicas { replicas: 0 }));
        assert_eq!(Layout::first(8, 1_024, three()), Err(LayoutError::Replicas { replicas: 8 }));
        for partitions in [0, 3, 1_000, 32_768] {
            assert_eq!(Layout::first(3, partitions, three()), Err(LayoutError::Partitions { partitions }));
        }
        refused(|member| rename(member, "n3"), "two members are called");
        refused(|member| rename(member, ""), "1 to 63 letters");
        refused(|member| rename(member, "a b"), "\"a b\" is not allowed");
        refused(|member| rename(member, &"a".repeat(64)), "1 to 63 letters");
        refused(|member| member.zone = "zone/1".into(), "the zone name \"zone/1\"");
        refused(|member| member.id = NodeId(7), "its name makes it");
        refused(|member| member.weight = 0, "weight 0; use 1 to 1000");
        refused(|member| member.weight = 1_001, "weight 1001");
        refused(|member| member.resp = "127.0.0.1:10003".into(), "both use 127.0.0.1:10003");
        refused(|member| member.http = member.resp.clone(), "both use");
        for address in ["", "host", "host:", ":1", "host:0", "host:65536", "host:+1", "::1:9001", "[::1:9001", "a b:1"]
        {
            refused(|member| member.quic = address.into(), "use host:port");
        }
        for address in ["host:1", "a.example.org:65535", "10.0.0.1:9001", "[::1]:9001"] {
            let mut members = three();
            members[1].quic = address.into();
            Layout::first(3, 1_024, members).unwrap();
        }
        let mut unsorted = Layout::first(3, 1_024, three()).unwrap();
        unsorted.members.swap(0, 1);
        assert!(matches!(unsorted.validate(), Err(LayoutError::Unsorted { .. })));
        let crowd = (0..=MEMBERS_MAX).map(|at| member(&format!("n{at}"), at as u16 + 1)).collect();
        assert!(matches!(Layout::first(3, 1_024, crowd), Err(LayoutError::TooManyMembers { .. })));
    }

    #[test]
    fn fewer_members_than_owners_is_told() {
        let layout = Layout::first(5, 1_024, three()).unwrap();
        assert!(layout.shortfall().unwrap().contains("each partition has 3 owners"));
    }

    #[test]
    fn every_field_moves_the_hash() {
        let layout = Layout::first(3, 1_024, three()).unwrap();
        let changes: [fn(&mut Layout); 11] = [
            |layout| layout.version += 1,
            |layout| layout.parent += 1,
            |layout| layout.replicas += 1,
            |layout| layout.partitions *= 2,
            |layout| layout.members[0].id = NodeId(1),
            |layout| layout.members[0].name.push('x'),
            |layout| layout.members[0].zone.push('x'),
            |layout| layout.members[0].weight += 1,
            |layout| layout.members[0].quic.push('1'),
            |layout| layout.members[0].resp.push('1'),
            |layout| drop(layout.members.pop()),
        ];
        let mut hashes = vec![layout.hash()];
        for change in changes {
            let mut changed = layout.clone();
            change(&mut changed);
            hashes.push(changed.hash());
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 12);
        let (mut one, mut other) = (layout.clone(), layout);
        (one.members[0].name, one.members[0].zone) = ("ab".into(), "c".into());
        (other.members[0].name, other.members[0].zone) = ("a".into(), "bc".into());
        assert_ne!(one.hash(), other.hash(), "texts do not run together");
    }

    #[test]
    fn zones_are_sorted_and_numbered() {
        let mut members = three();
        for (member, zone) in members.iter_mut().zip(["west", "east", "west"]) {
            member.zone = zone.into();
        }
        let layout = Layout::first(3, 1_024, members).unwrap();
        assert_eq!(layout.zones(), ["east", "west"]);
        assert_eq!(layout.zone_index(NodeId::from_name("n1")), Some(0));
        assert_eq!(layout.zone_index(NodeId::from_name("n3")), Some(1));
        assert_eq!(layout.zone_index(NodeId(1)), None);
    }
}

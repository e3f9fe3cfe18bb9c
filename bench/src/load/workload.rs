//! What is done, in which shares: YCSB's A to F in spirit, and one workload for each kind of value that merges.

use rand::RngExt;
use rand::rngs::SmallRng;

use super::keys::Distribution;

/// Fields of a map that have a value each; one more is a counter.
pub const FIELDS: u32 = 4;

/// One operation as it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Update,
    Insert,
    Delete,
    Scan,
    ReadModifyWrite,
    Increment,
    ReadCounter,
    AddMember,
    RemoveMember,
    Members,
    Contains,
    SetField,
    GetField,
    IncrementField,
    ReadSiblings,
    WriteSiblings,
}

impl Kind {
    pub const ALL: [Kind; 17] = [
        Kind::Read,
        Kind::Update,
        Kind::Insert,
        Kind::Delete,
        Kind::Scan,
        Kind::ReadModifyWrite,
        Kind::Increment,
        Kind::ReadCounter,
        Kind::AddMember,
        Kind::RemoveMember,
        Kind::Members,
        Kind::Contains,
        Kind::SetField,
        Kind::GetField,
        Kind::IncrementField,
        Kind::ReadSiblings,
        Kind::WriteSiblings,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Update => "update",
            Kind::Insert => "insert",
            Kind::Delete => "delete",
            Kind::Scan => "scan",
            Kind::ReadModifyWrite => "read-modify-write",
            Kind::Increment => "increment",
            Kind::ReadCounter => "read counter",
            Kind::AddMember => "add member",
            Kind::RemoveMember => "remove member",
            Kind::Members => "read members",
            Kind::Contains => "contains",
            Kind::SetField => "set field",
            Kind::GetField => "get field",
            Kind::IncrementField => "increment field",
            Kind::ReadSiblings => "read siblings",
            Kind::WriteSiblings => "write sibling",
        }
    }

    pub fn is_read(self) -> bool {
        use Kind::*;
        matches!(self, Read | Scan | ReadCounter | Members | Contains | GetField | ReadSiblings)
    }

    /// Is it one request? The others read before they write.
    pub fn is_single(self) -> bool {
        !matches!(self, Kind::ReadModifyWrite | Kind::WriteSiblings)
    }
}

/// What the keys hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    Strings,
    Counters,
    Sets,
    Maps,
    Siblings,
}

/// Kinds of operations with their shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// As it is told: "YCSB A (read 50 %, update 50 %)".
    pub text: String,
    pub model: Model,
    /// Shares that add up to 1.
    shares: Vec<(Kind, f64)>,
    /// Unless another is asked for.
    pub distribution: Distribution,
}

/// Names that `--workload` takes.
pub const NAMES: [&str; 11] = ["a", "b", "c", "d", "e", "f", "mix", "counter", "set", "map", "siblings"];

impl Workload {
    /// `read_share`: of all operations; `delete_share`: of the writes of strings.
    pub fn named(name: &str, read_share: Option<f64>, delete_share: f64) -> Result<Self, String> {
        use Kind::*;
        let lower = name.to_ascii_lowercase();
        let zipfian = Distribution::Zipfian(0.99);
        let read = read_share.unwrap_or(0.5);
        let write = 1.0 - read;
        let (model, distribution, shares) = match lower.as_str() {
            "a" => (Model::Strings, zipfian, vec![(Read, 0.5), (Update, 0.5)]),
            "b" => (Model::Strings, zipfian, vec![(Read, 0.95), (Update, 0.05)]),
            "c" => (Model::Strings, zipfian, vec![(Read, 1.0)]),
            "d" => (Model::Strings, Distribution::Latest, vec![(Read, 0.95), (Insert, 0.05)]),
            "e" => (Model::Strings, zipfian, vec![(Scan, 0.95), (Insert, 0.05)]),
            "f" => (Model::Strings, zipfian, vec![(Read, 0.5), (ReadModifyWrite, 0.5)]),
            "mix" => (Model::Strings, zipfian, vec![(Read, read), (Update, write)]),
            "counter" => (Model::Counters, zipfian, vec![(ReadCounter, read), (Increment, write)]),
            "set" => (
                Model::Sets,
                zipfian,
                vec![
                    (Members, read / 2.0),
                    (Contains, read / 2.0),
                    (AddMember, write * 0.6),
                    (RemoveMember, write * 0.4),
                ],
            ),
            "map" => {
                (Model::Maps, zipfian, vec![(GetField, read), (SetField, write * 0.7), (IncrementField, write * 0.3)])
            }
            "siblings" => (Model::Siblings, zipfian, vec![(ReadSiblings, read), (WriteSiblings, write)]),
            _ => return Err(format!("'{name}' is not a workload: use one of {}", NAMES.join(", "))),
        };
        let fixed = lower.len() == 1;
        if fixed && read_share.is_some() {
            return Err(format!(
                "YCSB {} has its own shares: use --workload mix with --read-share",
                name.to_uppercase()
            ));
        }
        let mut shares: Vec<(Kind, f64)> = shares.into_iter().filter(|(_, share)| *share > 0.0).collect();
        if delete_share > 0.0 {
            let at = shares.iter().position(|(kind, _)| *kind == Update).ok_or_else(|| {
                format!("--delete-share takes from the updates, and workload {name} has none: use a, b or mix")
            })?;
            let updates = shares[at].1;
            shares[at].1 = updates * (1.0 - delete_share);
            shares.insert(at + 1, (Delete, updates * delete_share));
        }
        let told: Vec<String> =
            shares.iter().map(|(kind, share)| format!("{} {} %", kind.name(), Rounded(share * 100.0))).collect();
        let title = if fixed { format!("YCSB {}", name.to_uppercase()) } else { lower };
        Ok(Self { text: format!("{title} ({})", told.join(", ")), model, shares, distribution })
    }

    pub fn choose(&self, random: &mut SmallRng) -> Kind {
        let mut at = random.random_range(0.0..1.0);
        for (kind, share) in &self.shares {
            if at < *share {
                return *kind;
            }
            at -= share;
        }
        // Shares add up to 1 but for rounding.
        self.shares.last().expect("a workload has operations").0
    }

    pub fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        self.shares.iter().map(|(kind, _)| *kind)
    }
}

/// A number without zeros at its end.
struct Rounded(f64);

impl std::fmt::Display for Rounded {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "{}", (self.0 * 100.0).round() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn operations_come_in_their_shares() {
        for name in NAMES {
            let workload = Workload::named(name, None, 0.0).expect(name);
            let mut random = SmallRng::seed_from_u64(3);
            let mut times = [0_u32; Kind::ALL.len()];
            for _ in 0..20_000 {
                times[workload.choose(&mut random) as usize] += 1;
            }
            for (kind, share) in &workload.shares {
                let got = f64::from(times[*kind as usize]) / 20_000.0;
                assert!((got - share).abs() < 0.02, "{name}: {} {got} instead of {share}", kind.name());
            }
            assert!((workload.shares.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9, "{name}");
        }
    }

    #[test]
    fn a_mix_is_told_as_it_was_asked_for() {
        let mix = Workload::named("mix", Some(0.9), 0.1).expect("a mix");
        assert_eq!(mix.text, "mix (read 90 %, update 9 %, delete 1 %)");
        assert_eq!(Workload::named("mix", Some(1.0), 0.0).expect("reads").text, "mix (read 100 %)");
        assert_eq!(Workload::named("A", None, 0.0).expect("a").text, "YCSB A (read 50 %, update 50 %)");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Workload::named("g", None, 0.0).expect_err("g").contains("use one of a, b"));
        assert!(Workload::named("b", Some(0.5), 0.0).expect_err("b").contains("--workload mix"));
        assert!(Workload::named("counter", None, 0.1).expect_err("counter").contains("has none"));
    }

    #[test]
    fn kinds_are_numbered_as_they_are_listed() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}

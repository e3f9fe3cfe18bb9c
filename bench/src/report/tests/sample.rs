//! Made-up results that look like real ones: the same each time they are made.

use crate::results::{
    Check, Cost, FORMAT, FaultSpan, Healing, Latency, Machine, Made, Operation, Receipts, Results, Setting, Slice,
    Staleness, StalenessBucket,
};

/// Numbers that look like chance (xorshift), so that curves are as ragged as measured ones.
struct Chance(u64);

impl Chance {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number times or divided by up to this factor.
    fn about(&mut self, number: f64, factor: f64) -> u64 {
        (number * factor.powf(self.next() * 2.0 - 1.0)) as u64
    }
}

/// A partition from 40 s to 70 s and a killed node from 95 s to 110 s; heavy tails. `slower`: all takes so many times
/// as long.
pub fn outage(title: &str, seconds: u64, slower: f64) -> Results {
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15 ^ seconds ^ slower.to_bits());
    let scale = seconds as f64 / 150.0;
    let faults = vec![
        FaultSpan { from_s: 40.0 * scale, to_s: Some(70.0 * scale), text: "partition n1 | n2,n3".to_owned() },
        FaultSpan { from_s: 55.0 * scale, to_s: Some(62.0 * scale), text: "slow n2 → n3 by 200 ms".to_owned() },
        FaultSpan { from_s: 95.0 * scale, to_s: Some(110.0 * scale), text: "kill n2".to_owned() },
    ];
    let slices = (0..seconds).map(|at| slice(at as f64, &faults, slower, &mut chance)).collect();
    let operations =
        [("read", 733_021, 1.0), ("update", 366_412, 1.5), ("increment", 36_900, 1.7)].map(|(name, count, times)| {
            let errors = match name {
                "read" => vec![("not enough owners".to_owned(), 310), ("timeout".to_owned(), 112)],
                _ => vec![("timeout".to_owned(), 220)],
            };
            Operation {
                name: name.to_owned(),
                level: "quorum".to_owned(),
                latency: latency(count, 380.0 * times * slower),
                errors,
            }
        });
    Results {
        format: FORMAT,
        made: made(),
        setting: setting(title, seconds as f64),
        slices,
        operations: operations.into(),
        faults,
        staleness: vec![staleness("quorum", "quorum", 0.000_02), staleness("quorum", "one", 0.004)],
        check: Check { verified: 1_136_333, keys_read_at_end: 100_000, stale: 1_906, unknown: 220, ..Check::default() },
        healings: vec![healing(70.0 * scale, 612.0, 4.2 * slower), healing(110.0 * scale, 248.0, 2.6 * slower)],
        receipts: receipts(),
        cost: Cost {
            own_cpu_share: 0.31,
            own_cpu_us_per_operation: 22.4,
            server_cpu_us_per_operation: Some(41.7 * slower),
            server_memory_bytes: Some(327_155_712),
        },
    }
}

/// The same with everything wrong that a checker can find.
pub fn broken() -> Results {
    let examples = (0..14).map(|at| format!("key user{at:04}: acknowledged \"<b>{at}</b>\" & not there at the end"));
    let check = Check {
        lost: 14,
        duplicated: 2,
        resurrected: 1,
        stale_against_promise: 3,
        examples: examples.collect(),
        ..outage("", 10, 1.0).check
    };
    Results { check, ..outage("writes at one, two disks lost", 150, 1.3) }
}

/// A run of a strange cluster: no faults, no judge, no CPU meter, nothing but a second.
pub fn bare() -> Results {
    let slice = Slice { done: 1, p50_us: 900, p99_us: 900, p999_us: 900, max_us: 900, ..Slice::default() };
    let latency = Latency {
        count: 1,
        mean_us: 900.0,
        min_us: 900,
        p50_us: 900,
        p90_us: 900,
        p99_us: 900,
        p999_us: 900,
        p9999_us: 900,
        max_us: 900,
        cdf: vec![(900, 1.0)],
    };
    let operation = Operation { name: "read".to_owned(), level: String::new(), latency, errors: Vec::new() };
    Results { format: FORMAT, slices: vec![slice], operations: vec![operation], ..Results::default() }
}

fn made() -> Made {
    Made {
        command: "tidewater-bench run --scenario \"partition and kill\" --rate 8000 --read quorum --write quorum"
            .to_owned(),
        version: "0.1.0".to_owned(),
        commit: "2fe4a32".to_owned(),
        started: "2026-03-14T09:26:53Z".to_owned(),
        machine: Machine {
            processor: "AMD EPYC 7B13".to_owned(),
            cores: 2,
            memory_bytes: 25_769_803_776,
            system: "Linux 6.1.0 x86_64".to_owned(),
        },
    }
}

fn setting(title: &str, measured_s: f64) -> Setting {
    Setting {
        title: title.to_owned(),
        target: "tidewater, 3 nodes, native".to_owned(),
        durability: "2 of 3 in the page cache, fsynced within 5 ms".to_owned(),
        workload: "65 % read, 32 % update, 3 % increment".to_owned(),
        write_level: "quorum".to_owned(),
        read_level: "quorum".to_owned(),
        keys: 100_000,
        distribution: "zipfian 0.99".to_owned(),
        value_bytes: "100".to_owned(),
        connections: 64,
        offered_rate: Some(8_000.0),
        warm_up_s: 10.0,
        measured_s,
    }
}

fn slice(at_s: f64, faults: &[FaultSpan], slower: f64, chance: &mut Chance) -> Slice {
    let is_on = |fault: &&FaultSpan| fault.from_s <= at_s && fault.to_s.is_none_or(|to| at_s < to);
    let on = faults.iter().filter(is_on).count();
    let begins = faults.iter().any(|fault| (at_s - fault.from_s).abs() < 1.5);
    let healed_s = faults.iter().filter_map(|fault| fault.to_s).map(|to| at_s - to).filter(|since| *since >= 0.0);
    let healed_s = healed_s.fold(f64::INFINITY, f64::min);
    let hurt = if begins { 30.0 } else { 1.0 + 2.0 * on as f64 };
    let behind = if on > 0 { 400.0 } else { 600.0 * (-healed_s).exp() };
    Slice {
        at_s,
        done: if begins {
            chance.about(2_600.0, 1.5)
        } else {
            chance.about(8_000.0 / (1.0 + 0.1 * slower * on as f64), 1.04)
        },
        errors: if begins { chance.about(160.0, 2.0) } else { u64::from(on > 0 && chance.next() < 0.1) },
        stale: if on > 0 { chance.about(30.0, 1.5) } else { 0 },
        judged: 5_000,
        p50_us: chance.about(400.0 * slower * (1.0 + 0.2 * on as f64), 1.1),
        p99_us: chance.about(2_100.0 * slower * hurt, 1.4),
        p999_us: chance.about(9_000.0 * slower * hurt, 2.0),
        max_us: chance.about(40_000.0 * slower * hurt, 2.0),
        behind: Some(behind as u64),
    }
}

/// Mostly around the median, with a tail as of a power law.
fn latency(count: u64, median_us: f64) -> Latency {
    let at = |share: f64| {
        let body = median_us * (share / (1.0 - share).max(1e-9)).max(0.05).powf(0.22);
        let tail = median_us * 0.05 * (1.0 / (1.0 - share).max(1e-9)).powf(0.72);
        body + tail.min(median_us * 700.0)
    };
    let last = 1.0 - 1.0 / count as f64;
    let mut cdf: Vec<(u64, f64)> = Vec::new();
    for step in 0..=480 {
        let share = 1.0 - 10_f64.powf(-f64::from(step) / 80.0);
        if share <= last {
            cdf.push((at(share) as u64, share));
        }
    }
    let max_us = at(last) as u64 + 1;
    cdf.push((max_us, 1.0));
    Latency {
        count,
        mean_us: median_us * 1.3,
        min_us: cdf[0].0,
        p50_us: at(0.5) as u64,
        p90_us: at(0.9) as u64,
        p99_us: at(0.99) as u64,
        p999_us: at(0.999) as u64,
        p9999_us: at(0.9999) as u64,
        max_us,
        cdf,
    }
}

/// From 0 to 100 µs, then four times as long each, then without an end.
fn staleness(write_level: &str, read_level: &str, share: f64) -> Staleness {
    let mut buckets = Vec::new();
    let mut from_us = 0;
    for step in 0..10_u32 {
        let to_us = if step == 9 { None } else { Some(100 * 4_u64.pow(step)) };
        let reads: u64 = [900, 2_400, 8_100, 31_000, 88_000, 140_000, 150_000, 96_000, 51_000, 18_000][step as usize];
        let reads_healthy = reads * 7 / 10;
        let fade = 0.35_f64.powi(step as i32);
        let stale_healthy = (reads_healthy as f64 * share * fade) as u64;
        let stale_hurt = ((reads - reads_healthy) as f64 * share * 40.0 * 0.6_f64.powi(step as i32)) as u64;
        buckets.push(StalenessBucket {
            from_us,
            to_us,
            reads,
            stale: stale_healthy + stale_hurt,
            reads_healthy,
            stale_healthy,
        });
        from_us = to_us.unwrap_or(0);
    }
    Staleness { write_level: write_level.to_owned(), read_level: read_level.to_owned(), buckets }
}

fn healing(healed_at_s: f64, most: f64, level_after_s: f64) -> Healing {
    let behind = |at: u32| {
        let since_s = f64::from(at) * 0.25;
        let left = most * (1.0 - since_s / level_after_s).max(0.0).powf(1.6);
        (since_s, left as u64)
    };
    Healing { healed_at_s, level_after_s: Some(level_after_s), behind: (0..32).map(behind).collect() }
}

fn receipts() -> Vec<Receipts> {
    let kinds = [
        ("read", 3, 0, 401_220),
        ("read", 2, 0, 327_001),
        ("read", 1, 1, 4_800),
        ("update", 3, 0, 240_100),
        ("update", 2, 0, 71_312),
        ("update", 2, 1, 34_500),
        ("update", 1, 1, 20_500),
        ("increment", 3, 0, 30_100),
        ("increment", 2, 1, 6_800),
    ];
    let receipt = |(operation, owners, stand_ins, count): (&str, u32, u32, u64)| Receipts {
        operation: operation.to_owned(),
        level: "quorum".to_owned(),
        owners,
        stand_ins,
        count,
    };
    kinds.map(receipt).into()
}

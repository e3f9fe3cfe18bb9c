//! How faults are told, here and by `tidewater status`.

use std::time::Duration;

use serde_json::{Value, json};

use super::render;
use crate::wire::fault::{FaultStatus, NetworkFault, PeerFault};

/// One line for each fault that is on, to stand behind the node's name: `is cut off from n2 (18.2 s left)`.
pub fn lines(faults: &FaultStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for fault in &faults.network {
        let (peer, left) = (&fault.peer, left(fault.left_ms));
        let other = |wanted: NetworkFault| {
            faults.network.iter().any(|other| {
                other.peer == *peer && other.fault == wanted && other.left_ms.is_some() == fault.left_ms.is_some()
            })
        };
        let name = &fault.name;
        lines.push(match fault.fault {
            NetworkFault::CutOut if other(NetworkFault::CutIn) => format!("is cut off from {name} ({left})"),
            NetworkFault::CutIn if other(NetworkFault::CutOut) => continue,
            NetworkFault::CutOut => format!("does not reach {name} ({left})"),
            NetworkFault::CutIn => format!("hears nothing from {name} ({left})"),
            NetworkFault::Loss { ppm } => format!("loses {} of its packets to {name} ({left})", share(ppm)),
            NetworkFault::Duplicate { ppm } => format!("sends {} of its packets to {name} twice ({left})", share(ppm)),
            NetworkFault::Delay { us } => format!("sends to {name} {} late ({left})", micros(us)),
            NetworkFault::Jitter { us } => format!("sends to {name} out of order, up to {} late ({left})", micros(us)),
        });
    }
    if let Some(clock) = faults.clock {
        lines.push(format!("has its clock {} ({})", offset(clock.offset_ms), left(clock.left_ms)));
    }
    lines
}

/// What has been done to packets; `None`: nothing.
pub fn counts(faults: &FaultStatus) -> Option<String> {
    let counts = &faults.counts;
    let all = [
        (counts.cut, "cut off"),
        (counts.lost, "lost"),
        (counts.duplicated, "sent twice"),
        (counts.delayed, "delayed"),
        (counts.overflowed, "lost for lack of room"),
    ];
    let told: Vec<String> = all
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", render::count(count)))
        .collect();
    (!told.is_empty()).then(|| format!("packets so far: {}", told.join(", ")))
}

pub fn json(faults: &FaultStatus) -> Value {
    let network = |fault: &PeerFault| {
        let (kind, size) = match fault.fault {
            NetworkFault::CutOut => ("cut_out", Value::Null),
            NetworkFault::CutIn => ("cut_in", Value::Null),
            NetworkFault::Loss { ppm } => ("loss_ppm", ppm.into()),
            NetworkFault::Duplicate { ppm } => ("duplicate_ppm", ppm.into()),
            NetworkFault::Delay { us } => ("delay_us", us.into()),
            NetworkFault::Jitter { us } => ("jitter_us", us.into()),
        };
        json!({ "peer": fault.name, "fault": kind, "size": size, "left_ms": fault.left_ms })
    };
    let counts = &faults.counts;
    json!({
        "network": faults.network.iter().map(network).collect::<Vec<_>>(),
        "clock": faults.clock.map(|clock| json!({ "offset_ms": clock.offset_ms, "left_ms": clock.left_ms })),
        "packets": {
            "cut": counts.cut, "lost": counts.lost, "duplicated": counts.duplicated,
            "delayed": counts.delayed, "overflowed": counts.overflowed,
        },
    })
}

/// `5 %`, `0.1 %`.
pub fn share(ppm: u32) -> String {
    format!("{} %", f64::from(ppm) / 10_000.0)
}

/// `1 h 00 m ahead`, `right`.
pub fn offset(ms: i64) -> String {
    let time = render::duration(Duration::from_millis(ms.unsigned_abs()));
    match ms {
        0 => "right".to_owned(),
        1.. => format!("{time} ahead"),
        _ => format!("{time} behind"),
    }
}

fn micros(us: u32) -> String {
    render::duration(Duration::from_micros(us.into()))
}

fn left(ms: Option<u64>) -> String {
    ms.map_or("until it is healed".to_owned(), |ms| format!("{} left", render::duration(Duration::from_millis(ms))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::id::NodeId;
    use crate::wire::fault::ClockFault;

    #[test]
    fn every_fault_has_its_line_and_both_ways_of_a_cut_share_one() {
        let fault =
            |name: &str, fault, left_ms| PeerFault { peer: NodeId::from_name(name), name: name.into(), fault, left_ms };
        let faults = FaultStatus {
            network: vec![
                fault("n2", NetworkFault::CutOut, Some(2_000)),
                fault("n2", NetworkFault::CutIn, Some(2_000)),
                fault("n3", NetworkFault::CutOut, None),
                fault("n3", NetworkFault::Loss { ppm: 1_000 }, None),
                fault("n3", NetworkFault::Duplicate { ppm: 50_000 }, None),
                fault("n3", NetworkFault::Delay { us: 20_000 }, None),
                fault("n3", NetworkFault::Jitter { us: 500 }, None),
                fault("n4", NetworkFault::CutIn, None),
            ],
            clock: Some(ClockFault { offset_ms: -90_000, left_ms: Some(1_500) }),
            ..FaultStatus::default()
        };
        assert_eq!(
            lines(&faults),
            [
                "is cut off from n2 (2.0 s left)",
                "does not reach n3 (until it is healed)",
                "loses 0.1 % of its packets to n3 (until it is healed)",
                "sends 5 % of its packets to n3 twice (until it is healed)",
                "sends to n3 20.0 ms late (until it is healed)",
                "sends to n3 out of order, up to 500 us late (until it is healed)",
                "hears nothing from n4 (until it is healed)",
                "has its clock 1 m 30 s behind (1.5 s left)",
            ]
        );
        assert_eq!(counts(&faults), None);
        assert_eq!(
            json(&faults)["network"][3],
            json!({ "peer": "n3", "fault": "loss_ppm", "size": 1_000, "left_ms": null })
        );
    }
}

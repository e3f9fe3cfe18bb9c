//! WHERE A NUMBER GOES ON AN AXIS, and which numbers are written beside it.

use crate::report::words;

/// The part of a logarithmic axis that is kept for 0, which has no place on it.
const ZERO_BAND: f64 = 0.13;

/// How numbers are laid along an axis, from 0 (its beginning) to 1 (its end).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    Linear {
        from: f64,
        to: f64,
    },
    Log {
        from: f64,
        to: f64,
    },
    /// As `Log`, with a place for 0 before its beginning.
    LogAndZero {
        from: f64,
        to: f64,
    },
    /// Shares, so that each further nine (90 %, 99 %, 99.9 %) takes as much room as the one before.
    Nines {
        most: f64,
    },
}

/// A number that is written beside an axis, or a line without one.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    pub value: f64,
    /// Empty for a finer line between two numbers.
    pub label: String,
}

impl Scale {
    /// From 0 to at least `most`, ending at a round number.
    pub fn from_zero(most: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let step = step(most, 4);
        Scale::Linear { from: 0.0, to: (most / step - 1e-9).ceil().max(1.0) * step }
    }

    /// Around all of these that are above 0; at least a factor of ten.
    pub fn log_around(values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            least = least.min(value);
            most = most.max(value);
        }
        if least > most {
            return Scale::Log { from: 1.0, to: 10.0 };
        }
        // To 1, 2 or 5 times a power of ten.
        let (mut from, mut to) = (round_log(least, false), round_log(most, true));
        while to / from < 9.99 {
            // On the side where there is less room.
            if least / from < to / most { from = last_log(from) } else { to = next_log(to) }
        }
        Scale::Log { from, to }
    }

    /// Where this number is, from 0 to 1; nothing where the axis has no place for it.
    pub fn place(&self, value: f64) -> Option<f64> {
        if value.is_nan() {
            return None;
        }
        let log = |from: f64, to: f64| (value > 0.0).then(|| (value / from).ln() / (to / from).ln());
        let place = match *self {
            Scale::Linear { from, to } => Some((value - from) / (to - from)),
            Scale::Log { from, to } => log(from, to),
            Scale::LogAndZero { .. } if value == 0.0 => Some(0.0),
            Scale::LogAndZero { from, to } => log(from, to).map(|at| ZERO_BAND + (1.0 - ZERO_BAND) * at.max(0.0)),
            Scale::Nines { most } => Some((nines(value) / most).min(1.0)),
        };
        place.filter(|at| at.is_finite() && *at > -1e-9).map(|at| at.clamp(0.0, 1.0))
    }

    /// At most about `most` numbers, as `say` says them, and finer lines between them.
    pub fn ticks(&self, most: usize, say: fn(f64) -> String) -> Vec<Tick> {
        let most = most.max(2);
        match *self {
            Scale::Linear { from, to } => {
                let step = step(to - from, most);
                let first = (from / step - 1e-9).ceil() as i64;
                let last = (to / step + 1e-9).floor() as i64;
                (first..=last).map(|at| at as f64 * step).map(|value| Tick { value, label: say(value) }).collect()
            }
            Scale::Log { from, to } => log_ticks(from, to, most, say),
            Scale::LogAndZero { from, to } => {
                let zero = Tick { value: 0.0, label: "none".to_owned() };
                std::iter::once(zero).chain(log_ticks(from, to, most, say)).collect()
            }
            Scale::Nines { most } => {
                let shares = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];
                let shares = shares.into_iter().filter(|share| nines(*share) <= most + 1e-9);
                // Where there are many, the half would stand too close to nothing.
                let shares = shares.filter(|share| *share != 0.5 || most < 5.5);
                shares.map(|value| Tick { value, label: words::percent(value) }).collect()
            }
        }
    }
}

/// How many nines a share has: 1 for 0.9, 2 for 0.99.
fn nines(share: f64) -> f64 {
    -(1.0 - share).max(1e-12).log10()
}

/// 1, 2 or 5 times a power of ten, so that a length holds about so many.
fn step(length: f64, most: usize) -> f64 {
    let rough = length.abs().max(1e-12) / most as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|times| times * power).find(|step| *step >= rough * (1.0 - 1e-9));
    step.unwrap_or(10.0 * power)
}

/// The next of 1, 2, 5 times a power of ten from a number, itself if it is one.
fn round_log(value: f64, up: bool) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let mut rounds = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power);
    if up {
        rounds.find(|round| *round >= value * (1.0 - 1e-9)).unwrap_or(10.0 * power)
    } else {
        rounds.rfind(|round| *round <= value * (1.0 + 1e-9)).unwrap_or(power)
    }
}

fn next_log(value: f64) -> f64 {
    round_log(value * 1.1, true)
}

fn last_log(value: f64) -> f64 {
    round_log(value / 1.1, false)
}

fn log_ticks(from: f64, to: f64, most: usize, say: fn(f64) -> String) -> Vec<Tick> {
    let first = from.log10().floor() as i32;
    let last = to.log10().ceil() as i32;
    let decades = (to / from).log10();
    // Over many decades only every second or third is written; over few also their halves.
    let every = (decades / most as f64).ceil().max(1.0) as i32;
    let halves = decades * 3.0 <= most as f64 + 1.0;
    let mut ticks = Vec::new();
    for power in first..=last {
        for times in 1..=9 {
            let value = f64::from(times) * 10_f64.powi(power);
            if value < from * (1.0 - 1e-9) || value > to * (1.0 + 1e-9) {
                continue;
            }
            let written = times == 1 && power.rem_euclid(every) == 0 || halves && (times == 2 || times == 5);
            if written {
                ticks.push(Tick { value, label: say(value) });
            } else if decades < 7.0 {
                ticks.push(Tick { value, label: String::new() });
            }
        }
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|tick| tick.label.as_str()).filter(|label| !label.is_empty()).collect()
    }

    #[test]
    fn a_linear_axis_ends_at_a_round_number() {
        assert_eq!(Scale::from_zero(9_812.0), Scale::Linear { from: 0.0, to: 10_000.0 });
        assert_eq!(Scale::from_zero(0.0), Scale::Linear { from: 0.0, to: 1.0 });
        let ticks = Scale::from_zero(9_812.0).ticks(5, words::rough);
        assert_eq!(labels(&ticks), ["0", "2 k", "4 k", "6 k", "8 k", "10 k"]);
    }

    #[test]
    fn a_logarithmic_axis_covers_what_it_is_made_for() {
        let scale = Scale::log_around([420.0, 0.0, 31_000.0].into_iter());
        assert_eq!(scale, Scale::Log { from: 200.0, to: 50_000.0 });
        assert_eq!(scale.place(0.0), None, "0 has no place");
        assert!(scale.place(420.0).is_some_and(|at| at > 0.0 && at < 0.5));
        assert_eq!(labels(&scale.ticks(4, words::time)), ["1 ms", "10 ms"]);
        let Scale::Log { from, to } = Scale::log_around([5.0].into_iter()) else { panic!("logarithmic") };
        assert!(to / from > 9.9 && from <= 5.0 && to >= 5.0, "one value gets room too: {from} to {to}");
        assert_eq!(Scale::log_around(std::iter::empty()), Scale::Log { from: 1.0, to: 10.0 });
    }

    #[test]
    fn each_nine_takes_as_much_room() {
        let scale = Scale::Nines { most: 4.0 };
        let places: Vec<f64> =
            [0.0, 0.9, 0.99, 0.999, 0.9999, 1.0].into_iter().filter_map(|s| scale.place(s)).collect();
        let expected = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0];
        assert!(places.iter().zip(expected).all(|(place, expected)| (place - expected).abs() < 1e-6), "{places:?}");
        assert_eq!(labels(&scale.ticks(9, words::percent)), ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn zero_has_a_place_of_its_own() {
        let scale = Scale::LogAndZero { from: 1e-4, to: 1.0 };
        assert_eq!(scale.place(0.0), Some(0.0));
        assert!(scale.place(1e-4).is_some_and(|at| at > 0.1));
        assert_eq!(labels(&scale.ticks(3, words::percent)), ["none", "0.01 %", "1 %", "100 %"]);
    }
}

//! NUMBERS IN WORDS: as the page, the summary and the live view say them. What is not a number is said as a dash.

/// What stands where there is nothing to say.
pub const NONE: &str = "–";

/// Microseconds in the unit that fits: "410 µs", "3.20 ms", "1.25 s".
pub fn time(us: f64) -> String {
    if !us.is_finite() || us < 0.0 {
        return NONE.to_owned();
    }
    // What would be rounded up to the next unit is said in it.
    match us {
        us if us < 999.5 => format!("{} µs", short(us)),
        us if us < 999_500.0 => format!("{} ms", short(us / 1e3)),
        us => seconds(us / 1e6),
    }
}

/// Seconds up to two minutes, then minutes and hours.
pub fn seconds(s: f64) -> String {
    if !s.is_finite() {
        return NONE.to_owned();
    }
    let whole = s.round() as i64;
    match s {
        s if s < 119.5 => format!("{} s", short(s)),
        s if s < 7_199.5 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// Three digits that count: "0.041", "4.1", "41.2", "412".
pub fn short(number: f64) -> String {
    let size = number.abs();
    let digits = match size {
        _ if size == 0.0 || size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{number:.digits$}");
    // 3.00 is said as 3, 0.500 as 0.5.
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// "1,234,567".
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A large number for narrow places: "950", "12.3 k", "4.1 M".
pub fn rough(number: f64) -> String {
    match number.abs() {
        size if size < 999.5 => short(number),
        size if size < 999_500.0 => format!("{} k", short(number / 1e3)),
        size if size < 999_500_000.0 => format!("{} M", short(number / 1e6)),
        _ => format!("{} G", short(number / 1e9)),
    }
}

/// "9,812/s".
pub fn rate(per_s: f64) -> String {
    match per_s {
        per_s if !per_s.is_finite() || per_s < 0.0 => NONE.to_owned(),
        per_s if per_s < 99.5 => format!("{}/s", short(per_s)),
        per_s => format!("{}/s", count(per_s.round() as u64)),
    }
}

/// A part of a whole: "12.3 %", "0.0004 %", "0 %"; a dash of nothing.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return NONE.to_owned();
    }
    percent(part as f64 / whole as f64)
}

/// A share from 0 to 1. What is not 0 is not said as 0, what is not all not as 100.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        _ if !percent.is_finite() => NONE.to_owned(),
        percent if percent > 0.0 && percent < 0.000_099_9 => "below 0.0001 %".to_owned(),
        percent if percent > 0.0 && percent < 0.1 => {
            let digits = (1.0 - percent.log10()).ceil() as usize;
            let text = format!("{percent:.digits$}");
            format!("{} %", text.trim_end_matches('0'))
        }
        percent if (99.95..100.0).contains(&percent) => {
            let text = format!("{percent:.4}");
            if text.starts_with("100") { "99.9999 %".to_owned() } else { format!("{} %", text.trim_end_matches('0')) }
        }
        percent => format!("{} %", short((percent * 100.0).round() / 100.0)),
    }
}

/// "312 MiB".
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1023.5 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{} {}", short(size), UNITS[unit])
}

/// How many times the first the second is: "1.23×".
pub fn ratio(first: f64, second: f64) -> String {
    let ratio = second / first;
    match ratio {
        _ if !ratio.is_finite() => NONE.to_owned(),
        ratio if ratio >= 99.5 => format!("{}×", rough(ratio)),
        ratio if ratio != 0.0 && ratio < 0.01 => "below 0.01×".to_owned(),
        ratio => format!("{ratio:.2}×"),
    }
}

/// "1 key", "2 keys".
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// No more than so many characters; what was cut shows.
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_the_unit_that_fits() {
        let said: Vec<String> = [0.0, 0.4, 410.0, 999.6, 3_204.0, 999_400.0, 1_250_000.0, 200e6, 8_000e6, f64::NAN]
            .into_iter()
            .map(time)
            .collect();
        let expected =
            ["0 µs", "0.4 µs", "410 µs", "1 ms", "3.2 ms", "999 ms", "1.25 s", "3 min 20 s", "2 h 13 min", "–"];
        assert_eq!(said, expected);
    }

    #[test]
    fn shares_do_not_round_to_nothing_or_to_all() {
        let said: Vec<String> =
            [(0, 10), (1, 1_000_000), (3, 100_000_000), (1, 8), (999_999, 1_000_000), (5, 5), (1, 0)]
                .into_iter()
                .map(|(part, whole)| share(part, whole))
                .collect();
        assert_eq!(said, ["0 %", "0.0001 %", "below 0.0001 %", "12.5 %", "99.9999 %", "100 %", "–"]);
        assert_eq!(share(47, 100_000), "0.047 %");
    }

    #[test]
    fn numbers_are_grouped_and_shortened() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(100), "100");
        assert_eq!(rough(12_345.0), "12.3 k");
        assert_eq!(rate(9_812.4), "9,812/s");
        assert_eq!(bytes(327_155_712), "312 MiB");
        assert_eq!(ratio(2.0, 3.0), "1.50×");
        assert_eq!(ratio(0.0, 3.0), "–");
        assert_eq!(cut("partition n1 | n2", 10), "partition…");
    }
}

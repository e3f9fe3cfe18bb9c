//! Exact decimal numbers for counters: sums must not depend on the order in which replicas add.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number in units of 10^-17: seventeen digits after the point, as Redis prints, and integers far beyond 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Decimal(pub i128);

const DIGITS: usize = 17;
const UNIT: i128 = 100_000_000_000_000_000;
/// Inputs larger than this are refused; sums have nearly four more digits of room above it.
const WHOLE_MAX: i128 = 100_000_000_000_000_000_000 / 10;

impl Decimal {
    pub const ZERO: Self = Self(0);

    pub fn from_integer(number: i64) -> Self {
        Self(i128::from(number) * UNIT)
    }

    /// The integer, or `None` when there is a fraction or it does not fit.
    pub fn to_integer(self) -> Option<i64> {
        if self.0 % UNIT != 0 {
            return None;
        }
        i64::try_from(self.0 / UNIT).ok()
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    pub fn negated(self) -> Self {
        Self(self.0.saturating_neg())
    }

    /// Reads an integer just as Redis does: an optional minus, no plus, no spaces, no leading zeros, 64 bits.
    pub fn parse_integer(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        let canonical = match digits {
            [b'0'] => digits.len() == text.len(),
            [b'1'..=b'9', ..] => true,
            _ => false,
        };
        if !canonical {
            return None;
        }
        std::str::from_utf8(text).ok()?.parse().ok().map(Self::from_integer)
    }

    /// Reads a decimal number with optional exponent. `None` when it is not a number, is infinite, or has more than twenty digits
    /// before the point; digits past the seventeenth after it are cut.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let negative = mantissa.starts_with('-');
        let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        if whole.len() + fraction.len() == 0 || whole.len() + fraction.len() > 64 || exponent.abs() > 64 {
            return None;
        }
        if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let point = whole.len() as i32 + exponent;
        let mut units: i128 = 0;
        for (at, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
            let power = point - 1 - at as i32 + DIGITS as i32;
            if power < 0 || digit == b'0' {
                continue;
            }
            let scale = 10_i128.checked_pow(power as u32)?;
            units = units.checked_add(scale.checked_mul(i128::from(digit - b'0'))?)?;
        }
        if units > WHOLE_MAX * UNIT {
            return None;
        }
        Some(Self(if negative { -units } else { units }))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let unit = UNIT as u128;
        if self.0 < 0 {
            out.write_str("-")?;
        }
        write!(out, "{}", magnitude / unit)?;
        let fraction = magnitude % unit;
        if fraction != 0 {
            let digits = format!("{fraction:017}");
            write!(out, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_as_redis_does() {
        for (text, printed) in [
            ("10.50", "10.5"),
            ("5.0e3", "5000"),
            ("-0.1", "-0.1"),
            ("3", "3"),
            (".5", "0.5"),
            ("1e-17", "0.00000000000000001"),
        ] {
            assert_eq!(Decimal::parse(text.as_bytes()).expect(text).to_string(), printed);
        }
        for text in ["", ".", "abc", "1e400", "inf", "nan", "1 ", "99999999999999999999999"] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn integers_are_strict() {
        assert_eq!(Decimal::parse_integer(b"-9223372036854775808").and_then(Decimal::to_integer), Some(i64::MIN));
        for text in ["", "-", "+1", " 1", "1 ", "01", "-0", "1.0", "9223372036854775808"] {
            assert_eq!(Decimal::parse_integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn tenths_add_up_exactly() {
        let tenth = Decimal::parse(b"0.1").expect("a number");
        let sum = (0..10).fold(Decimal::ZERO, |sum, _| sum.saturating_add(tenth));
        assert_eq!(sum, Decimal::from_integer(1));
    }
}

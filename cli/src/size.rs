//! Sizes as people write and read them: `64MiB`, `1GiB`.
//!
//! Promise: every multiple is a power of 1024, as in the server's own options. The decimal
//! spellings (`64MB`) are refused, because half of the world means 1000 by them.

use std::fmt;
use std::str::FromStr;

/// Letters of the multiples, each 1024 times the one before.
const LETTERS: &str = "KMGTPE";

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// A number of mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, suffix) = text.split_at(digits);
        let number: u64 = match number.parse() {
            Ok(number) => number,
            Err(_) if digits > 0 => return Err("the number is too large".to_string()),
            Err(_) => return Err("a size is a number and a unit, such as 64MiB".to_string()),
        };
        let shift = shift_of(suffix).ok_or_else(|| {
            format!("unknown unit '{suffix}'; use KiB, MiB, GiB, TiB, or K, M, G, T")
        })?;
        number
            .checked_mul(1 << shift)
            .map(Self)
            .ok_or_else(|| "the number is too large".to_string())
    }
}

/// How far a suffix shifts, or `None` when it is not one of ours. Case does not matter.
fn shift_of(suffix: &str) -> Option<u32> {
    if suffix.is_empty() || suffix.eq_ignore_ascii_case("b") {
        return Some(0);
    }
    let mut chars = suffix.chars();
    let letter = chars.next()?.to_ascii_uppercase();
    let rest = chars.as_str();
    let power = LETTERS.chars().position(|known| known == letter)?;
    let known = rest.is_empty() || rest.eq_ignore_ascii_case("ib");
    known.then_some((power as u32 + 1) * 10)
}

/// Three or four digits and a unit: `817 MiB`, `1.2 GiB`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = None;
        for letter in LETTERS.chars() {
            // What would round up to 1024 already belongs to the next unit.
            if value < 1023.5 {
                break;
            }
            value /= 1024.0;
            unit = Some(letter);
        }
        match unit {
            None => write!(f, "{} B", self.0),
            Some(letter) if value < 99.95 => write!(f, "{value:.1} {letter}iB"),
            Some(letter) => write!(f, "{value:.0} {letter}iB"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("512b", 512),
            ("64K", 64 << 10),
            ("64KiB", 64 << 10),
            ("64M", 64 << 20),
            ("64mib", 64 << 20),
            ("1GiB", 1 << 30),
            ("2T", 2 << 40),
            ("15E", 15 << 60),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in ["", "M", "-1", "1.5GiB", "64MB", "64Mi", "1 GiB", "16E", "1X", "1Kib b"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert!("99999999999999999999".parse::<Size>().unwrap_err().contains("too large"));
    }

    #[test]
    fn shown() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (817 << 20, "817 MiB"),
            ((1 << 30) + (200 << 20), "1.2 GiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn number_and_unit_multiply(number in 0u64..1 << 20, power in 0u32..4) {
            let unit = ["", "K", "MiB", "g"][power as usize];
            let size: Size = format!("{number}{unit}").parse().unwrap();
            prop_assert_eq!(size.0, number << (10 * power));
        }

        #[test]
        fn any_text_is_answered(text in "\\PC*") {
            let _ = text.parse::<Size>();
        }

        #[test]
        fn any_size_is_short(bytes: u64) {
            prop_assert!(Size(bytes).to_string().len() <= 9);
        }
    }
}

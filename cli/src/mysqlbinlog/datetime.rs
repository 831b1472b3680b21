//! Dates with times as servers take them: digits with anything between them, or nothing.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// Seconds since 1970 of a date with a time in a time zone.
pub fn parse(text: &str, zone: &TimeZone) -> Option<u32> {
    let text = text.trim();
    let numbers: Vec<&str> =
        text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    let parts: Vec<i32> = match numbers.as_slice() {
        [digits] | [digits, _] if matches!(digits.len(), 12 | 14) => {
            let year = digits.len() - 10;
            let mut parts = vec![digits.get(..year)?.parse().ok()?];
            for at in (year..digits.len()).step_by(2) {
                parts.push(digits.get(at..at + 2)?.parse().ok()?);
            }
            if year == 2 {
                parts[0] = four_digits(parts[0]);
            }
            parts
        }
        [year, ..] if numbers.len() >= 4 => {
            let mut parts: Vec<i32> =
                numbers.iter().take(6).map(|part| part.parse().ok()).collect::<Option<_>>()?;
            if year.len() <= 2 {
                parts[0] = four_digits(parts[0]);
            }
            parts
        }
        _ => return None,
    };
    let part = |index: usize| i8::try_from(parts.get(index).copied().unwrap_or(0)).ok();
    let date = Date::new(i16::try_from(parts[0]).ok()?, part(1)?, part(2)?).ok()?;
    let time = Time::new(part(3)?, part(4)?, part(5)?, 0).ok()?;
    let zoned = DateTime::from_parts(date, time).to_zoned(zone.clone()).ok()?;
    u32::try_from(zoned.timestamp().as_second()).ok()
}

/// Years of two digits are of this century or of the last.
fn four_digits(year: i32) -> i32 {
    if year < 70 { 2000 + year } else { 1900 + year }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for text in [
            "2024-02-29 12:34:56",
            "2024-02-29T12:34:56",
            "24-2-29 12:34:56",
            "20240229123456",
            "240229123456",
            "2024.02.29 12.34.56",
            "2024-02-29 12:34:56.789",
        ] {
            assert_eq!(parse(text, &TimeZone::UTC), Some(1_709_210_096), "{text}");
        }
        assert_eq!(parse("2024-02-29 12:34", &TimeZone::UTC), Some(1_709_210_040));
        for text in ["2024-02-29", "yesterday", "", "2024-13-01 00:00:00", "12:34:56"] {
            assert_eq!(parse(text, &TimeZone::UTC), None, "{text}");
        }
    }
}

//! Dates and times, in the formats of before and since 10.1.

use crate::bytes::{big_uint, int, uint};

/// A date; its parts are as stored and may be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Date {
    /// Year.
    pub year: u32,
    /// Month.
    pub month: u32,
    /// Day.
    pub day: u32,
}

/// A time or a part of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Below zero.
    pub negative: bool,
    /// Hours; more than 24 for a TIME.
    pub hour: u32,
    /// Minutes.
    pub minute: u32,
    /// Seconds.
    pub second: u32,
    /// Millionths of a second.
    pub micros: u32,
}

/// Bytes of a fraction of so many digits.
pub const fn fraction_size(digits: u8) -> usize {
    digits.div_ceil(2) as usize
}

/// Millionths that so many bytes of a fraction stand for.
fn micros(fraction: u64, bytes: usize) -> u32 {
    let scale = [1_000_000, 10_000, 100, 1][bytes.min(3)];
    u32::try_from(fraction.saturating_mul(scale)).unwrap_or(u32::MAX)
}

/// Four bytes of seconds and a fraction, big-endian.
pub fn timestamp2(bytes: &[u8]) -> (u32, u32) {
    let (seconds, fraction) = bytes.split_at_checked(4).unwrap_or_default();
    (big_uint(seconds) as u32, micros(big_uint(fraction), fraction.len()))
}

/// Five bytes of date and time and a fraction, big-endian.
pub fn datetime2(bytes: &[u8]) -> (Date, Time) {
    const OFFSET: u64 = 1 << 39;
    let (whole, fraction) = bytes.split_at_checked(5).unwrap_or_default();
    // Below the offset are negative values, which no DATETIME has; their size is what is shown.
    let whole = big_uint(whole).abs_diff(OFFSET);
    let (days, seconds) = (whole >> 17, whole as u32 & 0x1_ffff);
    let months = (days >> 5) as u32;
    let date = Date { year: months / 13, month: months % 13, day: (days & 31) as u32 };
    let time = Time {
        negative: false,
        hour: seconds >> 12,
        minute: seconds >> 6 & 63,
        second: seconds & 63,
        micros: micros(big_uint(fraction), fraction.len()),
    };
    (date, time)
}

/// Three bytes of a time and a fraction, big-endian, as one number that may be negative.
pub fn time2(bytes: &[u8]) -> Time {
    let fraction_bytes = bytes.len().saturating_sub(3).min(3);
    let bits = 8 * fraction_bytes as u32;
    let offset = 0x80_0000_u64 << bits;
    let value = big_uint(bytes);
    let size = value.abs_diff(offset);
    let whole = (size >> bits) as u32;
    Time {
        negative: value < offset,
        hour: whole >> 12 & 1023,
        minute: whole >> 6 & 63,
        second: whole & 63,
        micros: micros(size & ((1 << bits) - 1), fraction_bytes),
    }
}

/// Three bytes: day, month, year.
pub fn date(bytes: &[u8]) -> Date {
    let value = uint(bytes) as u32;
    Date { year: value >> 9, month: value >> 5 & 15, day: value & 31 }
}

/// Eight bytes: a number whose decimal digits are the parts.
pub fn datetime(bytes: &[u8]) -> (Date, Time) {
    let value = uint(bytes);
    let (day, second) = ((value / 1_000_000) as u32, (value % 1_000_000) as u32);
    (Date { year: day / 10_000, month: day / 100 % 100, day: day % 100 }, digits(second, false))
}

/// Three bytes: a number with a sign, whose decimal digits are the parts.
pub fn time(bytes: &[u8]) -> Time {
    let value = int(bytes);
    digits(value.unsigned_abs() as u32, value < 0)
}

fn digits(value: u32, negative: bool) -> Time {
    Time {
        negative,
        hour: value / 10_000,
        minute: value / 100 % 100,
        second: value % 100,
        micros: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_time_with_a_fraction() {
        // -00:00:00.01 as TIME(2).
        let time = time2(&[0x7f, 0xff, 0xff, 0xff]);
        let expected = Time { negative: true, micros: 10_000, ..Time::default() };
        assert_eq!(time, expected);
        assert_eq!(time2(&[0x80, 0, 0]), Time::default());
    }

    #[test]
    fn a_date_and_time() {
        // 2024-02-29 23:59:58.5 as DATETIME(1): month 2024 * 13 + 2, day 29.
        let whole = ((2024_u64 * 13 + 2) << 5 | 29) << 17 | 23 << 12 | 59 << 6 | 58 | 1 << 39;
        let mut bytes = whole.to_be_bytes()[3..].to_vec();
        bytes.push(50);
        let (date, time) = datetime2(&bytes);
        assert_eq!(date, Date { year: 2024, month: 2, day: 29 });
        assert_eq!((time.hour, time.minute, time.second, time.micros), (23, 59, 58, 500_000));
    }
}

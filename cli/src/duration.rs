//! Durations as people write and read them: `60s`, `1h30m`, `7d`.
//!
//! Promise: a number without a unit is refused, never guessed.

use std::time::Duration;

/// Units, longest first, in milliseconds.
const UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads one or more numbers with units, each unit smaller than the one before.
pub fn parse(text: &str) -> Result<Duration, String> {
    let too_long = || "the duration is too long".to_string();
    let mut rest = text;
    let mut total: u64 = 0;
    let mut finer_than = u64::MAX;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        if digits == 0 {
            return Err("a duration is a number and a unit, such as 60s or 1h30m".to_string());
        }
        let letters = tail.bytes().take_while(|b| !b.is_ascii_digit()).count();
        let (unit, tail) = tail.split_at(letters);
        let Some(&(_, millis)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(match unit {
                "" => format!("'{number}' needs a unit: ms, s, m, h, d or w"),
                _ => format!("unknown unit '{unit}'; use ms, s, m, h, d or w"),
            });
        };
        if millis >= finer_than {
            return Err(format!("unit '{unit}' must not follow a smaller or equal one"));
        }
        let number: u64 = number.parse().map_err(|_| too_long())?;
        total =
            number.checked_mul(millis).and_then(|n| total.checked_add(n)).ok_or_else(too_long)?;
        finer_than = millis;
        rest = tail;
    }
    Ok(Duration::from_millis(total))
}

/// How long something took, with as many digits as matter: `0.02 s`, `12.3 s`, `3 min 20 s`.
pub fn show(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let whole = seconds.round() as u64;
    if seconds < 9.995 {
        format!("{seconds:.2} s")
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else {
        show_whole(Duration::from_secs(whole))
    }
}

/// A duration to the second, for estimates: `8 s`, `3 min 20 s`, `2 h 5 min`.
pub fn show_whole(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 60 {
        format!("{whole} s")
    } else if whole < 3600 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{} h {} min", whole / 3600, whole % 3600 / 60)
    }
}

/// [`show`] for a number of seconds, as the engine's summaries hold them.
pub fn show_seconds(seconds: f64) -> String {
    show(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings() {
        for (text, millis) in [
            ("60s", 60_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
            ("1m5s", 65_000),
            ("1m5ms", 60_005),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in ["", "60", "s", "1 s", "-1s", "5s1m", "1s1s", "1y", "1.5s", "99999999999999w"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown() {
        for (millis, text) in [
            (0, "0.00 s"),
            (21, "0.02 s"),
            (9_994, "9.99 s"),
            (12_340, "12.3 s"),
            (59_960, "1 min 0 s"),
            (200_000, "3 min 20 s"),
            (3_599_700, "1 h 0 min"),
        ] {
            assert_eq!(show(Duration::from_millis(millis)), text);
        }
        assert_eq!(show_seconds(f64::NAN), "0.00 s");
    }

    proptest! {
        #[test]
        fn parts_add_up(hours in 0u64..1000, minutes in 0u64..60, seconds in 0u64..60) {
            let parsed = parse(&format!("{hours}h{minutes}m{seconds}s")).unwrap();
            prop_assert_eq!(parsed.as_secs(), hours * 3600 + minutes * 60 + seconds);
        }

        #[test]
        fn any_text_is_answered(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}

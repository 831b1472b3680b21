//! Numbers for people.

use std::time::Duration;

/// Bytes, as `12.3 MiB`.
pub fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    for (limit, unit) in [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= limit as f64 {
            return format!("{:.1} {unit}", bytes / limit as f64);
        }
    }
    format!("{bytes} B")
}

/// A time, as `2.34 s` or `12 ms`.
pub fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.0} ms", seconds * 1000.0),
    }
}

//! Small pieces of text, written as C's `printf` and the stock tool's own functions write them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Appends formatted text; nothing can go wrong in memory.
macro_rules! put {
    ($out:expr, $($what:tt)*) => {{
        use std::io::Write as _;
        let _ = write!($out, $($what)*);
    }};
}
pub(super) use put;

/// Appends a number in decimal digits.
pub(super) fn push_uint(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a number that may be negative.
pub(super) fn push_int(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_uint(out, value.unsigned_abs());
}

/// Appends a number with zeros in front.
pub(super) fn push_padded(out: &mut Vec<u8>, value: u32, width: usize) {
    let begin = out.len();
    push_uint(out, value.into());
    let length = out.len() - begin;
    if length < width {
        out.resize(begin + width, b'0');
        out.copy_within(begin..begin + length, begin + width - length);
        out[begin..begin + width - length].fill(b'0');
    }
}

/// A double as `%.{digits}g` writes it.
pub(super) fn general(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return if value.is_sign_negative() { "-nan" } else { "nan" }.to_owned();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-inf" } else { "inf" }.to_owned();
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    // The digits are those of the scientific form; only the point moves.
    let negative = mantissa.starts_with('-');
    let figures: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let text = match usize::try_from(exponent) {
        Ok(exponent) => {
            let (whole, fraction) = figures.split_at((exponent + 1).min(figures.len()));
            if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
        }
        Err(_) => format!("0.{}{figures}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
    };
    format!("{}{}", if negative { "-" } else { "" }, trim(&text))
}

/// Appends bytes between quotes. Only control characters are escaped: what comes out is for people,
/// it is not SQL.
pub(super) fn push_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'\'');
    let mut rest = text;
    while !rest.is_empty() {
        // In pieces, so that text without control characters is copied fast.
        let (piece, behind) = rest.split_at(rest.len().min(64));
        rest = behind;
        if piece.iter().fold(u8::MAX, |least, byte| least.min(*byte)) > 0x1f {
            out.extend_from_slice(piece);
            continue;
        }
        for &byte in piece {
            if byte > 0x1f {
                out.push(byte);
            } else {
                put!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push(b'\'');
}

/// Appends a name between backticks, which are doubled in it.
pub fn push_name(out: &mut Vec<u8>, name: &[u8]) {
    out.push(b'`');
    for &byte in name {
        if byte == b'`' {
            out.push(b'`');
        }
        out.push(byte);
    }
    out.push(b'`');
}

/// Appends text between quotes of any kind, with escapes as in SQL.
pub(super) fn push_escaped(out: &mut Vec<u8>, text: &[u8], quote: u8) {
    out.push(quote);
    for &byte in text {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            8 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\'' => out.extend_from_slice(b"\\'"),
            0 => out.extend_from_slice(b"\\0"),
            _ => out.push(byte),
        }
    }
    out.push(quote);
}

/// Bytes of a line of base64 before they are encoded, and after.
const LINE: (usize, usize) = (57, 76);

/// Bytes that [`push_base64`] appends for so many.
pub(super) const fn base64_len(bytes: usize) -> usize {
    let text = bytes.div_ceil(3) * 4;
    text + text.div_ceil(LINE.1)
}

/// Appends bytes in base64, in lines that all end.
pub(super) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let begin = out.len();
    out.resize(begin + base64_len(bytes.len()), b'\n');
    let mut rest = out.get_mut(begin..).unwrap_or_default();
    for line in bytes.chunks(LINE.0) {
        let length = line.len().div_ceil(3) * 4;
        let Some((text, behind)) = rest.split_at_mut_checked(length) else { break };
        // The room is exactly that of the text.
        let _ = STANDARD.encode_slice(line, text);
        rest = behind.get_mut(1..).unwrap_or_default();
    }
}

/// Times of events in a time zone, one after another.
pub(super) struct Clock {
    zone: TimeZone,
    /// The last one: most events have the same second as the one before.
    last: Option<(u32, [u8; 15])>,
}

impl Clock {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { zone, last: None }
    }

    /// Appends `YYMMDD hh:mm:ss`, with a blank instead of a zero before an hour of one digit.
    pub(super) fn push(&mut self, out: &mut Vec<u8>, seconds: u32) {
        let text = match self.last {
            Some((last, text)) if last == seconds => text,
            _ => {
                let time = Timestamp::from_second(seconds.into()).unwrap_or_default();
                let time = time.to_zoned(self.zone.clone());
                let mut text = [b' '; 15];
                let mut room = text.as_mut_slice();
                put!(
                    room,
                    "{:02}{:02}{:02} {:2}:{:02}:{:02}",
                    time.year() % 100,
                    time.month(),
                    time.day(),
                    time.hour(),
                    time.minute(),
                    time.second()
                );
                self.last = Some((seconds, text));
                text
            }
        };
        out.extend_from_slice(&text);
    }
}

/// Bytes of a line of a hexadecimal dump.
const HEX_LINE: usize = 16;

/// Appends an event in hexadecimal digits: its header by field, then the rest.
pub(super) fn push_hexdump(out: &mut Vec<u8>, offset: u64, event: &[u8]) {
    let Some((header, body)) = event.split_at_checked(crate::header::HEADER_LEN) else { return };
    out.extend_from_slice(b"\n# Position\n");
    out.extend_from_slice(
        b"#           |Timestamp   |Type |Master ID   |Size        |Master Pos  |Flags\n",
    );
    put!(out, "# {offset:8x}  ");
    for (range, width) in [(0..4, 12), (4..5, 5), (5..9, 12), (9..13, 12), (13..17, 12)] {
        out.push(b'|');
        let begin = out.len();
        for byte in &header[range] {
            put!(out, "{byte:02x} ");
        }
        out.resize(begin + width, b' ');
    }
    put!(out, "|{:02x} {:02x}\n#\n", header[17], header[18]);
    let body_at = offset + header.len() as u64;
    for (index, line) in body.chunks(HEX_LINE).enumerate() {
        put!(out, "# {:8x}  ", body_at + (index * HEX_LINE) as u64);
        let begin = out.len();
        for (index, byte) in line.iter().enumerate() {
            put!(out, "{byte:02x} ");
            if index % 8 == 7 && index + 1 < HEX_LINE {
                out.push(b' ');
            }
        }
        out.resize(begin + HEX_LINE * 3 + 1, b' ');
        out.extend_from_slice(b" |");
        out.extend(line.iter().map(|byte| match byte {
            b' '..=b'~' => *byte,
            _ => b'.',
        }));
        out.extend_from_slice(b"|\n");
    }
    if !body.is_empty() {
        out.extend_from_slice(b"#\n");
    }
    out.extend_from_slice(b"# Event: ");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_as_in_c() {
        for (value, digits, expected) in [
            (0.0, 20, "0"),
            (-0.0, 20, "-0"),
            (1.5, 20, "1.5"),
            (-2.25e300, 20, "-2.2499999999999999694e+300"),
            (3.4_f32.into(), 6, "3.4"),
            (1e-5, 6, "1e-05"),
            (0.0001, 6, "0.0001"),
            (123_456.0, 6, "123456"),
            (1_234_567.0, 6, "1.23457e+06"),
            (999_999.5, 6, "1e+06"),
            (100.0, 14, "100"),
        ] {
            assert_eq!(general(value, digits), expected, "{value}");
        }
    }

    #[test]
    fn base64_in_lines() {
        for length in [0, 1, 56, 57, 58, 114, 200] {
            let mut out = b"x".to_vec();
            push_base64(&mut out, &vec![7; length]);
            assert_eq!(out.len() - 1, base64_len(length), "{length}");
            assert_eq!(out.ends_with(b"\n"), length > 0);
            assert!(!out.ends_with(b"\n\n"), "{length}");
        }
    }
}

//! What statements answer, as packets: columns, rows, and how it went on.
//!
//! Everything is text; a value that is longer than a packet goes on in the next one. Nothing is taken for
//! granted of what a server sends: what cannot be read is `None`.

use super::wire::Fields;

/// Columns that a result has at most.
pub(super) const COLUMNS_MAX: u64 = 4096;

/// The number that bytes begin with; `None` for NULL, and where there is none.
fn number(bytes: &mut Fields<'_>) -> Option<u64> {
    let width = match bytes.take(1).first()? {
        0xfb | 0xff => return None,
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        small => return Some(u64::from(*small)),
    };
    let digits = bytes.take(width);
    (digits.len() == width)
        .then(|| digits.iter().rev().fold(0, |value, digit| value << 8 | u64::from(*digit)))
}

/// The text that bytes begin with.
fn text<'a>(bytes: &mut Fields<'a>) -> Option<&'a [u8]> {
    let length = usize::try_from(number(bytes)?).ok()?;
    let text = bytes.take(length);
    (text.len() == length).then_some(text)
}

/// How many columns a result has, by its first packet.
pub(super) fn columns(packet: &[u8]) -> Option<u64> {
    number(&mut Fields(packet)).filter(|count| (1..=COLUMNS_MAX).contains(count))
}

/// The name of a column: the fifth of its texts.
pub(super) fn column_name(packet: &[u8]) -> Option<String> {
    let mut bytes = Fields(packet);
    let name = (0..5).map(|_| text(&mut bytes)).last()??;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// The values of a row with so many columns.
pub(super) fn row(packet: &[u8], columns: usize) -> Option<Vec<Option<Vec<u8>>>> {
    const NULL: u8 = 0xfb;
    let mut bytes = Fields(packet);
    let mut values = Vec::with_capacity(columns);
    for _ in 0..columns {
        values.push(match bytes.0.strip_prefix(&[NULL]) {
            Some(rest) => {
                bytes.0 = rest;
                None
            }
            None => Some(text(&mut bytes)?.to_vec()),
        });
    }
    bytes.0.is_empty().then_some(values)
}

/// The first column of a row as text.
pub(super) fn first_column(packet: &[u8]) -> Option<String> {
    text(&mut Fields(packet)).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// The flags in an answer that has no rows, behind its first byte.
pub(super) fn flags(bytes: &[u8]) -> u16 {
    let mut bytes = Fields(bytes);
    let flags = number(&mut bytes).and_then(|_| number(&mut bytes));
    flags.and_then(|_| bytes.0.first_chunk()).map_or(0, |flags| u16::from_le_bytes(*flags))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_are_read() {
        assert_eq!(flags(&[0, 0, 10, 0, 0, 0]), 10);
        assert_eq!(flags(&[0xfc, 1, 2, 3, 0x0a, 1, 0, 0]), 0x10a);
        assert_eq!(flags(&[0xfc, 1]), 0);
        assert_eq!(number(&mut Fields(&[0xfd, 1, 2, 3, 9])), Some(0x30201));
        assert_eq!(first_column(&[2, b'4', b'2', 1, b'x']).unwrap(), "42");
        assert_eq!(first_column(&[0xfb]), None);
        assert_eq!(first_column(&[9, b'4']), None);
    }

    #[test]
    fn rows_are_whole_or_none() {
        let values = row(&[1, b'a', 0xfb, 0], 3).unwrap();
        assert_eq!(values, [Some(b"a".to_vec()), None, Some(Vec::new())]);
        for broken in [&[1, b'a'][..], &[1, b'a', 0xfb, 0, 0], &[0xfe; 9], &[0xfc, 1], &[]] {
            assert_eq!(row(broken, 3), None, "{broken:?}");
        }
        let column = [3, b'd', b'e', b'f', 0, 1, b't', 1, b't', 2, b'i', b'd', 0];
        assert_eq!(column_name(&column).unwrap(), "id");
        assert_eq!(column_name(&column[..9]), None);
        assert_eq!(columns(&[2]), Some(2));
        assert!(columns(&[0xfd, 0xff, 0xff, 0xff]).is_none() && columns(&[0xfb]).is_none());
    }
}

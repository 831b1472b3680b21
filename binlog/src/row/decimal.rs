//! Packed decimals: nine digits in four bytes, big-endian, what is left of nine in as few bytes as
//! possible. The highest bit is turned over, so that values sort as bytes; of a negative value all
//! bits are.

/// Digits that four bytes hold.
const GROUP: u8 = 9;

/// Bytes that 0 to 9 digits take.
const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Most digits of a column.
const PRECISION_MAX: u8 = 65;

/// Most digits behind the point.
const SCALE_MAX: u8 = 38;

/// Whether a column can have so many digits.
pub fn is_valid(precision: u8, scale: u8) -> bool {
    (1..=PRECISION_MAX).contains(&precision) && scale <= precision.min(SCALE_MAX)
}

/// Bytes of a value of so many digits, some of them behind the point.
pub fn size(precision: u8, scale: u8) -> usize {
    let half = |digits: u8| 4 * usize::from(digits / GROUP) + BYTES[usize::from(digits % GROUP)];
    half(precision.saturating_sub(scale)) + half(scale)
}

/// Appends the text of a value that has its [`size`].
pub fn write(packed: &[u8], precision: u8, scale: u8, text: &mut Vec<u8>) {
    let Some(&first) = packed.first() else { return };
    let flip = if first & 0x80 == 0 { 0xff } else { 0 };
    let mut at = 0;
    // The number that the next digits make.
    let mut next = |digits: u8| {
        let bytes = packed.get(at..at + BYTES[usize::from(digits)]).unwrap_or_default();
        let value = bytes.iter().enumerate().fold(0_u32, |value, (index, byte)| {
            let sign = if at + index == 0 { 0x80 } else { 0 };
            value << 8 | u32::from(byte ^ flip ^ sign)
        });
        at += bytes.len();
        value
    };
    if flip != 0 {
        text.push(b'-');
    }
    let whole = precision.saturating_sub(scale);
    let begin = text.len();
    push(next(whole % GROUP), whole % GROUP, text);
    for _ in 0..whole / GROUP {
        push(next(GROUP), GROUP, text);
    }
    let zeros = text.get(begin..).unwrap_or_default();
    let zeros = zeros.iter().take_while(|digit| **digit == b'0').count();
    text.drain(begin..begin + zeros);
    if text.len() == begin {
        text.push(b'0');
    }
    if scale > 0 {
        text.push(b'.');
        for _ in 0..scale / GROUP {
            push(next(GROUP), GROUP, text);
        }
        push(next(scale % GROUP), scale % GROUP, text);
    }
}

/// Appends so many digits.
fn push(value: u32, digits: u8, text: &mut Vec<u8>) {
    let begin = text.len();
    let mut value = value;
    for _ in 0..digits {
        text.push(b'0' + (value % 10) as u8);
        value /= 10;
    }
    text.get_mut(begin..).unwrap_or_default().reverse();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_of_the_manual() {
        // 1234567890.1234 as DECIMAL(14,4), and its negative.
        let mut packed = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        assert_eq!(size(14, 4), packed.len());
        let text = |packed: &[u8]| {
            let mut text = Vec::new();
            write(packed, 14, 4, &mut text);
            String::from_utf8(text).unwrap()
        };
        assert_eq!(text(&packed), "1234567890.1234");
        packed.iter_mut().for_each(|byte| *byte = !*byte);
        assert_eq!(text(&packed), "-1234567890.1234");
        assert_eq!(text(&[0x80, 0, 0, 0, 0, 0, 0]), "0.0000");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            packed in proptest::collection::vec(any::<u8>(), 0..40),
            precision: u8,
            scale: u8,
        ) {
            write(&packed, precision, scale, &mut Vec::new());
        }
    }
}

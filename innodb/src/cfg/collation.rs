//! How many bytes a character takes, by the number of its collation.
//!
//! The server reads this from its character sets. The numbers are fixed for good; new collations
//! of old character sets get numbers in ranges of their own. Asked of 10.11 and 11.8.

/// Shortest and longest character of a collation's character set, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CharBytes {
    /// The shortest.
    pub min: u32,
    /// The longest.
    pub max: u32,
}

/// Collations of eucjpms and ujis.
const EUC_JP: &[std::ops::RangeInclusive<u32>] =
    &[12..=12, 91..=91, 97..=98, 1036..=1036, 1115..=1115, 1121..=1122];

/// Collations of character sets whose characters are not one byte each.
const WIDE: &[(CharBytes, &[std::ops::RangeInclusive<u32>])] = &[
    // big5, cp932, euckr, gb2312, gbk, sjis
    (
        CharBytes { min: 1, max: 2 },
        &[
            1..=1,
            13..=13,
            19..=19,
            24..=24,
            28..=28,
            84..=88,
            95..=96,
            1025..=1025,
            1037..=1037,
            1043..=1043,
            1048..=1048,
            1052..=1052,
            1108..=1112,
            1119..=1120,
        ],
    ),
    // eucjpms, ujis
    (CharBytes { min: 1, max: 3 }, EUC_JP),
    // utf8mb3
    (
        CharBytes { min: 1, max: 3 },
        &[
            33..=33,
            83..=83,
            192..=223,
            576..=607,
            1057..=1057,
            1107..=1107,
            1216..=1247,
            2048..=2303,
        ],
    ),
    // utf8mb4
    (
        CharBytes { min: 1, max: 4 },
        &[45..=46, 224..=323, 608..=639, 1069..=1070, 1248..=1279, 2304..=2559],
    ),
    // ucs2
    (
        CharBytes { min: 2, max: 2 },
        &[
            35..=35,
            90..=90,
            128..=159,
            640..=671,
            1059..=1059,
            1114..=1114,
            1152..=1183,
            2560..=2815,
        ],
    ),
    // utf16, utf16le
    (
        CharBytes { min: 2, max: 4 },
        &[
            54..=56,
            62..=62,
            101..=124,
            672..=703,
            1078..=1080,
            1086..=1086,
            1125..=1151,
            2816..=3071,
        ],
    ),
    // utf32
    (
        CharBytes { min: 4, max: 4 },
        &[60..=61, 160..=191, 736..=767, 1084..=1085, 1184..=1215, 3072..=3327],
    ),
];

/// The first bytes of `text`, in a collation, that are at most `count` characters; `None` where that
/// cannot be told, because bytes alone do not tell the characters of some character sets.
pub fn first_chars(text: &[u8], count: usize, collation: u32) -> Option<&[u8]> {
    /// A byte of a character in UTF-8 that is not its first.
    const fn continues(byte: u8) -> bool {
        byte & 0xc0 == 0x80
    }
    let CharBytes { min, max } = char_bytes(collation);
    if min == max || text.len() <= count {
        return Some(text.get(..count * (max.max(1) as usize)).unwrap_or(text));
    }
    let is_utf8 =
        min == 1 && (max == 4 || max == 3 && !EUC_JP.iter().any(|ids| ids.contains(&collation)));
    if !is_utf8 {
        return None;
    }
    let starts = text.iter().enumerate().filter(|(_, byte)| !continues(**byte));
    let end = starts.map(|(at, _)| at).nth(count).unwrap_or(text.len());
    text.get(..end)
}

/// The size of characters in a collation. Numbers that are not listed are of character sets with
/// one byte.
pub fn char_bytes(collation: u32) -> CharBytes {
    if collation == 0 {
        return CharBytes { min: 0, max: 0 };
    }
    let wide = WIDE.iter().find(|(_, ids)| ids.iter().any(|range| range.contains(&collation)));
    wide.map_or(CharBytes { min: 1, max: 1 }, |(bytes, _)| *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_characters() {
        let (latin1, utf8mb3, utf8mb4, ucs2, gbk, ujis) = (8, 33, 45, 35, 28, 12);
        let text = "aé€𝄞b".as_bytes();
        for (collation, count, bytes) in [
            (latin1, 3, Some(3)),
            (latin1, 30, Some(11)),
            (utf8mb4, 0, Some(0)),
            (utf8mb4, 2, Some(3)),
            (utf8mb4, 4, Some(10)),
            (utf8mb4, 5, Some(11)),
            (utf8mb3, 3, Some(6)),
            (ucs2, 3, Some(6)),
            (gbk, 3, None),
            (gbk, 11, Some(11)),
            (ujis, 3, None),
        ] {
            let found = first_chars(text, count, collation).map(<[u8]>::len);
            assert_eq!(found, bytes, "{count} of collation {collation}");
        }
    }
}

//! Names of character sets and collations by the number of the collation.
//!
//! The numbers are fixed for good. Those below 2048 are in a list, as 11.8 tells them; above, the
//! numbers of the collations of Unicode 14 are made by rule: blocks of 256 for each of five
//! character sets, in them eight for each language.

use std::collections::HashMap;
use std::sync::OnceLock;

/// `number character-set collation`, one a line.
const LISTED: &str = include_str!("collations.txt");

/// First number that is made by rule.
const RULED: u16 = 2048;

/// Character sets of the blocks.
const RULED_SETS: [&str; 5] = ["utf8mb3", "utf8mb4", "ucs2", "utf16", "utf32"];

/// Languages within a block, as parts of names; two numbers are not used.
const LANGUAGES: [Option<&str>; 25] = [
    Some(""),
    Some("icelandic_"),
    Some("latvian_"),
    Some("romanian_"),
    Some("slovenian_"),
    Some("polish_"),
    Some("estonian_"),
    Some("spanish_"),
    Some("swedish_"),
    Some("turkish_"),
    Some("czech_"),
    Some("danish_"),
    Some("lithuanian_"),
    Some("slovak_"),
    Some("spanish2_"),
    Some("roman_"),
    Some("persian_"),
    Some("esperanto_"),
    Some("hungarian_"),
    Some("sinhala_"),
    Some("german2_"),
    None,
    None,
    Some("vietnamese_"),
    Some("croatian_"),
];

/// The number of `binary`: bytes without a character set.
pub const BINARY: u16 = 63;

/// A collation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collation {
    /// Its character set.
    pub charset: &'static str,
    /// Its own name.
    pub name: String,
}

impl Collation {
    /// The collation with a number.
    pub fn of(number: u16) -> Option<Self> {
        if number < RULED {
            let (charset, name) = *listed().get(&number)?;
            return Some(Self { charset, name: name.to_owned() });
        }
        let ruled = number - RULED;
        let charset = *RULED_SETS.get(usize::from(ruled / 256))?;
        let language = LANGUAGES.get(usize::from(ruled % 256 / 8)).copied().flatten()?;
        let pad = if ruled & 4 == 0 { "" } else { "nopad_" };
        let accent = if ruled & 2 == 0 { "ai" } else { "as" };
        let case = if ruled & 1 == 0 { "ci" } else { "cs" };
        Some(Self { charset, name: format!("{charset}_uca1400_{language}{pad}{accent}_{case}") })
    }

    /// Bytes of the longest character.
    pub fn char_bytes(&self) -> u32 {
        match self.charset {
            "utf8mb4" | "utf16" | "utf16le" | "utf32" => 4,
            "utf8mb3" | "ujis" | "eucjpms" => 3,
            "big5" | "sjis" | "euckr" | "gb2312" | "gbk" | "ucs2" | "cp932" => 2,
            _ => 1,
        }
    }
}

fn listed() -> &'static HashMap<u16, (&'static str, &'static str)> {
    static LIST: OnceLock<HashMap<u16, (&'static str, &'static str)>> = OnceLock::new();
    LIST.get_or_init(|| {
        let line = |line: &'static str| {
            let mut words = line.split(' ');
            Some((words.next()?.parse().ok()?, (words.next()?, words.next()?)))
        };
        LISTED.lines().filter_map(line).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names() {
        assert_eq!(listed().len(), LISTED.lines().count());
        let name = |number| Collation::of(number).map(|collation| collation.name);
        for (number, expected) in [
            (8, "latin1_swedish_ci"),
            (33, "utf8mb3_general_ci"),
            (63, "binary"),
            (1122, "eucjpms_nopad_bin"),
            (2048, "utf8mb3_uca1400_ai_ci"),
            (2061, "utf8mb3_uca1400_icelandic_nopad_ai_cs"),
            (2304, "utf8mb4_uca1400_ai_ci"),
            (2488, "utf8mb4_uca1400_vietnamese_ai_ci"),
            (2048 + 256 * 4, "utf32_uca1400_ai_ci"),
        ] {
            assert_eq!(name(number).as_deref(), Some(expected), "{number}");
        }
        for number in [0, 17, 2047, u16::MAX] {
            assert_eq!(name(number), None, "{number}");
        }
    }
}

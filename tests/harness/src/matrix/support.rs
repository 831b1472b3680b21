//! What works on which server: the table in `docs/compatibility.md`, read by the tests.
//!
//! The document is the one place where it stands. Each row there is a [`Feature`]; in the column
//! of each generation is `yes`, `refused` (recognised, and refused by name), or `–` where the
//! server itself does not have it.

use anyhow::{Context, bail, ensure};

use crate::Result;
use crate::generation::Generation;

/// The document.
const DOCUMENT: &str = include_str!("../../../../docs/compatibility.md");
/// The heading that the table stands under.
const HEADING: &str = "## What works on which server";

/// Something that a cell of the matrix needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Tables without anything special, in each page size.
    Plain,
    /// ROW_FORMAT=COMPRESSED.
    CompressedRows,
    /// The checksum algorithms that only old servers write.
    OldChecksums,
    /// Encrypted tablespaces.
    EncryptedTables,
    /// Encrypted redo, with encrypted Aria tables beside it.
    EncryptedLog,
    /// PAGE_COMPRESSED with the algorithm that every server has.
    PageCompressedZlib,
    /// PAGE_COMPRESSED with any other algorithm.
    PageCompressedOther,
}

impl Feature {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Plain,
        Self::CompressedRows,
        Self::OldChecksums,
        Self::EncryptedTables,
        Self::EncryptedLog,
        Self::PageCompressedZlib,
        Self::PageCompressedOther,
    ];

    /// The first column of its row.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Plain => "Tables of every engine below, page sizes from 4 to 64 KiB",
            Self::CompressedRows => "`ROW_FORMAT=COMPRESSED`",
            Self::OldChecksums => "`innodb_checksum_algorithm` `innodb`, `none`",
            Self::EncryptedTables => "Encrypted tablespaces",
            Self::EncryptedLog => "Encrypted redo log, encrypted Aria tables",
            Self::PageCompressedZlib => "`PAGE_COMPRESSED`, zlib",
            Self::PageCompressedOther => "`PAGE_COMPRESSED`, lz4, lzo, lzma, bzip2, snappy",
        }
    }
}

/// What becomes of something on one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Backup, prepare and restore work.
    Yes,
    /// Refused by name.
    Refused,
    /// No such thing on this server.
    Absent,
}

/// The table.
#[derive(Clone, Debug)]
pub struct Table(Vec<(Feature, [Support; 3])>);

impl Table {
    /// The table of the document.
    pub fn read() -> Result<Self> {
        Self::parse(DOCUMENT)
    }

    fn parse(document: &str) -> Result<Self> {
        let section = document.split(HEADING).nth(1).context("the heading is missing")?;
        let rows: Vec<Vec<&str>> = section
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let columns = rows.first().context("the table is missing")?;
        let series: Vec<&str> = Generation::ALL.iter().map(|known| known.series()).collect();
        ensure!(columns.get(1..) == Some(&series[..]), "columns {columns:?}");
        let mut table = Vec::new();
        for row in rows.iter().skip(2) {
            let label = row.first().copied().unwrap_or_default();
            let feature = Feature::ALL.into_iter().find(|known| known.label() == label);
            let feature = feature.with_context(|| format!("no cell has {label:?}"))?;
            let supports: Vec<Support> =
                row[1..].iter().map(|word| support(word)).collect::<Result<_>>()?;
            let supports = supports.try_into().ok().with_context(|| format!("row {label:?}"))?;
            table.push((feature, supports));
        }
        let found: Vec<Feature> = table.iter().map(|(feature, _)| *feature).collect();
        ensure!(found == Feature::ALL, "rows {found:?}");
        Ok(Self(table))
    }

    /// What becomes of `feature` on servers of `generation`.
    pub fn of(&self, feature: Feature, generation: Generation) -> Support {
        let row = self.0.iter().find(|(known, _)| *known == feature);
        row.map_or(Support::Absent, |(_, supports)| supports[generation as usize])
    }

    /// Which of `features` are refused.
    pub fn refused(&self, features: &[Feature], generation: Generation) -> Vec<Feature> {
        let refused = |feature: &Feature| self.of(*feature, generation) != Support::Yes;
        features.iter().copied().filter(refused).collect()
    }
}

fn support(word: &str) -> Result<Support> {
    Ok(match word {
        "yes" => Support::Yes,
        "refused" => Support::Refused,
        "–" => Support::Absent,
        _ => bail!("{word:?} is neither yes, refused nor –"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::matrix::Cell;

    #[test]
    fn the_document_has_all_features_and_no_cell_needs_what_its_server_lacks() {
        let table = Table::read().unwrap();
        for generation in Generation::ALL {
            for seed in 1..=200 {
                for feature in Cell::random(generation, seed).features() {
                    let support = table.of(feature, generation);
                    assert_ne!(support, Support::Absent, "{feature:?} on {generation:?}");
                }
            }
        }
    }

    #[test]
    fn a_row_too_many_too_few_or_with_other_words_is_noticed() {
        let good = DOCUMENT.to_owned();
        let row = good.lines().find(|line| line.contains(Feature::Plain.label())).unwrap();
        for (from, to) in [
            (row, "| Something else | yes | yes | yes |"),
            (&format!("{row}\n")[..], ""),
            (row, &row.replacen("yes", "maybe", 1).replacen("refused", "maybe", 1)[..]),
        ] {
            Table::parse(&good.replace(from, to)).unwrap_err();
        }
    }
}

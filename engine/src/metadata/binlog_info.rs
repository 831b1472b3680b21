//! `*_binlog_info`: where a replica of the backed-up server goes on.
//!
//! One line, `file<TAB>position<TAB>gtid`. The GTID part has the grammar of the stock tool but
//! names every domain, see [`ReplicationPosition`](crate::server::position::ReplicationPosition).

use std::path::Path;

use binlog::{BinlogPosition, GtidPosition};

use super::{Naming, damaged, read_text};
use crate::Result;
use crate::server::position::ReplicationPosition;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinlogInfo {
    /// File and offset of the next event.
    pub position: BinlogPosition,
    /// GTID position at that place; empty when the server never wrote a transaction.
    pub gtid: GtidPosition,
}

impl BinlogInfo {
    /// What the file shall say about this position; `None` when the binary log is off, in which
    /// case there is no file.
    pub fn from_position(position: &ReplicationPosition) -> Option<Self> {
        let binlog = position.binlog.clone()?;
        Some(Self { position: binlog, gtid: position.gtid.clone() })
    }

    /// The bytes of the file.
    pub fn to_text(&self) -> String {
        format!("{}\t{}\t{}\n", self.position.file(), self.position.offset(), self.gtid)
    }

    /// The same as a sentence, for the info file and the log.
    pub fn sentence(&self) -> String {
        format!(
            "filename '{}', position '{}', GTID of the last change '{}'",
            self.position.file(),
            self.position.offset(),
            self.gtid
        )
    }

    /// The place that such a sentence names; `None` if it makes no sense.
    pub fn place_of_sentence(sentence: &str) -> Option<BinlogPosition> {
        let rest = sentence.trim().strip_prefix("filename '")?;
        let (file, rest) = rest.split_once("', position '")?;
        let (offset, _) = rest.split_once('\'')?;
        BinlogPosition::new(file, offset.parse().ok()?).ok()
    }

    /// Reads the content; the GTID may be missing. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let line = text.lines().next().unwrap_or_default();
        let mut fields = line.split('\t');
        let file = fields.next().unwrap_or_default();
        let offset = fields.next().ok_or("it has no position")?;
        let offset = offset.trim().parse().map_err(|_| format!("'{offset}' is no position"))?;
        let position = BinlogPosition::new(file, offset).map_err(|error| error.to_string())?;
        let gtid = fields.next().unwrap_or_default();
        let gtid = gtid.parse().map_err(|error: binlog::GtidError| error.to_string())?;
        Ok(Self { position, gtid })
    }

    /// Reads the file of a backup, under whichever name it has; `None` when there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        for naming in Naming::PREFERRED_FIRST {
            let path = dir.join(naming.binlog_info());
            if let Some(text) = read_text(&path)? {
                return Self::parse(&text).map(Some).map_err(|why| damaged(&path, why));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sentences_name_places() {
        let info = BinlogInfo::parse("bin.000001\t2614\t0-7-16\n").unwrap();
        assert_eq!(BinlogInfo::place_of_sentence(&info.sentence()), Some(info.position));
        for nonsense in ["", "filename 'a', position 'x', GTID", "filename 'a', position '1"] {
            assert_eq!(BinlogInfo::place_of_sentence(nonsense), None);
        }
    }

    #[test]
    fn bytes_are_those_of_the_stock_tool() {
        for text in ["bin.000001\t2614\t0-7-16\n", "bin.000001\t322\t\n"] {
            assert_eq!(BinlogInfo::parse(text).unwrap().to_text(), text);
        }
        let info = BinlogInfo::parse("bin.000001\t2614\t0-1-226,5-5-55\n").unwrap();
        assert_eq!(
            info.sentence(),
            "filename 'bin.000001', position '2614', GTID of the last change '0-1-226,5-5-55'"
        );
    }

    #[test]
    fn without_gtid_and_nonsense() {
        assert!(BinlogInfo::parse("bin.000001\t4").unwrap().gtid.is_empty());
        for bad in ["", "bin", "bin\tx\t", "../bin\t4\t", "bin\t4\t0-1"] {
            assert!(BinlogInfo::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z./\t\n0-9,-]{0,60}") {
            if let Ok(info) = BinlogInfo::parse(&text) {
                prop_assert_eq!(BinlogInfo::parse(&info.to_text()), Ok(info));
            }
        }
    }
}

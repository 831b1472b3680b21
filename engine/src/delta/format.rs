//! The layout of `.delta` files.
//!
//! A file is a sequence of clusters. Each is a header as long as a page, and then pages as they are
//! stored. All numbers are big-endian.
//!
//! | word of the header | content |
//! |---|---|
//! | 0 | `xtra`, or `XTRA` in the last cluster |
//! | 1 … | numbers of the pages, within their file, ascending |
//! | behind them | `FFFFFFFF`, unless the header is full |
//!
//! Every cluster but the last is full, so each begins at a multiple of its size. A file of which
//! nothing changed is one header.

use innodb::PageSize;
use innodb::bytes::u32_at;

/// Begins a cluster that others follow.
const MORE: u32 = u32::from_be_bytes(*b"xtra");
/// Begins the last cluster.
const LAST: u32 = u32::from_be_bytes(*b"XTRA");
/// Stands behind the last page number.
const END: u32 = u32::MAX;
/// Length of a word.
const WORD: usize = 4;

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It does not begin like one.
    #[error("cluster {0} does not begin with xtra or XTRA")]
    Magic(u64),
    /// There are more clusters, although this one is not full.
    #[error("cluster {0} is not full, but not the last one either")]
    NotFull(u64),
    /// Page numbers do not ascend.
    #[error("in cluster {cluster} page {page} does not stand in order")]
    Order {
        /// Which cluster.
        cluster: u64,
        /// Which page.
        page: u32,
    },
}

/// Pages in a full cluster.
pub const fn pages_max(page_size: PageSize) -> usize {
    page_size.bytes() / WORD - 1
}

/// Where a cluster begins.
pub const fn cluster_offset(page_size: PageSize, number: u64) -> u64 {
    number * (page_size.bytes() / WORD * page_size.bytes()) as u64
}

/// The header of a cluster of `pages`.
pub fn header(page_size: PageSize, pages: &[u32], last: bool) -> Vec<u8> {
    let mut header = Vec::with_capacity(page_size.bytes());
    header.extend(if last { LAST } else { MORE }.to_be_bytes());
    header.extend(pages.iter().take(pages_max(page_size)).flat_map(|page| page.to_be_bytes()));
    if header.len() < page_size.bytes() {
        header.extend(END.to_be_bytes());
    }
    header.resize(page_size.bytes(), 0);
    header
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The pages that follow it.
    pub pages: Vec<u32>,
    /// Whether there are no more clusters.
    pub last: bool,
}

impl Cluster {
    /// Reads the header of cluster `number`, a page long. `after` is the last page before it.
    pub fn parse(header: &[u8], number: u64, after: Option<u32>) -> Result<Self, FormatError> {
        let last = match u32_at(header, 0) {
            Some(LAST) => true,
            Some(MORE) => false,
            _ => return Err(FormatError::Magic(number)),
        };
        let words = (1..header.len() / WORD).map_while(|word| u32_at(header, word * WORD));
        let pages: Vec<u32> = words.take_while(|word| *word != END).collect();
        if !last && pages.len() < header.len() / WORD - 1 {
            return Err(FormatError::NotFull(number));
        }
        let mut before = after;
        for &page in &pages {
            if before.is_some_and(|before| before >= page) {
                return Err(FormatError::Order { cluster: number, page });
            }
            before = Some(page);
        }
        Ok(Self { pages, last })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_delta_is_one_header() {
        let header = header(PageSize::DEFAULT, &[], true);
        assert_eq!(header.len(), 16384);
        assert!(header.starts_with(b"XTRA\xff\xff\xff\xff\0\0"));
        let cluster = Cluster::parse(&header, 0, None).unwrap();
        assert_eq!(cluster, Cluster { pages: vec![], last: true });
    }

    #[test]
    fn a_full_header_has_no_end() {
        let page_size = PageSize::new(1024).unwrap();
        let pages: Vec<u32> = (0..255).map(|page| page * 2).collect();
        assert_eq!((pages_max(page_size), cluster_offset(page_size, 2)), (255, 2 << 18));
        let full = header(page_size, &pages, false);
        assert!(full.starts_with(b"xtra") && full.ends_with(&[0, 0, 1, 252]));
        assert_eq!(Cluster::parse(&full, 0, None).unwrap(), Cluster { pages, last: false });
        let short = header(page_size, &[7], false);
        assert_eq!(Cluster::parse(&short, 3, None), Err(FormatError::NotFull(3)));
    }

    #[test]
    fn disorder_and_strangers_are_refused() {
        let page_size = PageSize::new(1024).unwrap();
        let disorder = header(page_size, &[3, 3], true);
        let error = FormatError::Order { cluster: 1, page: 3 };
        assert_eq!(Cluster::parse(&disorder, 1, None), Err(error));
        let follows = header(page_size, &[3], true);
        assert!(Cluster::parse(&follows, 1, Some(3)).is_err());
        assert_eq!(Cluster::parse(b"xtrA....", 0, None), Err(FormatError::Magic(0)));
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = Cluster::parse(&bytes, 0, None);
            let _ = Cluster::parse(&[b"XTRA", bytes.as_slice()].concat(), 0, Some(5));
        }
    }
}

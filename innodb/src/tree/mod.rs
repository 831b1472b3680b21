//! Index trees. REDUNDANT records say themselves where their fields are; those of the other row formats
//! need the definition of the table.
//!
//! This is meant for prepared pages. On the pages of a running server a walk sees a moving
//! target.
//!
//! | module | what |
//! |---|---|
//! | [`page`] | one index page and the order of its records |
//! | [`redundant`] | the fields of a record of ROW_FORMAT=REDUNDANT |
//! | [`compact`] | the fields of a record of ROW_FORMAT=COMPACT and DYNAMIC |
//! | [`rewrite`](mod@rewrite) | changes of single records of those |
//! | [`walk`] | from a root to its leaves, and along them |

pub mod compact;
pub mod page;
pub mod redundant;
pub mod rewrite;
pub mod walk;

pub use page::IndexPage;
pub use redundant::Record;
pub use walk::{leftmost_leaf, walk};

use crate::PageId;

/// A page whose content contradicts itself or the pages around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{page}: {what}")]
pub struct StructureError {
    /// The page.
    pub page: PageId,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Where pages come from: plain, whole and checked.
pub trait Pages {
    /// What goes wrong when a page is read, or when it makes no sense.
    type Error: From<StructureError>;

    /// The content of a page.
    ///
    /// # Errors
    /// When there is no such page, or none that can be trusted.
    fn page(&self, id: PageId) -> Result<Vec<u8>, Self::Error>;

    /// Pages in the tablespace. Nothing is ever followed for more steps than this.
    fn count(&self, space: crate::SpaceId) -> u32;
}

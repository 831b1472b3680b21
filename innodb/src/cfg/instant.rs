//! What instant ALTER TABLE left in the clustered index of a table.
//!
//! Columns that are only added at the end change nothing that an export has to know. Dropped and
//! moved ones do: the fields of the index then are not the columns in their order. A record before
//! all others, on the leaf with the smallest keys, leads to a BLOB with the order.
//!
//! The root says whether there is such a record: its smallest and largest record hold other bytes
//! than those of every other page.

use super::CfgError;
use super::fields::{IndexFields, of_table};
use crate::bytes::{u8_at, u32_at};
use crate::dictionary::Table;
use crate::page::{PageType, page_type};
use crate::tree::page::record;
use crate::tree::walk::redundant_child;
use crate::tree::{IndexPage, Pages, Record, StructureError, leftmost_leaf};
use crate::{PageId, PageNo};

/// Bytes of the smallest record of every page but such a root.
const INFIMUM: &[u8; 8] = b"infimum\0";
/// Kind of the record with the metadata, in COMPACT pages.
const STATUS_INSTANT: u8 = 4;
/// Transaction id and rollback pointer, before the reference to the BLOB.
const SYSTEM_BYTES: usize = 13;

/// The reference to a BLOB, 20 bytes.
mod reference {
    pub const SPACE: usize = 0;
    pub const PAGE: usize = 4;
    pub const OFFSET: usize = 8;
    pub const SIZE: usize = 20;
    /// What the offset always is.
    pub const OFFSET_VALUE: u32 = 38;
}

/// The only page of the BLOB.
mod blob {
    /// Bytes of content, 4 bytes.
    pub const LENGTH: usize = 38;
    pub const DATA: usize = 46;
}

/// An element of the map, 2 bytes.
mod element {
    pub const DROPPED: u16 = 0x8000;
    pub const NOT_NULL: u16 = 0x4000;
    pub const NUMBER: u16 = 0x03ff;
    /// In the number of a dropped column: values vary, and may be longer than 255 bytes.
    pub const VARIES_LONG: u16 = 1;
}

/// A field behind the key and the system columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappedField {
    /// A stored column that is still there.
    Column(u16),
    /// A dropped one, whose values old records still have.
    Dropped {
        /// Whether values may be NULL.
        nullable: bool,
        /// Length of every value, or 0 when it varies.
        fixed_len: u16,
        /// Whether lengths of values may need two bytes.
        long: bool,
    },
}

/// The fields of a clustered index behind its key and the system columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldMap {
    /// In their order.
    pub fields: Vec<MappedField>,
}

impl FieldMap {
    /// Reads what the elements of the map say, `content` being that of the BLOB.
    fn parse(content: &[u8]) -> Option<Self> {
        let count = usize::try_from(u32_at(content, 0)?).ok()?;
        let elements = content.get(4..)?.get(..count.checked_mul(2)?)?;
        let (pairs, _) = elements.as_chunks::<2>();
        let fields = pairs.iter().map(|pair| {
            let value = u16::from_be_bytes(*pair);
            let number = value & element::NUMBER;
            match value & element::DROPPED {
                0 => MappedField::Column(number),
                _ => MappedField::Dropped {
                    nullable: value & element::NOT_NULL == 0,
                    fixed_len: number.saturating_sub(1),
                    long: number == element::VARIES_LONG,
                },
            }
        });
        Some(Self { fields: fields.collect() })
    }
}

/// Reads the map of a table whose clustered index has one. `root` is the index's root page.
///
/// # Errors
/// When a page cannot be read or makes no sense.
pub fn field_map<P: Pages>(
    pages: &P,
    table: &Table,
    root: &IndexPage<'_>,
) -> Result<Option<FieldMap>, P::Error>
where
    P::Error: From<CfgError>,
{
    let wrong = |page, what| StructureError { page, what };
    let (infimum, supremum) = root.bounds().ok_or(wrong(root.id(), "it is cut short"))?;
    if !root.is_instant_root() || infimum == INFIMUM {
        return Ok(None);
    }
    let null_bytes = usize::from(supremum[7]);
    let plain = of_table(table, None)?;
    let Some(key) = plain.first() else { return Ok(None) };
    let (leaf, bytes) = leftmost_leaf(pages, root.id(), |page, origin| match page.is_compact() {
        true => compact_child(page, origin, key, null_bytes),
        false => redundant_child(page, origin),
    })?;
    let page = IndexPage::new(leaf, &bytes)?;
    let missing = wrong(leaf, "the metadata of an instant ALTER TABLE is missing");
    let origin = page.records().next().ok_or(missing)??;
    if page.info(origin) != record::SMALLEST | record::DELETED {
        return Err(missing.into());
    }
    let reference = match page.is_compact() {
        true => compact_reference(&page, origin, key),
        // Behind the key and two system columns.
        false => Record::at(page, origin)?.field(key.unique + 2)?,
    };
    let target = reference.and_then(|reference| target(reference, root.id()));
    let blob = target.ok_or(wrong(leaf, "the metadata of an instant ALTER TABLE leads nowhere"))?;
    let content = pages.page(blob)?;
    let map = (page_type(&content) == Some(PageType::BLOB))
        .then(|| {
            let length = usize::try_from(u32_at(&content, blob::LENGTH)?).ok()?;
            FieldMap::parse(content.get(blob::DATA..)?.get(..length)?)
        })
        .flatten();
    map.map(Some).ok_or(wrong(blob, "it is not the metadata of an instant ALTER TABLE").into())
}

/// The page that a reference to a BLOB leads to, if it is in the tablespace of `root`.
fn target(reference: &[u8], root: PageId) -> Option<PageId> {
    let at_home = u32_at(reference, reference::SPACE)? == root.space.0
        && u32_at(reference, reference::OFFSET)? == reference::OFFSET_VALUE;
    let page = PageNo(u32_at(reference, reference::PAGE)?);
    at_home.then_some(PageId { space: root.space, page })
}

/// The reference in the record with the metadata. Its key is as short as can be: fixed lengths
/// as always, nothing of the others.
fn compact_reference<'p>(
    page: &IndexPage<'p>,
    origin: usize,
    clustered: &IndexFields<'_>,
) -> Option<&'p [u8]> {
    let status = u8_at(page.bytes(), origin.checked_sub(record::STATUS)?)? & 7;
    let key: usize =
        clustered.fields.iter().take(clustered.unique).map(|field| field.fixed_len as usize).sum();
    let start = origin + key + SYSTEM_BYTES;
    (status == STATUS_INSTANT).then(|| page.bytes().get(start..start + reference::SIZE)).flatten()
}

/// The page that a node's record leads to: 4 bytes behind the key, whose lengths stand before
/// the record. `null_bytes` are between them and the record's header.
fn compact_child(
    page: &IndexPage<'_>,
    origin: usize,
    clustered: &IndexFields<'_>,
    null_bytes: usize,
) -> Result<PageNo, StructureError> {
    let child = || {
        let mut lengths = origin.checked_sub(record::INFO_COMPACT + null_bytes)?;
        let mut at = origin;
        for field in clustered.fields.iter().take(clustered.unique) {
            if field.fixed_len > 0 {
                at += field.fixed_len as usize;
                continue;
            }
            lengths = lengths.checked_sub(1)?;
            let byte = u8_at(page.bytes(), lengths)?;
            at += if field.long && byte & 0x80 != 0 {
                lengths = lengths.checked_sub(1)?;
                // The low half stands before the high one.
                usize::from(byte & 0x3f) << 8 | usize::from(u8_at(page.bytes(), lengths)?)
            } else {
                usize::from(byte)
            };
        }
        u32_at(page.bytes(), at).map(PageNo)
    };
    child().ok_or(StructureError { page: page.id(), what: "a node's record is out of bounds" })
}

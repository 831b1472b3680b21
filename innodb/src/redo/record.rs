//! Decoding of records: which page or file, and what happens to it.
//!
//! The first byte: bit 7 "same page" (or, before any page record, "file record"), bits 6–4 the
//! type, bits 3–0 the length of the body, 0 when a variable-length number follows. A record
//! without bit 7 carries space id and page number; offsets of later records of the same page
//! count from the end of the one before.
//!
//! Two steps, because a prepare sorts records by page long before it applies them: [`Records`]
//! walks a mini-transaction and says only where each record belongs; [`Bodies`] decodes a run of
//! records of one page into what they do.

use super::mtr::record_size_extended;
use super::varint;
use crate::{Lsn, PageId, PageNo, SpaceId};

/// Offsets below this belong to the checksum and page number, which no record changes.
const OFFSET_MIN: u32 = 8;
/// Where offsets count from behind an INIT_PAGE or EXTENDED record: the page type field.
const OFFSET_AFTER_INIT: u32 = 24;

/// `TRIM_PAGES`, the one EXTENDED subtype that is not a change to the bytes of one page.
pub const TRIM_PAGES: u8 = 10;

/// A record that is not what the grammar allows, behind a good CRC: corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field is cut short.
    #[error("{0} is cut short")]
    Short(&'static str),
    /// A field has a value that no server writes.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Types of records, bits 6–4 of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The page is free: earlier records are moot.
    FreePage,
    /// The page is made anew: earlier records and content are moot.
    InitPage,
    /// A change to a page in the terms of its records.
    Extended,
    /// Bytes written.
    Write,
    /// A pattern repeated.
    Memset,
    /// Bytes moved within the page.
    Memmove,
    /// May be ignored.
    Option,
}

/// One record, as far as it must be understood to be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A change to a page.
    Page {
        /// Which page.
        page: PageId,
        /// What kind of change.
        kind: Kind,
        /// Whether the record carries its own ids; runs start with such a record.
        own_ids: bool,
        /// The whole record, first byte included.
        raw: &'a [u8],
        /// Behind the ids.
        body: &'a [u8],
    },
    /// A change to a file.
    File(FileRecord<'a>),
}

/// A record about a file. Paths are as the server opened the file, not terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRecord<'a> {
    /// The file is about to be created.
    Create(SpaceId, &'a [u8]),
    /// The file is about to be deleted.
    Delete(SpaceId, &'a [u8]),
    /// The file is about to be renamed.
    Rename(SpaceId, &'a [u8], &'a [u8]),
    /// The file is changed for the first time since a checkpoint.
    Modify(SpaceId, &'a [u8]),
    /// The checkpoint at this LSN was completed.
    Checkpoint(Lsn),
    /// Zero bytes that fill space.
    Padding,
}

/// Iterator over the records of one mini-transaction.
///
/// Ends after the first error: nothing behind it can be trusted.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    page: Option<PageId>,
}

impl<'a> Records<'a> {
    /// Walks `records`, the records of one whole mini-transaction or a run of one page.
    pub fn new(records: &'a [u8]) -> Self {
        Self { rest: records, page: None }
    }

    /// What was not walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    fn decode(&mut self) -> Result<Record<'a>, Malformed> {
        let (&first, behind) = self.rest.split_first().ok_or(Malformed::Short("a record"))?;
        let (size, length_bytes) = match first & 15 {
            0 => {
                let size = record_size_extended(behind)
                    .map_err(|_| Malformed::Invalid("a record has an impossible length"))?;
                let bytes = match behind.first() {
                    Some(0..=0x7f) => 1,
                    Some(0x80..=0xbf) => 2,
                    _ => 3,
                };
                (size, bytes)
            }
            short => (1 + usize::from(short), 0),
        };
        let (raw, rest) = self.rest.split_at_checked(size).ok_or(Malformed::Short("a record"))?;
        let mut body = raw.get(1 + length_bytes..).ok_or(Malformed::Short("a record"))?;
        self.rest = rest;

        let kind = first >> 4 & 7;
        let own_ids = first & 0x80 == 0;
        if own_ids {
            let space = varint::take(&mut body).ok_or(Malformed::Short("a space id"))?;
            let page = varint::take(&mut body).ok_or(Malformed::Short("a page number"))?;
            if space >= SpaceId::LIMIT.0 {
                return Err(Malformed::Invalid("a space id is larger than any tablespace's"));
            }
            self.page = Some(PageId { space: SpaceId(space), page: PageNo(page) });
        }
        let Some(page) = self.page else {
            return file_record(kind, body).map(Record::File);
        };
        let kind = match kind {
            0 | 1 if !own_ids => {
                return Err(Malformed::Invalid("FREE_PAGE or INIT_PAGE without a page number"));
            }
            0 | 1 if !body.is_empty() => {
                return Err(Malformed::Invalid("FREE_PAGE or INIT_PAGE is too long"));
            }
            0 => Kind::FreePage,
            1 => Kind::InitPage,
            2 => Kind::Extended,
            3 => Kind::Write,
            4 => Kind::Memset,
            5 => Kind::Memmove,
            7 => Kind::Option,
            _ => return Err(Malformed::Invalid("a record of a reserved type")),
        };
        Ok(Record::Page { page, kind, own_ids, raw, body })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.decode();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

fn file_record(kind: u8, mut body: &[u8]) -> Result<FileRecord<'_>, Malformed> {
    let space = varint::take(&mut body).ok_or(Malformed::Short("the space id of a file record"))?;
    let page = varint::take(&mut body);
    // Padding is all zero bytes, and may be too short to hold ids.
    if space == 0 && kind == 7 && body.len() == 8 && page == Some(0) {
        let lsn = body.first_chunk().ok_or(Malformed::Short("a checkpoint LSN"))?;
        return Ok(FileRecord::Checkpoint(Lsn(u64::from_be_bytes(*lsn))));
    }
    if space == 0 && page.unwrap_or(0) == 0 && body.iter().all(|&b| b == 0) {
        return Ok(FileRecord::Padding);
    }
    if page != Some(0) || space == 0 || space >= SpaceId::LIMIT.0 {
        return Err(Malformed::Invalid("a file record with impossible ids"));
    }
    let space = SpaceId(space);
    let path = |path| {
        if is_path(path) {
            Ok(path)
        } else {
            Err(Malformed::Invalid("a file record without a path"))
        }
    };
    match kind {
        0 => Ok(FileRecord::Create(space, path(body)?)),
        1 => Ok(FileRecord::Delete(space, path(body)?)),
        2 => {
            let nul = body
                .iter()
                .position(|&b| b == 0)
                .ok_or(Malformed::Invalid("a rename without a new name"))?;
            let (from, to) = body.split_at(nul);
            Ok(FileRecord::Rename(space, path(from)?, path(to.get(1..).unwrap_or_default())?))
        }
        3 => Ok(FileRecord::Modify(space, path(body)?)),
        _ => Err(Malformed::Invalid("a file record of an unknown type")),
    }
}

fn is_path(path: &[u8]) -> bool {
    path.ends_with(b".ibd") && path.contains(&b'/') && !path.contains(&0)
}

/// What a record does to its page. Offsets count from the start of the page and are at least 8;
/// whether they lie within the page is for the applier to check, who knows its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// The page is free.
    FreePage,
    /// The page is made anew.
    InitPage,
    /// A change in the terms of the page's records.
    Extended {
        /// Which one.
        subtype: u8,
        /// Its arguments.
        payload: &'a [u8],
    },
    /// Bytes written.
    Write {
        /// Where to.
        offset: u32,
        /// What; at least one byte.
        bytes: &'a [u8],
    },
    /// A pattern repeated.
    Memset {
        /// Where to.
        offset: u32,
        /// How many bytes in all: a multiple of the pattern's length.
        length: u32,
        /// The pattern; at least one byte.
        pattern: &'a [u8],
    },
    /// Bytes moved within the page.
    Memmove {
        /// Where to.
        offset: u32,
        /// How many bytes.
        length: u32,
        /// Where from.
        source: u32,
    },
    /// May be ignored.
    Option {
        /// Which one.
        subtype: u8,
        /// Its arguments.
        payload: &'a [u8],
    },
}

/// Iterator over what a run of records of one page does. A run starts with a record that carries
/// ids, and stays on one page; offsets continue from record to record.
#[derive(Clone, Debug)]
pub struct Bodies<'a> {
    records: Records<'a>,
    /// Where the offset of a same-page record counts from; `None` when none may follow.
    offset: Option<u32>,
}

impl<'a> Bodies<'a> {
    /// Decodes a run of records of one page.
    pub fn new(run: &'a [u8]) -> Self {
        Self { records: Records::new(run), offset: Some(0) }
    }

    #[inline]
    fn decode(&mut self, record: Record<'a>) -> Result<Body<'a>, Malformed> {
        let Record::Page { kind, own_ids, mut body, .. } = record else {
            return Err(Malformed::Invalid("a file record among those of a page"));
        };
        if own_ids {
            self.offset = Some(0);
        }
        match kind {
            Kind::FreePage => {
                self.offset = None;
                Ok(Body::FreePage)
            }
            Kind::InitPage => {
                self.offset = Some(OFFSET_AFTER_INIT);
                Ok(Body::InitPage)
            }
            Kind::Extended => {
                let (&subtype, payload) =
                    body.split_first().ok_or(Malformed::Short("an EXTENDED record"))?;
                self.offset = (subtype != TRIM_PAGES).then_some(OFFSET_AFTER_INIT);
                Ok(Body::Extended { subtype, payload })
            }
            Kind::Option => {
                let (&subtype, payload) =
                    body.split_first().ok_or(Malformed::Short("an OPTION record"))?;
                Ok(Body::Option { subtype, payload })
            }
            Kind::Write => {
                let offset = self.target(&mut body)?;
                if body.is_empty() {
                    return Err(Malformed::Short("the data of a WRITE"));
                }
                let length = u32::try_from(body.len())
                    .map_err(|_| Malformed::Invalid("a WRITE is too long"))?;
                self.moved_to(offset, length)?;
                Ok(Body::Write { offset, bytes: body })
            }
            Kind::Memset => {
                let offset = self.target(&mut body)?;
                let length =
                    varint::take(&mut body).ok_or(Malformed::Short("the length of a MEMSET"))?;
                let fits = !body.is_empty()
                    && length as usize >= body.len()
                    && (length as usize).is_multiple_of(body.len());
                if !fits {
                    return Err(Malformed::Invalid(
                        "the pattern of a MEMSET does not divide its length",
                    ));
                }
                self.moved_to(offset, length)?;
                Ok(Body::Memset { offset, length, pattern: body })
            }
            Kind::Memmove => {
                let offset = self.target(&mut body)?;
                let length =
                    varint::take(&mut body).ok_or(Malformed::Short("the length of a MEMMOVE"))?;
                let code =
                    varint::take(&mut body).ok_or(Malformed::Short("the source of a MEMMOVE"))?;
                if !body.is_empty() || length == 0 {
                    return Err(Malformed::Invalid("a MEMMOVE of the wrong size"));
                }
                // The lowest bit is the sign; a distance of zero does not exist.
                let distance = code / 2 + 1;
                let source = if code & 1 == 0 {
                    offset.checked_add(distance)
                } else {
                    offset.checked_sub(distance)
                };
                let source = source.filter(|&s| s >= OFFSET_MIN);
                let source =
                    source.ok_or(Malformed::Invalid("a MEMMOVE from outside of the page"))?;
                self.moved_to(offset, length)?;
                Ok(Body::Memmove { offset, length, source })
            }
        }
    }

    fn target(&self, body: &mut &[u8]) -> Result<u32, Malformed> {
        let base =
            self.offset.ok_or(Malformed::Invalid("a change to a page that was just freed"))?;
        let delta = varint::take(body).ok_or(Malformed::Short("the offset of a record"))?;
        let target = base.checked_add(delta).filter(|&t| t >= OFFSET_MIN);
        target.ok_or(Malformed::Invalid("a change outside of the page"))
    }

    fn moved_to(&mut self, offset: u32, length: u32) -> Result<(), Malformed> {
        let end =
            offset.checked_add(length).ok_or(Malformed::Invalid("a change outside of the page"))?;
        self.offset = Some(end);
        Ok(())
    }
}

impl<'a> Iterator for Bodies<'a> {
    type Item = Result<Body<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let body = self.records.next()?.and_then(|record| self.decode(record));
        if body.is_err() {
            self.records.rest = &[];
        }
        Some(body)
    }
}

/// Whether the records of a mini-transaction are all what the grammar allows, inside too.
pub fn is_sound(records: &[u8]) -> bool {
    let mut walk = Records::new(records);
    let mut run_at = None;
    loop {
        let at = records.len() - walk.rest().len();
        let next = walk.next();
        let begins = matches!(next, Some(Ok(Record::Page { own_ids: true, .. })));
        if begins || next.is_none() {
            let run = run_at.and_then(|start| records.get(start..at)).unwrap_or_default();
            if Bodies::new(run).any(|body| body.is_err()) {
                return false;
            }
            run_at = Some(at);
        }
        match next {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn page(space: u32, page: u32) -> PageId {
        PageId { space: SpaceId(space), page: PageNo(page) }
    }

    fn bodies(run: &[u8]) -> Vec<Body<'_>> {
        Bodies::new(run).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn offsets_continue_behind_a_page_that_was_made_anew() {
        let run = b"\x12\x21\x00\xb2\x01\x08\xb2\x0f\x21\xb5\x04\x00\x00\x00\x04\xc3\x0c\x04\xff";
        assert_eq!(
            bodies(run),
            [
                Body::InitPage,
                Body::Write { offset: 25, bytes: &[8] },
                Body::Write { offset: 41, bytes: &[33] },
                Body::Write { offset: 46, bytes: &[0, 0, 0, 4] },
                Body::Memset { offset: 62, length: 4, pattern: &[0xff] },
            ]
        );
    }

    #[test]
    fn a_move_counts_from_the_end_of_the_memset_before_it() {
        let run = b"\x45\x01\x3e\x78\x04\xff\xd3\x00\x06\x0b";
        assert_eq!(
            bodies(run),
            [
                Body::Memset { offset: 120, length: 4, pattern: &[0xff] },
                Body::Memmove { offset: 124, length: 6, source: 118 },
            ]
        );
    }

    #[test]
    fn long_ids_and_offsets() {
        let run = b"\x36\x03\x51\x80\xd2\x66\x55";
        let first = Records::new(run).next().unwrap().unwrap();
        assert!(
            matches!(first, Record::Page { page: p, kind: Kind::Write, .. } if p == page(3, 81))
        );
        assert_eq!(bodies(run), [Body::Write { offset: 338, bytes: &[0x66, 0x55] }]);
    }

    #[test]
    fn an_extended_record() {
        let run = b"\x27\x0a\x04\x09\x97\x11\x01\x08";
        assert_eq!(bodies(run), [Body::Extended { subtype: 9, payload: &[0x97, 0x11, 1, 8] }]);
    }

    #[test]
    fn file_records() {
        let mut create = b"\x8c\x21\x00./w/r0.ibd".to_vec();
        create.extend(b"\x12\x21\x00");
        let records: Vec<_> = Records::new(&create).collect::<Result<_, _>>().unwrap();
        assert_eq!(records[0], Record::File(FileRecord::Create(SpaceId(33), b"./w/r0.ibd")));
        assert!(matches!(records[1], Record::Page { kind: Kind::InitPage, .. }));

        let checkpoint = b"\xfa\0\0\0\0\0\0\0\0\x30\0";
        let records: Vec<_> = Records::new(checkpoint).collect::<Result<_, _>>().unwrap();
        assert_eq!(records, [Record::File(FileRecord::Checkpoint(Lsn(12288)))]);

        // 0xa0: a rename with an extended length; 16 + 9 bytes in all.
        let rename = b"\xa0\x09\x05\x00./w/aaa.ibd\0./w/b.ibd".to_vec();
        let records: Vec<_> = Records::new(&rename).collect::<Result<_, _>>().unwrap();
        let renamed = FileRecord::Rename(SpaceId(5), b"./w/aaa.ibd", b"./w/b.ibd");
        assert_eq!(records, [Record::File(renamed)]);
    }

    #[test]
    fn padding_is_ignored() {
        for padding in [&b"\xf1\0"[..], b"\xf2\0\0", b"\xf7\0\0\0\0\0\0\0"] {
            let records: Vec<_> = Records::new(padding).collect::<Result<_, _>>().unwrap();
            assert_eq!(records, [Record::File(FileRecord::Padding)]);
        }
    }

    #[test]
    fn what_the_grammar_forbids_is_refused() {
        let refused: [(&[u8], &str); 6] = [
            (b"\x62\x01\x01", "reserved type"),
            (b"\x13\x01\x01\x00", "INIT_PAGE with a body"),
            (b"\x02\x01\x01\xb2\x08\x00", "change behind FREE_PAGE"),
            (b"\x34\x01\x01\x07\xff", "offset below 8"),
            (b"\x47\x01\x01\x20\x05\x01\x02\x03", "pattern that does not divide the length"),
            (b"\x55\x01\x01\x0a\x02\x07", "move from before the page"),
        ];
        for (run, what) in refused {
            assert!(Bodies::new(run).any(|body| body.is_err()), "{what}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            for record in Records::new(&bytes) { let _ = record; }
            for body in Bodies::new(&bytes) { let _ = body; }
        }
    }
}

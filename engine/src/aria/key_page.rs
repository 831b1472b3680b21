//! Pages of keys.
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 7 | LSN of the last change |
//! | 7 | 6 | a transaction |
//! | 13 | 1 | number of the key; 255: the page is free |
//! | 14 | 1 | flags |
//! | 15 | 2 | bytes used, with the highest byte first |
//! | 17 | | keys; in a free page the offset of the next free one |
//!
//! In an encrypted table the version of a key (4) comes before the number, and all behind it later.
//!
//! A record about such a page is a small program: a list of operations on its bytes.

use innodb::bytes::{put, u16_at};

use super::bytes::Fields;
use super::leave::Malformed;
use super::pages::CHECKSUM;

/// Before the end of the header.
mod back {
    pub const NUMBER: usize = 4;
    pub const FLAGS: usize = 3;
    pub const USED: usize = 2;
}
const FREE: u8 = 255;

/// Operations, with what follows them.
mod operation {
    /// Where the next operations are: offset (2).
    pub const OFFSET: u8 = 1;
    /// Move what is behind: distance (2, signed).
    pub const SHIFT: u8 = 2;
    /// Overwrite: length (2), bytes.
    pub const CHANGE: u8 = 3;
    /// Insert at the start: length (2), bytes to overwrite (2), bytes.
    pub const ADD_PREFIX: u8 = 4;
    /// Remove at the start: length (2).
    pub const DELETE_PREFIX: u8 = 5;
    /// Append: length (2), bytes.
    pub const ADD_SUFFIX: u8 = 6;
    /// Remove at the end: length (2).
    pub const DELETE_SUFFIX: u8 = 7;
    /// A checksum for debugging, up to the end of the record.
    pub const CHECK: u8 = 8;
    /// Copies within the page: length of each (2), length of the list (2), pairs of to and from.
    pub const MULTI_COPY: u8 = 9;
    /// Flags (1).
    pub const SET_FLAGS: u8 = 10;
    /// Take out ids of old transactions (6).
    pub const COMPACT: u8 = 11;
    /// The page is full now.
    pub const MAX_LENGTH: u8 = 12;
    /// For debugging (1).
    pub const DEBUG: u8 = 13;
    /// For debugging (4).
    pub const DEBUG_LENGTHS: u8 = 14;
}

/// Why operations were not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The page or the record contradicts itself.
    Malformed(Malformed),
    /// Keys have ids of transactions, which are not supported.
    Transactions,
}

impl From<Malformed> for Refusal {
    fn from(cause: Malformed) -> Self {
        Self::Malformed(cause)
    }
}

const OUTSIDE: Malformed = Malformed("an operation leads out of its page");
const SHORT: Malformed = Malformed("an operation is cut short");

/// Makes a page of keys from the bytes behind its LSN.
pub fn make(page: &mut [u8], content: &[u8]) -> Result<(), Malformed> {
    let end = page.len().saturating_sub(CHECKSUM);
    if content.len() + 7 > end {
        return Err(OUTSIDE);
    }
    page.fill(0);
    put(page, 7, content).ok_or(OUTSIDE)
}

/// Makes a page free, with so many bytes of a header; `next` is the offset of the next free one.
pub fn free(page: &mut [u8], next: u64, header: usize) -> Result<(), Malformed> {
    page.get_mut(7..header).ok_or(OUTSIDE)?.fill(0);
    let used = (header + 8) as u16;
    for (at, bytes) in [
        (header - back::NUMBER, &[FREE][..]),
        (header - back::USED, &used.to_be_bytes()),
        (header, &next.to_be_bytes()),
    ] {
        put(page, at, bytes).ok_or(OUTSIDE)?;
    }
    Ok(())
}

/// Carries out the operations of a record on a page with so many bytes of a header.
pub fn apply(page: &mut [u8], operations: &[u8], header: usize) -> Result<(), Refusal> {
    let max = page.len().saturating_sub(CHECKSUM);
    let before = u16_at(page, header - back::USED).map(usize::from).ok_or(OUTSIDE)?;
    if before < header || before > max {
        return Err(Malformed("a page of keys has a wrong length").into());
    }
    let mut keys = Keys { page, header, max, length: before, at: 0 };
    let mut fields = Fields::new(operations);
    while let Some(operation) = fields.u8() {
        if keys.step(operation, &mut fields)? == Step::Done {
            break;
        }
    }
    let length = keys.length;
    put(page, header - back::USED, &(length as u16).to_be_bytes()).ok_or(OUTSIDE)?;
    if let Some(rest) = page.get_mut(length..before) {
        rest.fill(0);
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Step {
    More,
    Done,
}

struct Keys<'a> {
    page: &'a mut [u8],
    header: usize,
    max: usize,
    length: usize,
    at: usize,
}

impl Keys<'_> {
    fn step(&mut self, operation: u8, fields: &mut Fields<'_>) -> Result<Step, Refusal> {
        let mut number = || fields.u16().map(usize::from).ok_or(SHORT);
        match operation {
            operation::OFFSET => {
                self.at = number()?;
                if self.at < self.header || self.at > self.length {
                    return Err(OUTSIDE.into());
                }
            }
            operation::SHIFT => {
                let distance = number()? as u16 as i16;
                self.shift(distance.into())?;
            }
            operation::CHANGE => {
                let length = number()?;
                let bytes = fields.bytes(length).ok_or(SHORT)?;
                if self.at == 0 || self.at + length > self.length {
                    return Err(OUTSIDE.into());
                }
                put(self.page, self.at, bytes).ok_or(OUTSIDE)?;
                self.at += length;
            }
            operation::ADD_PREFIX => {
                let (insert, change) = (number()?, number()?);
                let bytes = fields.bytes(change).ok_or(SHORT)?;
                self.at = self.header;
                self.shift(insert as isize)?;
                if self.header + change > self.length {
                    return Err(OUTSIDE.into());
                }
                put(self.page, self.header, bytes).ok_or(OUTSIDE)?;
            }
            operation::DELETE_PREFIX => {
                let length = number()?;
                self.at = self.header;
                self.shift(-(length as isize))?;
            }
            operation::ADD_SUFFIX => {
                let length = number()?;
                let bytes = fields.bytes(length).ok_or(SHORT)?;
                if self.length + length > self.max {
                    return Err(OUTSIDE.into());
                }
                put(self.page, self.length, bytes).ok_or(OUTSIDE)?;
                self.length += length;
            }
            operation::DELETE_SUFFIX => {
                let length = number()?;
                let left = self.length.checked_sub(length);
                self.length = left.filter(|left| *left >= self.header).ok_or(OUTSIDE)?;
            }
            operation::CHECK => return Ok(Step::Done),
            operation::MULTI_COPY => {
                let (length, list) = (number()?, number()?);
                let mut list = Fields::new(fields.bytes(list).ok_or(SHORT)?);
                while let Some(to) = list.u16().map(usize::from) {
                    let from = list.u16().map(usize::from).ok_or(SHORT)?;
                    if to.max(from) + length > self.page.len() {
                        return Err(OUTSIDE.into());
                    }
                    self.page.copy_within(from..from + length, to);
                }
            }
            operation::SET_FLAGS => {
                let flags = fields.u8().ok_or(SHORT)?;
                put(self.page, self.header - back::FLAGS, &[flags]).ok_or(OUTSIDE)?;
            }
            operation::COMPACT => return Err(Refusal::Transactions),
            operation::MAX_LENGTH => self.length = self.max,
            operation::DEBUG => {
                fields.u8().ok_or(SHORT)?;
            }
            operation::DEBUG_LENGTHS => {
                fields.u32().ok_or(SHORT)?;
            }
            _ => return Err(Malformed("an operation is unknown").into()),
        }
        Ok(Step::More)
    }

    /// Moves what is behind the current place by `distance`, and the end of the page with it.
    fn shift(&mut self, distance: isize) -> Result<(), Malformed> {
        let length = self.length.checked_add_signed(distance).ok_or(OUTSIDE)?;
        if self.at < self.header || length > self.max || length < self.at {
            return Err(OUTSIDE);
        }
        let (from, to) = match distance < 0 {
            true => (self.at + distance.unsigned_abs(), self.at),
            false => (self.at, self.at + distance.unsigned_abs()),
        };
        if from > self.length {
            return Err(OUTSIDE);
        }
        self.page.copy_within(from..self.length, to);
        self.length = length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const HEADER: usize = 17;
    const NUMBER: usize = 13;
    const FLAGS: usize = 14;
    const USED: usize = 15;

    /// A page with these bytes as keys.
    fn page(keys: &[u8]) -> Vec<u8> {
        let mut page = vec![0; 1024];
        page[USED..USED + 2].copy_from_slice(&(17 + keys.len() as u16).to_be_bytes());
        page[HEADER..HEADER + keys.len()].copy_from_slice(keys);
        page
    }

    #[test]
    fn every_operation_has_its_effect() {
        let cases: [(&[u8], &[u8]); 9] = [
            (&[1, 20, 0, 2, 2, 0], b"abcdedef"),
            (&[1, 20, 0, 2, 0xfe, 0xff], b"abcf"),
            (&[1, 18, 0, 3, 2, 0, b'X', b'Y', 3, 1, 0, b'Z'], b"aXYZef"),
            (&[4, 2, 0, 3, 0, b'1', b'2', b'3'], b"123bcdef"),
            (&[5, 2, 0], b"cdef"),
            (&[6, 2, 0, b'g', b'h'], b"abcdefgh"),
            (&[7, 4, 0], b"ab"),
            (&[9, 2, 0, 4, 0, 17, 0, 21, 0], b"efcdef"),
            (&[10, 7, 13, 1, 14, 1, 0, 2, 0, 8, 9, 9, 9], b"abcdef"),
        ];
        for (operations, expected) in cases {
            let mut changed = page(b"abcdef");
            apply(&mut changed, operations, HEADER).unwrap();
            let mut expected = page(expected);
            expected[FLAGS] = changed[FLAGS];
            // What is cut off is cleared, what is moved away from is not.
            assert_eq!(changed, expected, "{operations:?}");
        }
        let mut flags = page(b"");
        apply(&mut flags, &[10, 7], HEADER).unwrap();
        assert_eq!(flags[FLAGS], 7);
        assert_eq!(apply(&mut flags, &[11, 0, 0, 0, 0, 0, 0], HEADER), Err(Refusal::Transactions));
        for wrong in [&[99][..], &[1], &[1, 0, 0], &[7, 1, 0], &[6, 1, 0], &[2, 1, 0]] {
            assert!(
                matches!(apply(&mut page(b""), wrong, HEADER), Err(Refusal::Malformed(_))),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn made_and_freed() {
        let mut page = vec![7; 1024];
        make(&mut page, &[1; 20]).unwrap();
        assert_eq!(page[..28], [&[0; 7][..], &[1; 20], &[0]].concat());
        free(&mut page, 0x2000, HEADER).unwrap();
        assert_eq!(page[NUMBER], 255);
        assert_eq!(page[15..25], [0, 25, 0, 0, 0, 0, 0, 0, 0x20, 0]);
        assert!(make(&mut page, &[1; 1014]).is_err());
    }

    proptest! {
        #[test]
        fn nothing_leaves_the_page(
            keys in prop::collection::vec(any::<u8>(), 0..900),
            operations in prop::collection::vec(0_u8..20, 0..80),
        ) {
            let mut page = page(&keys);
            let _ = apply(&mut page, &operations, HEADER);
            prop_assert_eq!(page.len(), 1024);
        }
    }
}

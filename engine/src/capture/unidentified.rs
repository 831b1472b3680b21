//! Pages of files whose page 0 does not say what they are.
//!
//! A young table has an empty page 0 until the server writes it for the first time, and of a
//! system tablespace only the first file has one. Their pages must at least be pages of some
//! format that a server with this page size writes; which one, redo tells later.

use innodb::page::{self, Damage, Verdict, verify};
use innodb::space::SpaceFlags;
use innodb::{Lsn, PageNo, PageSize, SpaceId};

/// What is known of a piece as long as a page of the server.
pub struct Judgement {
    /// That of the last page in it, or of the first one that is damaged.
    pub verdict: Verdict,
    /// LSN of the newest page in it.
    pub newest: Lsn,
}

/// Judges `piece`, number `number` of its tablespace. `space` is the id where it is known without
/// page 0, as that of the system tablespace is, which is never ROW_FORMAT=COMPRESSED.
pub fn judge(piece: &[u8], number: PageNo, space: Option<SpaceId>) -> Judgement {
    let size = u32::try_from(piece.len()).ok().and_then(PageSize::new);
    let length = Damage::Length { expected: PageSize::DEFAULT.bytes(), found: piece.len() };
    let mut judgement = Judgement { verdict: Verdict::Damaged(length), newest: Lsn(0) };
    let Some(size) = size else { return judgement };
    for flags in formats(size).filter(|flags| space.is_none() || flags.zip_size().is_none()) {
        let found = judge_as(piece, number, space, &flags);
        if found.verdict.is_intact() {
            return found;
        }
        // What is wrong with it as the format that most files have says most.
        if judgement.verdict == Verdict::Damaged(length) {
            judgement = found;
        }
    }
    judgement
}

fn judge_as(piece: &[u8], number: PageNo, space: Option<SpaceId>, flags: &SpaceFlags) -> Judgement {
    let page_size = flags.physical_size().bytes();
    let ratio = (piece.len() / page_size) as u32;
    let mut judgement = Judgement { verdict: Verdict::AllZero, newest: Lsn(0) };
    for (page, index) in piece.chunks_exact(page_size).zip(0..) {
        let page_no = PageNo(number.0.saturating_mul(ratio).saturating_add(index));
        judgement.verdict = verify(page, page_no, space, flags);
        judgement.newest = judgement.newest.max(page::lsn(page).unwrap_or_default());
        if !judgement.verdict.is_intact() {
            break;
        }
    }
    judgement
}

/// The formats that a tablespace can have on a server with this page size: `full_crc32`, legacy,
/// and ROW_FORMAT=COMPRESSED in all its sizes. Page compression does not make another format: it
/// shows in each page.
fn formats(size: PageSize) -> impl Iterator<Item = SpaceFlags> {
    /// DYNAMIC or COMPRESSED, in two bits.
    const BARRACUDA: u32 = 0x21;
    let code = size.bytes().trailing_zeros().saturating_sub(9);
    let legacy = if size == PageSize::DEFAULT { 0 } else { code << 6 };
    let zip = (1..=5).map(move |zip| legacy | BARRACUDA | zip << 1);
    // Larger pages than 16 KiB cannot be compressed, though the flags could say so.
    let zip = zip.filter(move |_| size <= PageSize::DEFAULT);
    [0x10 | code, legacy].into_iter().chain(zip).filter_map(|word| SpaceFlags::parse(word).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use innodb::PageId;
    use innodb::page::stamp;

    fn piece(size: usize, flags: &SpaceFlags, number: u32) -> Vec<u8> {
        let page_size = flags.physical_size().bytes();
        let ratio = (size / page_size) as u32;
        (0..ratio)
            .flat_map(|index| {
                let id = PageId { space: SpaceId(9), page: PageNo(number * ratio + index) };
                let mut page = vec![0; page_size];
                page[4..8].copy_from_slice(&id.page.0.to_be_bytes());
                page[34..38].copy_from_slice(&id.space.0.to_be_bytes());
                page[100..200].fill(7);
                stamp(&mut page, id, Lsn(1000 + u64::from(index)), flags).unwrap();
                page
            })
            .collect()
    }

    #[test]
    fn pages_of_every_format_are_known_and_damage_is_seen() {
        for bytes in [4096, 8192, 16384, 32768, 65536] {
            let size = PageSize::new(bytes).unwrap();
            let all: Vec<SpaceFlags> = formats(size).collect();
            let zips = if bytes > 16384 { 0 } else { bytes.trailing_zeros() as usize - 9 };
            assert_eq!(all.len(), 2 + zips, "{bytes}");
            for flags in all {
                let bytes = size.bytes();
                let mut piece = piece(bytes, &flags, 3);
                let found = judge(&piece, PageNo(3), None);
                assert_eq!(found.verdict, Verdict::Ok, "{bytes} {flags:?}");
                let pages = bytes / flags.physical_size().bytes();
                assert_eq!(found.newest, Lsn(1000 + pages as u64 - 1));
                let system = judge(&piece, PageNo(3), Some(SpaceId(9))).verdict.is_intact();
                // A single compressed page as large as a plain one could still not be one.
                assert_eq!(system, flags.zip_size().is_none(), "{bytes} {flags:?}");
                piece[bytes - 1000] ^= 1;
                assert!(!judge(&piece, PageNo(3), None).verdict.is_intact(), "{bytes} {flags:?}");
                assert!(!judge(&piece[1..], PageNo(3), None).verdict.is_intact());
            }
            let zero = judge(&vec![0; size.bytes()], PageNo(3), None);
            assert_eq!((zero.verdict, zero.newest), (Verdict::AllZero, Lsn(0)));
        }
    }
}

//! Checks of tablespaces that need no state: is the file as long as it says, is the page inside
//! whole, is it one that a delta must not have.

use innodb::page::{Damage, PageCompressor, PageType, page_type};
use innodb::space::FILE_BLOCK;
use innodb::space::header::SpaceHeader;
use innodb::{PageId, PageNo, SpaceId};

use super::inventory::ServerFile;
use super::job::{Job, Role};
use crate::keys::SpaceKeys;
use crate::{Error, ErrorKind, Result};

/// The server makes a file longer before it says so on page 0, and page 0 was read before the
/// length: a file that is shorter than its page 0 says has lost pages. Files grow in whole blocks,
/// so that smaller pages at the end may not be there before they are first written.
pub fn refuse_cut_short(job: &Job, header: &SpaceHeader, length: u64) -> Result<()> {
    let page_size = header.flags.physical_size().bytes() as u64;
    if length >= u64::from(header.size) * page_size / FILE_BLOCK * FILE_BLOCK {
        return Ok(());
    }
    let message = format!(
        "{} is cut short: page 0 says it has {} pages, the file has {}",
        job.file.path,
        header.size,
        length / page_size
    );
    Err(Error::new(ErrorKind::Damage, message).advise(damage_advice(&job.file)))
}

/// The id of a tablespace that needs no page 0 to tell it.
pub fn known_id(role: Role) -> Option<SpaceId> {
    matches!(role, Role::System(_)).then_some(SpaceId::SYSTEM)
}

/// What is wrong inside of an encrypted page. A page whose key is gone is not looked into: it may be
/// free for long.
pub fn look_inside(
    page: &[u8],
    id: PageId,
    header: &SpaceHeader,
    keys: &SpaceKeys,
    key_version: u32,
    compressor: Option<&mut PageCompressor>,
) -> Option<Damage> {
    let key = keys.of_version(key_version).ok()?;
    let mut plain = page.to_vec();
    let decrypted = innodb::crypt::page::decrypt(&mut plain, id, &header.flags, &key).is_ok();
    let whole = decrypted
        && compressor.is_none_or(|compressor| compressor.check(&plain, id, &header.flags).is_ok());
    (!whole).then_some(Damage::Inside { key_version })
}

/// What to do about damage at the server.
pub fn damage_advice(file: &ServerFile) -> String {
    format!(
        "check the storage; try CHECK TABLE for {}, or restore it from an older backup; to back up all the same, \
         name corrupt pages instead of failing (--continue-on-corrupt-pages)",
        file.path
    )
}

/// The page of the system tablespace that lists the undo tablespaces.
const TRX_SYS_PAGE: u32 = 5;

/// That page changes only when undo tablespaces become more or fewer. The stock tool cannot apply
/// that, so nobody shall get such a delta.
pub fn refuse_other_undo(role: Role, in_file: u32, page: &[u8]) -> Result<()> {
    let is_list = role == Role::System(PageNo(0))
        && in_file == TRX_SYS_PAGE
        && page_type(page) == Some(PageType::TRX_SYS);
    if !is_list {
        return Ok(());
    }
    let message = "--incremental backup is impossible if the server had been restarted with \
                   different innodb_undo_tablespaces.";
    Err(Error::new(ErrorKind::Failed, message).advise("take a full backup"))
}

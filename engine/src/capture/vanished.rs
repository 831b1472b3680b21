//! Tablespaces that the server has open although their file is gone.
//!
//! Such a server runs on without complaint, and its datadir shows nothing: only its own list of
//! tablespaces tells that a table would be missing from the backup. Files come and go while DDL
//! is possible, so what is missing then is only suspected, and looked at again when DDL is
//! blocked. The list is long and asking for it takes time; with nothing suspected, nobody waits
//! for it under the lock. Where that list is switched off, this cannot be told.

use crate::server::failure::code;
use crate::server::profile::{Generation, ServerProfile};
use crate::server::{Session, Wait};
use crate::table_filter::TableFilter;
use crate::{Error, ErrorKind, Result};

/// A tablespace of the server: its id, and its file as the server names it.
type Listed = (u64, String);

/// What 10.5 says of the size of a file that is not there.
const SIZE_NOT_KNOWN: u32 = u32::MAX;

/// Tablespaces whose file is not there now.
pub fn suspects(
    session: &mut Session,
    profile: &ServerProfile,
    wanted: &TableFilter,
) -> Result<Vec<u64>> {
    // Read-only servers crash on the question, because they have no temporary tablespace.
    let read_only = profile.variables.is_on("innodb_read_only")
        || profile.variables.number("innodb_force_recovery").is_ok_and(|level| level >= 4);
    if read_only || !profile.has_innodb {
        return Ok(Vec::new());
    }
    Ok(missing(session, profile, wanted, "")?.into_iter().map(|(space, _)| space).collect())
}

/// An error that names the suspects whose files are still missing. DDL must be blocked.
pub fn confirm(
    session: &mut Session,
    profile: &ServerProfile,
    wanted: &TableFilter,
    suspects: &[u64],
) -> Result<()> {
    if suspects.is_empty() {
        return Ok(());
    }
    let ids = suspects.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let missing = missing(session, profile, wanted, &format!(" AND SPACE IN ({ids})"))?;
    if missing.is_empty() {
        return Ok(());
    }
    let files: Vec<&str> = missing.iter().map(|(_, file)| file.as_str()).collect();
    let message =
        format!("the server uses tablespaces whose files have vanished: {}", files.join(", "));
    Err(Error::new(ErrorKind::Damage, message).advise(
        "save the rows while the server still has the files open (mariadb-dump), then drop the \
         tables",
    ))
}

fn missing(
    session: &mut Session,
    profile: &ServerProfile,
    wanted: &TableFilter,
    and: &str,
) -> Result<Vec<Listed>> {
    let statement = match profile.version.generation() {
        // These do not tell the file, but the size that they could not find out.
        Generation::V10_5 => format!(
            "SELECT SPACE, CONCAT(NAME, '.ibd') AS FILENAME \
             FROM information_schema.INNODB_SYS_TABLESPACES \
             WHERE NAME LIKE '%/%' AND FS_BLOCK_SIZE = 0 AND FILE_SIZE = {SIZE_NOT_KNOWN}{and}"
        ),
        _ => format!(
            "SELECT SPACE, FILENAME FROM information_schema.INNODB_SYS_TABLESPACES \
             WHERE FILENAME LIKE '%.ibd'{and}"
        ),
    };
    let wait = Wait::short("listing the tablespaces");
    let rows = match session.try_query(&statement, wait) {
        Ok(rows) => rows,
        // The list is a plugin, which may be switched off.
        Err(failure) if failure.code() == Some(code::UNKNOWN_TABLE) => return Ok(Vec::new()),
        Err(failure) => return Err(failure.into_error(&statement, wait)),
    };
    let listed = rows
        .iter()
        .filter_map(|row| Some((row.number("SPACE")?, row.text("FILENAME")?.into_owned())));
    // Files of a running ALTER TABLE are not part of a backup.
    Ok(listed
        .filter(|(_, file)| !file.contains("/#sql"))
        .filter(|(_, file)| is_wanted(file, wanted))
        .filter(|(_, file)| !profile.datadir.join(file).exists())
        .collect())
}

/// Whether a file, as the server names it, is one that a partial backup has.
fn is_wanted(file: &str, wanted: &TableFilter) -> bool {
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(slash, _)| slash + 1);
    wanted.keeps(file.get(start..).unwrap_or(file).as_bytes())
}

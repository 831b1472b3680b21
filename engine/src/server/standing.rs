//! InnoDB as it lies in the data directory of a server that has it switched off.
//!
//! Such a server does not say where the files are. Where none are in the data directory under their
//! usual names, it is refused.

use std::fs;
use std::path::Path;

use innodb::PageSize;
use innodb::space::SpaceHeader;

use super::rows::Variables;
use crate::prepare::inventory::is_undo;
use crate::{Error, ErrorKind, Result};

/// The usual first file of the system tablespace, and the file of the log.
const SYSTEM: &str = "ibdata1";
const LOG: &str = "ib_logfile0";

/// The variables that a server with InnoDB in `datadir` would have, besides those that it has.
pub fn variables(datadir: &Path) -> Result<Variables> {
    let missing = |error| {
        let message =
            "InnoDB is switched off on this server, which does not say where its files are";
        Error::new(ErrorKind::Server, message)
            .caused_by(error)
            .advise("start the server with InnoDB for the time of the backup")
    };
    let log_size = fs::metadata(datadir.join(LOG))
        .map_err(|e| missing(Error::io("find", datadir.join(LOG), e)))?
        .len();
    let system = datadir.join(SYSTEM);
    let mut start = vec![0; PageSize::MAX.bytes()];
    let read = fs::File::open(&system)
        .and_then(|file| crate::io::read_ahead::read_at(&file, &mut start, 0))
        .map_err(|e| missing(Error::io("read", &system, e)))?;
    let header = SpaceHeader::parse(start.get(..read).unwrap_or_default()).map_err(|error| {
        let message = format!("the first page of {} is damaged", system.display());
        Error::new(ErrorKind::Damage, message).caused_by(error)
    })?;
    let names = fs::read_dir(datadir).map_err(|e| Error::io("list", datadir, e))?;
    let undo = names
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| name.to_str().is_some_and(is_undo))
        .count();
    let values = [
        ("innodb_page_size", header.flags.logical_size().to_string()),
        ("innodb_data_file_path", format!("{SYSTEM}:12M:autoextend")),
        ("innodb_undo_directory", "./".to_owned()),
        ("innodb_undo_tablespaces", undo.to_string()),
        ("innodb_log_file_size", log_size.to_string()),
        ("innodb_compression_level", "6".to_owned()),
        ("innodb_encrypt_tables", "OFF".to_owned()),
    ];
    Ok(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

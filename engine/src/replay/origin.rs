//! Of which backup the data of a server is that has logged nothing yet.
//!
//! What replays begin with is the place of a backup in a log, and a server that was just restored cannot
//! tell it: its `gtid_binlog_state` is empty, whatever backup it was restored from. A restore leaves the
//! backup's info file in the data directory, and that can. The server is asked for it, which needs FILE,
//! and if it does not show it, its directory is looked into, where the server is on this host.

use std::path::Path;

use crate::metadata::{BackupInfo, BinlogInfo, Naming};
use crate::server::connect::Endpoint;
use crate::server::{ConnectOptions, Session, Wait};
use crate::{Error, ErrorKind, Reporter, Result};

use super::plan::Anchor;

/// What is known of a data directory.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    /// The backup that it is of was at this place.
    Backup(String),
    /// It was not restored from any.
    None,
    /// Nobody shows it.
    Hidden,
}

/// Refuses a server whose data is of another backup than the one that `anchor` is the place of, or of none.
pub(super) fn check(
    session: &mut Session,
    connect: &ConnectOptions,
    anchor: &Anchor,
    reporter: &dyn Reporter,
) -> Result<()> {
    let Some(place) = &anchor.position else { return Ok(()) };
    let wait = Wait::short("asking for the data directory");
    let datadir = session.value("SELECT @@GLOBAL.datadir", wait)?.unwrap_or_default();
    let wanted = place.to_string();
    let message = match origin(session, connect, Path::new(&datadir))? {
        Origin::Backup(there) if there == wanted => return Ok(()),
        Origin::Backup(there) => format!(
            "the server's data in {datadir} was restored from the backup at {there}, and what is to be \
             replayed onto it begins at {wanted}"
        ),
        Origin::None => format!(
            "the server has logged nothing, and its data in {datadir} was not restored from a backup, as \
             far as can be seen: there is no {} in it",
            Naming::Xtrabackup.info()
        ),
        Origin::Hidden => {
            reporter.warn(format!(
                "which backup the server was restored from cannot be seen in {datadir}: be sure that it \
                 was the one at {wanted}"
            ));
            return Ok(());
        }
    };
    Err(Error::new(ErrorKind::Usage, message).advise(format!(
        "name the backup that it was restored from with --from-backup; if it was the one at {wanted} all \
         the same, say so: SET GLOBAL gtid_binlog_state='{}'",
        anchor.gtid
    )))
}

fn origin(session: &mut Session, connect: &ConnectOptions, datadir: &Path) -> Result<Origin> {
    let wait = Wait::short("asking for the backup's info file");
    for naming in Naming::PREFERRED_FIRST {
        let sql = format!("SELECT LOAD_FILE(CONCAT(@@GLOBAL.datadir, '{}'))", naming.info());
        // An account without FILE is refused, and a file that is not there is NULL.
        if let Ok(Some(text)) = session.value(&sql, wait) {
            return Ok(of_info(&BackupInfo::parse(&text)));
        }
    }
    // A directory of that name on this host is the server's only if it runs here, and in no container.
    let hostname = session.value("SELECT @@hostname", wait)?;
    let is_here = hostname.as_deref() == rustix::system::uname().nodename().to_str().ok();
    if !is_here || !matches!(connect.endpoint(), Endpoint::Socket(_)) {
        return Ok(Origin::Hidden);
    }
    let is_data = datadir.is_absolute() && datadir.join("ibdata1").exists();
    match BackupInfo::read(datadir) {
        Ok(Some(info)) => Ok(of_info(&info)),
        Ok(None) if is_data => Ok(Origin::None),
        _ => Ok(Origin::Hidden),
    }
}

fn of_info(info: &BackupInfo) -> Origin {
    let place = BinlogInfo::place_of_sentence(&info.binlog_pos);
    place.map_or(Origin::Hidden, |place| Origin::Backup(place.to_string()))
}

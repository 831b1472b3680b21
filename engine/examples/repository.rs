//! A backup into a repository and back, with progress and interruption: what an appliance embeds.
//!
//! `cargo run -p haulout-engine --example repository -- SOCKET REPOSITORY DATADIR`

use std::sync::Arc;

use engine::capture::{BackupOptions, Target};
use engine::keys::KeySettings;
use engine::repo::Repository;
use engine::repo::backup::{MEMORY, StoreBackupOptions};
use engine::repo::catalog::Selection;
use engine::repo::compression::Compression;
use engine::repo::parent::Basis;
use engine::repo::restore::StoredRestoreOptions;
use engine::restore::RestoreOptions;
use engine::server::ConnectOptions;
use engine::store::StoreOptions;
use engine::{Cancel, Event, Reporter};

struct Progress;

impl Reporter for Progress {
    fn event(&self, event: &Event) {
        if let Event::Progress { phase, done, total: Some(total) } = event {
            println!("{phase:?}: {}%", done * 100 / total.max(&1));
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().ok_or("SOCKET REPOSITORY DATADIR");
    let (socket, place, datadir) = (argument()?, argument()?, argument()?);
    // Any thread may call `cancel.cancel()`: everything then ends in order.
    let (cancel, progress) = (Cancel::new(), Arc::new(Progress));

    let options = StoreOptions { create_folder: true, ..StoreOptions::default() };
    let store = engine::store::open(&place.parse()?, &options, progress.clone())?;
    let repository = Repository::create(store, None, &cancel)?;
    let connect = ConnectOptions { socket: Some(socket.into()), ..ConnectOptions::default() };
    let backup = BackupOptions::new(connect, Target::Stream(Box::new(std::io::sink())));
    let compression = Compression::default();
    let (memory, basis) = (MEMORY, Basis::Full);
    let storing =
        StoreBackupOptions { compression, threads: 2, memory, accept_new_server: false, basis };
    let stored = repository.backup(backup, &storing, &cancel, &*progress)?;
    println!("{} has {} bytes", stored.name, stored.stored_bytes);

    let restore = StoredRestoreOptions {
        selection: Selection::Latest,
        restore: RestoreOptions::new("", &datadir),
        over: false,
        memory: MEMORY,
        keys: KeySettings::default(),
    };
    let restored = repository.restore(restore, &cancel, &*progress)?;
    println!("{datadir} equals the server at LSN {}", restored.end_lsn);
    Ok(())
}

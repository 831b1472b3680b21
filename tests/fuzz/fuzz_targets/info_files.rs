//! Arbitrary text as each of the files that describe a backup, and as an option file.
//!
//! What was understood must be understood the same way after it was written again.

#![no_main]

use engine::metadata::{BackupInfo, BackupMyCnf, BinlogInfo, Checkpoints, DataFilePath};
use engine::server::option_file::{OptionFiles, parse_size};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let text = text.as_ref();

    if let Ok(checkpoints) = Checkpoints::parse(text) {
        assert_eq!(Checkpoints::parse(&checkpoints.to_text()), Ok(checkpoints));
    }
    if let Ok(binlog) = BinlogInfo::parse(text) {
        assert_eq!(BinlogInfo::parse(&binlog.to_text()), Ok(binlog));
    }
    if let Ok(settings) = BackupMyCnf::parse(text) {
        let _ = BackupMyCnf::parse(&settings.to_text());
    }
    let _ = BackupInfo::parse(text).to_text();
    if let Ok(path) = DataFilePath::parse(text) {
        assert!(!path.files().is_empty());
        let _ = path.stored_text();
    }
    if let Ok(files) = OptionFiles::from_text(text) {
        let _ = files.options(&["client", "mysqld", "mariadb-backup"]);
    }
    let _ = parse_size(text);
});

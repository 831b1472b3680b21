#![allow(clippy::unwrap_used)]
use super::*;
use crate::ErrorKind;
use crate::report::Silent;
use std::collections::BTreeMap;

const CHECKPOINTS: &str = "backup_type = log-applied\nfrom_lsn = 0\nto_lsn = 50000\n\
                           last_lsn = 50000\nrecover_binlog_info = 0\n";

const BACKUP: &[(&str, &str)] = &[
    ("xtrabackup_checkpoints", CHECKPOINTS),
    ("xtrabackup_info", "info"),
    ("xtrabackup_binlog_info", "binlog"),
    ("backup-my.cnf", "[mysqld]\ninnodb_data_file_path=ibd_a:12M;ibd_b:12M:autoextend\n"),
    ("ib_logfile0", "log"),
    ("ibd_a", "a"),
    ("ibd_b", "b"),
    ("undo001", "undo"),
    ("aria_log_control", "control"),
    ("aria_log.00000001", "aria"),
    ("stray", "stray"),
    ("#rocksdb/CURRENT", "current"),
    ("#rocksdb/000012.log", "rocksdb log"),
    ("db/t.ibd", "t"),
    ("db/t.frm", "frm"),
    ("db/db.opt", "opt"),
];

struct Setting {
    dir: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let setting = Self { dir: tempfile::tempdir().unwrap() };
        for (name, content) in BACKUP {
            setting.write(&format!("backup/{name}"), content);
        }
        setting.write("backup/empty/x", "");
        fs::remove_file(setting.path("backup/empty/x")).unwrap();
        setting
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn options(&self) -> RestoreOptions {
        RestoreOptions::new(self.path("backup"), self.path("data"))
    }

    fn restore(&self, options: RestoreOptions) -> Result<RestoreSummary> {
        restore(options, &Cancel::new(), &Silent)
    }

    fn refused(&self, options: RestoreOptions) -> (ErrorKind, String) {
        let error = self.restore(options).unwrap_err();
        (error.kind(), error.to_string())
    }

    /// All files below `name`.
    fn files(&self, name: &str) -> BTreeMap<String, String> {
        let (mut files, mut folders) = (BTreeMap::new(), vec![self.path(name)]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(self.path(name)).unwrap().display().to_string();
                    files.insert(name, fs::read_to_string(path).unwrap());
                }
            }
        }
        files
    }
}

fn stays(name: &str) -> bool {
    ["xtrabackup_checkpoints", "xtrabackup_binlog_info", "backup-my.cnf"].contains(&name)
}

#[test]
fn everything_of_the_server_is_placed_and_nothing_of_the_backup() {
    for mode in [Mode::Copy, Mode::Move] {
        let setting = Setting::new();
        let summary = setting.restore(RestoreOptions { mode, ..setting.options() }).unwrap();
        let expected: BTreeMap<String, String> = BACKUP
            .iter()
            .filter(|(name, _)| !stays(name))
            .map(|(name, content)| (name.to_string(), content.to_string()))
            .collect();
        assert_eq!(setting.files("data"), expected);
        assert_eq!(summary.files, expected.len() as u64);
        assert!(setting.path("data/empty").is_dir());
        let left = setting.files("backup");
        let expected = BACKUP.iter().filter(|(name, _)| mode == Mode::Copy || stays(name)).count();
        assert_eq!(left.len(), expected);
    }
}

#[test]
fn relative_directories_count_from_the_data_directory_and_absolute_ones_do_not() {
    let setting = Setting::new();
    setting
        .restore(RestoreOptions {
            innodb_undo_directory: Some("undo".into()),
            aria_log_dir_path: Some(setting.path("aria")),
            innodb_log_group_home_dir: Some("log/".into()),
            innodb_data_home_dir: Some("home".into()),
            rocksdb_datadir: Some(setting.path("rocks")),
            rocksdb_wal_dir: Some("wal".into()),
            innodb_data_file_path: Some(format!(
                "sub/ibd_a:12M;{}:12M:autoextend",
                setting.path("big/ibd_b").display()
            )),
            ..setting.options()
        })
        .unwrap();
    for name in [
        "data/undo/undo001",
        "aria/aria_log_control",
        "aria/aria_log.00000001",
        "data/log/ib_logfile0",
        "data/home/sub/ibd_a",
        "rocks/CURRENT",
        "data/wal/000012.log",
        "big/ibd_b",
    ] {
        assert!(setting.path(name).is_file(), "{name}");
    }
    assert!(!setting.path("data/ib_logfile0").exists());
    assert!(!setting.path("data/#rocksdb").exists());
}

#[test]
fn a_tablespace_with_a_link_goes_where_the_link_says() {
    let setting = Setting::new();
    let elsewhere = setting.path("elsewhere/db/t.ibd");
    setting.write("backup/db/t.isl", &elsewhere.display().to_string());
    setting.restore(setting.options()).unwrap();
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "t");
    assert!(setting.path("data/db/t.isl").exists() && !setting.path("data/db/t.ibd").exists());

    for link in ["relative/db/t.ibd", "/x/db/../t.ibd", "/etc/passwd", "/x/db/u.ibd", ""] {
        let setting = Setting::new();
        setting.write("backup/db/t.isl", link);
        assert_eq!(setting.refused(setting.options()).0, ErrorKind::Damage, "{link}");
        assert!(!setting.path("data").exists());
    }
}

#[test]
fn a_backup_that_is_not_prepared_is_refused() {
    let setting = Setting::new();
    let raw = CHECKPOINTS.replace("log-applied", "full-backuped");
    setting.write("backup/xtrabackup_checkpoints", &raw);
    let (kind, text) = setting.refused(setting.options());
    assert!(kind == ErrorKind::Damage && text.contains("not prepared"), "{text}");

    setting.write("backup/xtrabackup_checkpoints", CHECKPOINTS);
    setting.write("backup/haulout-prepare.journal", "");
    let (kind, text) = setting.refused(setting.options());
    assert!(kind == ErrorKind::Damage && text.contains("interrupted"), "{text}");

    fs::remove_file(setting.path("backup/haulout-prepare.journal")).unwrap();
    fs::remove_file(setting.path("backup/xtrabackup_checkpoints")).unwrap();
    assert_eq!(setting.refused(setting.options()).0, ErrorKind::Damage);
    assert!(!setting.path("data").exists());
}

#[test]
fn missing_files_of_innodb_are_refused() {
    for name in ["ib_logfile0", "ibd_b"] {
        let setting = Setting::new();
        fs::remove_file(setting.path("backup").join(name)).unwrap();
        let (kind, text) = setting.refused(setting.options());
        assert!(kind == ErrorKind::Damage && text.contains(name), "{text}");
        assert!(!setting.path("data").exists());
    }
}

#[test]
fn a_data_directory_that_holds_something_is_refused_and_kept() {
    let setting = Setting::new();
    setting.write("data/mine", "mine");
    let (kind, text) = setting.refused(setting.options());
    assert!(kind == ErrorKind::Usage && text.contains("not empty"), "{text}");
    assert_eq!(setting.files("data").len(), 1);

    let force = || RestoreOptions { force_non_empty: true, ..setting.options() };
    setting.write("data/db/t.ibd", "mine");
    let (kind, text) = setting.refused(force());
    assert!(kind == ErrorKind::Usage && text.contains("db/t.ibd"), "{text}");
    assert_eq!(setting.files("data").len(), 2);

    fs::remove_file(setting.path("data/db/t.ibd")).unwrap();
    setting.restore(force()).unwrap();
    assert_eq!(setting.files("data")["mine"], "mine");
    assert_eq!(setting.files("data")["db/t.ibd"], "t");
}

#[test]
fn the_backup_itself_is_no_data_directory() {
    let setting = Setting::new();
    for datadir in ["backup", "backup/db", "."] {
        let options = RestoreOptions { datadir: setting.path(datadir), ..setting.options() };
        assert_eq!(setting.refused(options).0, ErrorKind::Usage, "{datadir}");
    }
}

#[test]
fn an_interrupted_restore_leaves_a_log_that_no_server_takes() {
    let setting = Setting::new();
    let cancel = Cancel::new();
    cancel.cancel();
    let error = restore(setting.options(), &cancel, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let marker = &setting.files("data")["ib_logfile0"];
    assert!(innodb::redo::LogHeader::parse(marker.as_bytes()).is_err());
    assert!(marker.contains("has not finished restoring"));
}

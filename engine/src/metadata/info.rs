//! `*_info`: who made the backup, when and how.

use std::path::Path;

use innodb::Lsn;
use jiff::civil::DateTime;

use super::{BinlogInfo, Naming, key_value, one_line, read_text};
use crate::Result;

/// How times are written: local time, to the second.
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupInfo {
    /// A UUID of the backup, from the server's `UUID()`.
    pub uuid: String,
    /// Name that the user gave; usually empty.
    pub name: String,
    /// Name under which the tool was started.
    pub tool_name: String,
    /// Its arguments, with secrets masked.
    pub tool_command: String,
    /// Version of the tool. Appears twice in the file, as the stock tool writes it.
    pub tool_version: String,
    /// `VERSION()` of the server.
    pub server_version: String,
    /// When the backup began, local time.
    pub start_time: Option<DateTime>,
    /// When it ended, local time.
    pub end_time: Option<DateTime>,
    /// Seconds of locking. The stock tool always writes 0.
    pub lock_time: u64,
    /// The binary log position as a sentence, see [`BinlogInfo::sentence`]; empty without one.
    pub binlog_pos: String,
    /// Base of an incremental backup; 0 for a full one.
    pub innodb_from_lsn: Lsn,
    /// Checkpoint at the end.
    pub innodb_to_lsn: Lsn,
    /// Whether tables were chosen.
    pub partial: bool,
    /// Whether this is an incremental backup.
    pub incremental: bool,
    /// Whether the backup was written as a stream.
    pub stream: bool,
    /// Whether files are compressed one by one.
    pub compressed: bool,
}

impl BackupInfo {
    /// The present moment in the words of the file.
    pub fn now() -> DateTime {
        jiff::Zoned::now().datetime()
    }

    /// Sets the sentence about the binary log position.
    #[must_use]
    pub fn with_binlog(mut self, binlog: Option<&BinlogInfo>) -> Self {
        self.binlog_pos = binlog.map(BinlogInfo::sentence).unwrap_or_default();
        self
    }

    /// The bytes of the file.
    pub fn to_text(&self) -> String {
        let time = |moment: Option<DateTime>| {
            moment.map(|moment| moment.strftime(TIME_FORMAT).to_string()).unwrap_or_default()
        };
        let yes_no = |flag: bool| if flag { "Y" } else { "N" }.to_owned();
        let lines = [
            ("uuid", one_line(&self.uuid)),
            ("name", one_line(&self.name)),
            ("tool_name", one_line(&self.tool_name)),
            ("tool_command", one_line(&self.tool_command)),
            ("tool_version", one_line(&self.tool_version)),
            ("ibbackup_version", one_line(&self.tool_version)),
            ("server_version", one_line(&self.server_version)),
            ("start_time", time(self.start_time)),
            ("end_time", time(self.end_time)),
            ("lock_time", self.lock_time.to_string()),
            ("binlog_pos", one_line(&self.binlog_pos)),
            ("innodb_from_lsn", self.innodb_from_lsn.to_string()),
            ("innodb_to_lsn", self.innodb_to_lsn.to_string()),
            ("partial", yes_no(self.partial)),
            ("incremental", yes_no(self.incremental)),
            ("format", if self.stream { "mbstream" } else { "file" }.to_owned()),
            ("compressed", if self.compressed { "compressed" } else { "N" }.to_owned()),
        ];
        lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    }

    /// Reads the content. Nothing is decided by this file, so whatever is missing or makes no
    /// sense is left empty, and unknown keys are passed over. `tar`, which older tools wrote for
    /// streams, is understood.
    pub fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (key, value) in text.lines().filter_map(key_value) {
            let text = || value.to_owned();
            let time = || DateTime::strptime(TIME_FORMAT, value).ok();
            let number = || value.parse().unwrap_or(0);
            match key {
                "uuid" => info.uuid = text(),
                "name" => info.name = text(),
                "tool_name" => info.tool_name = text(),
                "tool_command" => info.tool_command = text(),
                "tool_version" => info.tool_version = text(),
                "server_version" => info.server_version = text(),
                "start_time" => info.start_time = time(),
                "end_time" => info.end_time = time(),
                "lock_time" => info.lock_time = number(),
                "binlog_pos" => info.binlog_pos = text(),
                "innodb_from_lsn" => info.innodb_from_lsn = Lsn(number()),
                "innodb_to_lsn" => info.innodb_to_lsn = Lsn(number()),
                "partial" => info.partial = value == "Y",
                "incremental" => info.incremental = value == "Y",
                "format" => info.stream = !value.is_empty() && value != "file",
                "compressed" => info.compressed = value == "compressed",
                _ => {}
            }
        }
        info
    }

    /// Reads the file of a backup, under whichever name it has; `None` when there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        for naming in Naming::PREFERRED_FIRST {
            if let Some(text) = read_text(&dir.join(naming.info()))? {
                return Ok(Some(Self::parse(&text)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// As the stock tool of 10.11.19 wrote it.
    const STOCK: &str = "\
uuid = a72482ce-e557-11f1-82cb-02fc00000001
name = 
tool_name = mariadb-backup
tool_command = --no-defaults --backup --target-dir=bk -uroot -S s.sock
tool_version = 10.11.19-MariaDB
ibbackup_version = 10.11.19-MariaDB
server_version = 10.11.19-MariaDB-0+deb12u1-log
start_time = 2026-11-21 03:00:04
end_time = 2026-11-21 03:00:05
lock_time = 0
binlog_pos = filename 'bin.000001', position '2614', GTID of the last change '0-7-16'
innodb_from_lsn = 0
innodb_to_lsn = 44404
partial = N
incremental = N
format = file
compressed = N
";

    #[test]
    fn bytes_are_those_of_the_stock_tool() {
        let info = BackupInfo::parse(STOCK);
        assert_eq!(info.innodb_to_lsn, Lsn(44404));
        assert_eq!(info.end_time, Some(jiff::civil::datetime(2026, 11, 21, 3, 0, 5, 0)));
        assert_eq!(info.to_text(), STOCK);
    }

    #[test]
    fn line_ends_in_values_do_not_make_lines() {
        let info = BackupInfo { tool_command: "a\nlock_time = 9".into(), ..Default::default() };
        assert_eq!(BackupInfo::parse(&info.to_text()).lock_time, 0);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "((start_time|lock_time|format|x) ?= ?[ -~]{0,20}\n){0,8}") {
            let _ = BackupInfo::parse(&text).to_text();
        }
    }
}

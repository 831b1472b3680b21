//! The command line: arguments become the engine's options, its reports become text or JSON,
//! its errors become exit codes.
//!
//! One program with four faces, chosen by the name it was started under:
//!
//! | name | face |
//! |---|---|
//! | `mariadb-backup`, `mariabackup` | [`stock`]: the option grammar of the stock tool |
//! | `mbstream` | [`mbstream`]: the stock stream packer |
//! | `mariadb-binlog`, `mysqlbinlog` | [`mysqlbinlog`]: the stock printer of binary logs |
//! | any other | [`commands`]: `haulout backup`, `prepare`, `restore`, `extract` |
//!
//! The faces hold no backup logic and never touch a backup's files: that is the engine's.

mod commands;
mod console;
mod duration;
mod machine;
pub mod manual;
mod mbstream;
mod mysqlbinlog;
mod owner;
mod signals;
mod size;
mod stock;
mod streams;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs the face that the program's name selects.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name());
    match name.and_then(|name| name.to_str()) {
        Some(name @ ("mariadb-backup" | "mariabackup")) => stock::main(name, &arguments[1..]),
        Some(name @ ("mariadb-binlog" | "mysqlbinlog")) => mysqlbinlog::main(name, &arguments[1..]),
        Some("mbstream") => mbstream::main(&arguments[1..]),
        _ => commands::main(&arguments),
    }
}

//! What in the data directory belongs to this server and to no copy of it.
//!
//! Logs, positions, caches, places in a cluster: a server that starts on a copy makes its own, and one
//! that took those of another would be wrong about itself. Everything else is part of a backup.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use innodb::space::data_file_path::DataFilePath;
use innodb::space::file_name::is_intermediate;

use super::inventory::{Inventory, aria_log_number, extension, is_undo_name};
use crate::metadata;
use crate::redo_files;
use crate::server::profile::ServerProfile;

/// What in the data directory does not belong into a backup.
#[derive(Default)]
pub(super) struct LeftOut {
    pub directories: BTreeSet<Vec<u8>>,
    /// Exact paths: copied in another way, or logs of the server.
    pub paths: BTreeSet<PathBuf>,
    /// Beginnings of paths that a dot and digits, or a known word, follow.
    pub log_basenames: Vec<PathBuf>,
    /// Whether the server is a node of a cluster.
    pub is_node: bool,
}

/// Names in the data directory that belong to this server instance and to no other.
const INSTANCE_FILES: [&[u8]; 16] = [
    b"ddl.log",
    b"tc.log",
    b"master.info",
    b"relay-log.info",
    b"multi-master.info",
    b"mysql_upgrade_info",
    b"mariadb_upgrade_info",
    b"ib_lru_dump",
    b"gvwstate.dat",
    // Of a cluster's node: its place in the cluster, and what transfers of its state left behind.
    b"grastate.dat",
    b"galera.cache",
    b"sst_in_progress",
    b"xtrabackup_ist",
    b"mariabackup.backup.log",
    b"mariabackup.prepare.log",
    b"mariabackup.move.log",
];

/// The same, by how they begin: pages of the cluster's cache, and what it could not apply.
const INSTANCE_PREFIXES: [&[u8]; 2] = [b"gcache.page.", b"GRA_"];

/// What each node of a cluster has for itself in its data directory, by extension: the joiner keeps its own
/// when it takes over the state of another.
const NODE_EXTENSIONS: [&[u8]; 3] = [b"pem", b"err", b"log"];

impl LeftOut {
    pub fn of(profile: &ServerProfile, inventory: &Inventory) -> Self {
        let mut directories: BTreeSet<Vec<u8>> =
            profile.ignore_db_dirs.iter().map(|dir| dir.clone().into_bytes()).collect();
        directories.insert(b"lost+found".to_vec());
        let mut paths: BTreeSet<PathBuf> = BTreeSet::new();
        if let Some(rocksdb) = &profile.rocksdb {
            paths.insert(rocksdb.data.clone());
            paths.extend(rocksdb.wal.clone());
        }
        paths.extend(inventory.system.iter().map(|file| file.source.clone()));
        let variable = |name: &str| {
            let value = profile.variables.get(name).filter(|value| !value.is_empty())?;
            Some(profile.datadir.join(value))
        };
        for name in [
            "log_error",
            "general_log_file",
            "slow_query_log_file",
            "pid_file",
            "socket",
            "log_bin_index",
            "relay_log_index",
            "mroonga_log_file",
            "mroonga_query_log_file",
        ] {
            paths.extend(variable(name));
        }
        if let Some(temporary) = profile.variables.get("innodb_temp_data_file_path") {
            for file in DataFilePath::parse(temporary).map(|path| path.files).unwrap_or_default() {
                paths.insert(profile.innodb_data_home_dir.join(file.name));
            }
        }
        let log_basenames =
            ["log_bin_basename", "relay_log_basename"].into_iter().filter_map(variable).collect();
        Self { directories, paths, log_basenames, is_node: profile.wsrep_on }
    }

    /// Whether a directory is, of this name and at this path.
    pub fn directory(&self, name: &[u8], path: &Path) -> bool {
        self.directories.contains(name) || self.paths.contains(path)
    }

    /// Whether a file is.
    pub fn file(&self, name: &[u8], path: &Path) -> bool {
        self.paths.contains(path)
            || self.log_basenames.iter().any(|basename| is_log_of(path, basename))
            || INSTANCE_FILES.contains(&name)
            || INSTANCE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || (self.is_node && NODE_EXTENSIONS.contains(&extension(name)))
            || name.starts_with(b"ib_logfile")
            || redo_files::is_archived(name)
            || name.starts_with(b"ibtmp")
            || name.starts_with(b"ddl_recovery")
            || (name.starts_with(b"master-") && name.ends_with(b".info"))
            || (name.starts_with(b"relay-log-") && name.ends_with(b".info"))
            || name.ends_with(b".pid")
            || name == b"aria_log_control"
            || aria_log_number(name).is_some()
            || is_undo_name(name)
            || is_intermediate(&String::from_utf8_lossy(name))
            // Left behind by a restore: the new backup has its own.
            || metadata::names::is_metadata(&String::from_utf8_lossy(name))
    }
}

fn is_log_of(path: &Path, basename: &Path) -> bool {
    let rest = path.as_os_str().as_bytes().strip_prefix(basename.as_os_str().as_bytes());
    let Some(rest) = rest.and_then(|rest| rest.strip_prefix(b".")) else { return false };
    // From 11.4 on each has an index of its GTIDs.
    let number = rest.strip_suffix(b".idx").unwrap_or(rest);
    matches!(rest, b"index" | b"state" | b"index_crash_safe")
        || (!number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_that_only_look_like_logs_are_not() {
        let basename = Path::new("/d/bin");
        assert!(is_log_of(Path::new("/d/bin.000012"), basename));
        assert!(is_log_of(Path::new("/d/bin.000012.idx"), basename));
        assert!(is_log_of(Path::new("/d/bin.index"), basename));
        assert!(!is_log_of(Path::new("/d/bin.frm"), basename));
        assert!(!is_log_of(Path::new("/d/binary.000012"), basename));
    }

    /// The node that takes over a backup keeps its own, and refuses to have them overwritten.
    #[test]
    fn what_makes_a_node_of_a_cluster_is_its_own() {
        let file = |left_out: &LeftOut, name: &str| {
            left_out.file(name.as_bytes(), &Path::new("/d").join(name))
        };
        let alone = LeftOut::default();
        let node = LeftOut { is_node: true, ..LeftOut::default() };
        for name in [
            "galera.cache",
            "grastate.dat",
            "gcache.page.000001",
            "GRA_1_2_v2.log",
            "xtrabackup_ist",
        ] {
            assert!(file(&alone, name) && file(&node, name), "{name}");
        }
        for name in ["server-key.pem", "host.err", "audit.log"] {
            assert!(!file(&alone, name) && file(&node, name), "{name}");
        }
        assert!(!file(&node, "ib_buffer_pool") && !file(&node, "galera"));
    }
}

//! Defaults that follow from the machine: threads and memory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::size::Size;

/// Least memory that prepare takes by default.
const LEAST_MEMORY: Size = Size::mib(128);

/// More threads than this bring little and disturb the server, unless asked for.
const MOST_THREADS: usize = 4;

/// The cores that this process may use, at most four.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_THREADS))
}

/// A quarter of the memory that is available to this process, at least 128 MiB.
///
/// Available is what the kernel says, or the limit of the control group when that is less.
pub fn default_memory() -> Size {
    memory_for(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

/// [`default_memory`] with the two places it looks at.
fn memory_for(proc: &Path, cgroup: &Path) -> Size {
    let free = fs::read_to_string(proc.join("meminfo")).ok().and_then(|text| available(&text));
    let groups = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
    let limit = limit_files(&groups, cgroup)
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .min();
    let bytes = [free, limit].into_iter().flatten().min().unwrap_or(0);
    Size(bytes / 4).max(LEAST_MEMORY)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The files that may limit a process of these control groups: of its own group and of every
/// group above. Both generations of the interface; a file that is missing limits nothing.
fn limit_files(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, name) = if controllers.is_empty() {
            (root.to_path_buf(), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|group| root.join(group).join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A machine with 8 GiB available, and the given groups and limits.
    fn machine(groups: &str, limits: &[(&str, &str)]) -> Size {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("proc/meminfo"), "MemTotal: 9 kB\nMemAvailable:    8388608 kB\n");
        write(dir.path().join("proc/self/cgroup"), groups);
        for (file, text) in limits {
            write(dir.path().join("cg").join(file), text);
        }
        memory_for(&dir.path().join("proc"), &dir.path().join("cg"))
    }

    #[test]
    fn a_quarter_of_what_is_available() {
        assert_eq!(machine("", &[]), Size::mib(2048));
        assert_eq!(machine("0::/a\n", &[("a/memory.max", "max\n")]), Size::mib(2048));
    }

    #[test]
    fn the_smallest_limit_of_the_groups_counts() {
        let limits = [("a/memory.max", "1073741824\n"), ("a/b/memory.max", "4294967296\n")];
        assert_eq!(machine("0::/a/b\n", &limits), Size::mib(256));
        let limits = [("memory/x/memory.limit_in_bytes", "2147483648\n")];
        assert_eq!(machine("4:cpu,memory:/x\n1:name=systemd:/x\n", &limits), Size::mib(512));
    }

    #[test]
    fn never_less_than_128_mib() {
        assert_eq!(machine("0::/\n", &[("memory.max", "1000000\n")]), Size::mib(128));
        assert_eq!(
            memory_for(Path::new("/nonexistent"), Path::new("/nonexistent")),
            Size::mib(128)
        );
    }
}

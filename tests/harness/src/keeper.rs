//! Cleans up after a test process that was killed.
//!
//! A keeper is a shell that waits for the end of its input. The other end of that pipe is
//! held by the test process alone, so however the process ends, the keeper wakes, kills the
//! server and removes its directory.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Result;

/// Watches over one server process.
pub struct Keeper(Child);

impl Keeper {
    /// Watches over the process `pid`, which works in `dir`.
    pub fn watch(pid: u32, dir: &Path) -> Result<Self> {
        // The interrupt key reaches the whole process group; the keeper has to outlive it.
        let script = r#"trap "" INT TERM HUP; read -r _; kill -9 "$1"; rm -rf -- "$2""#;
        let child = Command::new("sh")
            .args(["-c", script, "keeper", &pid.to_string()])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

/// The server ended in the regular way: its pid may belong to somebody else soon.
impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

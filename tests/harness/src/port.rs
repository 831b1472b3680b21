//! Free TCP ports that no two test processes take at once.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, bail};

use crate::Result;

/// Ports below the range from which the kernel serves outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A port that stays reserved as long as this value lives.
pub struct Port {
    number: u16,
    /// Holding the lock is what reserves the port; the kernel drops it with the process.
    _lock: File,
}

impl Port {
    /// Reserves a port on which nothing listens.
    pub fn reserve() -> Result<Self> {
        // Each user has a directory: the lock files of another one could not be opened.
        let user = rustix::process::getuid().as_raw();
        let dir = std::env::temp_dir().join(format!("haulout-ports-{user}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        for _ in 0..1000 {
            let number = fastrand::u16(PORTS);
            let lock = File::create(dir.join(number.to_string()))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("found no free port between {} and {}", PORTS.start, PORTS.end)
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

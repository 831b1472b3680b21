//! Letting go of the server's locks when the backup is given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::run::Run;
use crate::Cancel;
use crate::server::session::Wait;
use crate::server::{ConnectOptions, Session};

/// Ends the connection that holds the locks as soon as the backup is given up. The thread that owns
/// it may be waiting for an output that takes nothing any more, and the server must not wait with
/// it.
pub fn release_when_given_up(
    run: &Run<'_>,
    connect: &ConnectOptions,
    connection: u64,
    released: &AtomicBool,
) {
    while !released.load(Ordering::SeqCst) {
        if run.check().is_err() {
            // Its own flag: that of the backup is raised already. When this fails the server still
            // lets go as soon as the process ends.
            if let Ok(mut session) = Session::connect(connect, &Cancel::new()) {
                let wait = Wait::short("releasing the backup locks");
                let _ = session.execute(&format!("KILL CONNECTION {connection}"), wait);
            }
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Raises a flag when it goes out of scope.
pub struct SetOnDrop(pub Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

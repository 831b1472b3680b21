//! Interrupting: the first SIGINT or SIGTERM asks the operation to stop, the second ends the
//! program at once.
//!
//! The first signal leaves time to release the server's locks and to remove what would look
//! like a backup. SIGPIPE stays ignored, as Rust programs start: a closed pipe is an error of
//! the write that meets it, and goes through the ordinary error path.

use engine::{Cancel, Error, ErrorKind, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Starts to listen. The listener lives as long as the program.
pub fn listen() -> Result<Cancel> {
    let cancel = Cancel::new();
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|e| Error::new(ErrorKind::Failed, "cannot listen for signals").caused_by(e))?;
    let raised = cancel.clone();
    std::thread::Builder::new()
        .name("signals".to_string())
        .spawn(move || {
            for _ in signals.forever() {
                if raised.is_cancelled() {
                    signal_hook::low_level::exit(i32::from(ErrorKind::Interrupted.exit_code()));
                }
                raised.cancel();
            }
        })
        .map_err(|e| Error::new(ErrorKind::Failed, "cannot start a thread").caused_by(e))?;
    Ok(cancel)
}

/// After an interruption, whatever an operation failed with is a consequence of it.
pub fn blame(error: Error, cancel: &Cancel) -> Error {
    if !cancel.is_cancelled() || error.kind() == ErrorKind::Interrupted {
        return error;
    }
    Error::new(ErrorKind::Interrupted, "interrupted").caused_by(error)
}

//! How a store is used: limits, and how long to try.

use std::time::Duration;

#[cfg(feature = "s3")]
use super::s3::S3Options;

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Requests that move objects at the same time; more callers wait.
    pub concurrency: usize,
    /// Bytes per second that may be moved in each direction, all requests together.
    pub bandwidth: Option<u64>,
    /// When to try again, and when to give up.
    pub retry: RetryOptions,
    /// Whether the last directory of a folder's path is created when it does not exist. Otherwise
    /// that is an error: it may be a file system that is not mounted.
    pub create_folder: bool,
    /// What only stores behind S3's interface have.
    #[cfg(feature = "s3")]
    pub s3: S3Options,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            concurrency: 8,
            bandwidth: None,
            retry: RetryOptions::default(),
            create_folder: false,
            #[cfg(feature = "s3")]
            s3: S3Options::default(),
        }
    }
}

/// When to try again, and when to give up.
#[derive(Clone, Debug)]
pub struct RetryOptions {
    /// How long a request may go without success: pauses count, and of each try no more than
    /// `stall`, so that large objects on slow lines have as many tries as small ones.
    pub patience: Duration,
    /// A request that moves no byte for so long is given up and tried again. What the kernel has
    /// taken counts as moved: a slow line may need a while for that, and a busy store for its
    /// answer.
    pub stall: Duration,
    /// For making a connection.
    pub connect: Duration,
    /// Pause before the second try; each further one is twice as long. A random part of up to a
    /// half is left out, so that not all come back at the same time.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(300),
            stall: Duration::from_secs(60),
            connect: Duration::from_secs(10),
            pause: Duration::from_millis(200),
            pause_max: Duration::from_secs(15),
        }
    }
}

//! Where repositories keep their objects: a bucket or a folder.
//!
//! | module | what |
//! |---|---|
//! | [`Key`], [`Body`] | names of objects, content of objects |
//! | [`Location`] | which store a repository is on |
//! | [`StoreOptions`] | limits, and how long to try |
//! | `folder` | files below a directory, local or mounted |
//! | `s3` | objects behind S3's interface |
//! | `retry`, `limits` | trying again; requests at a time, bytes per second |
//!
//! Promises of every store:
//! - An object is there whole or not at all, and it is durable when [`Store::put`] returns. Nothing
//!   is ever left that a listing shows and that is not whole.
//! - A failure is tried again, from memory, unless it is proven to be permanent.
//! - No answer makes it take more memory than the caller allowed.
//! - A raised [`Cancel`] ends every wait within a tenth of a second.
//! - The kind of its errors is [`ErrorKind::Store`]; [`ErrorKind::NothingMatches`] is an object that
//!   does not exist, [`ErrorKind::Damage`] one that is shorter or longer than it must be. No error,
//!   no debug output and no message has a secret in it.

mod body;
mod folder;
mod key;
mod limits;
mod location;
mod options;
mod retry;
#[cfg(feature = "s3")]
mod s3;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

pub use body::Body;
pub use folder::FolderStore;
pub use key::{KEY_MAX, Key, PART_MAX};
pub use location::Location;
pub use options::{RetryOptions, StoreOptions};
#[cfg(feature = "s3")]
pub use s3::{
    Checksum, CustomerKey, Encryption, LockMode, ObjectLock, S3Credentials, S3Options, S3Store,
};

use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// No listing is longer.
pub const LIST_MAX: usize = 10_000_000;

/// An object that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub key: Key,
    /// Its size in bytes.
    pub len: u64,
    /// When it was put, by the store's clock.
    pub modified: SystemTime,
}

/// How to put an object.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Leave an object alone that has this key. Of several writers at once one wins, as long as
    /// the store can tell them apart; see [`Store::guards`].
    pub only_if_absent: bool,
    /// The hash of the content is kept elsewhere, and is compared whenever it is read: what is put need
    /// not be proof against forgery on its way, only against accidents.
    pub is_hashed_elsewhere: bool,
}

/// What putting an object did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "only if it is absent: it may not have been put"]
pub enum Put {
    /// The object is there, with this content.
    Stored,
    /// There was another one with this key, which was left alone.
    AlreadyThere,
}

/// Something that a put left behind that was killed: not an object, and never listed as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What and where it is.
    pub name: String,
    /// Its size in bytes.
    pub len: u64,
    /// When it was last written to.
    pub modified: SystemTime,
}

/// A store of objects. Calls block, and come from several threads at once.
pub trait Store: Send + Sync {
    /// Puts an object, or replaces it.
    ///
    /// With `only_if_absent`, content that is the same as what is there already counts as put by
    /// this call: the answer to an earlier try may have been lost. Content that has to be told apart
    /// from that of other writers has something unique in it.
    fn put(&self, key: &Key, body: Body, options: &PutOptions, cancel: &Cancel) -> Result<Put>;

    /// An object, or a range of its bytes. It is an error if that is more than `limit` bytes, or if
    /// the object ends before the range does.
    fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        limit: u64,
        cancel: &Cancel,
    ) -> Result<Bytes>;

    /// Size and time of an object; `None` if there is none.
    fn head(&self, key: &Key, cancel: &Cancel) -> Result<Option<Object>>;

    /// All objects whose keys begin with `prefix`, which may end within a name, sorted by key.
    fn list(&self, prefix: &str, cancel: &Cancel) -> Result<Vec<Object>>;

    /// The names directly below `prefix` (empty, or ending with `/`) that have objects below them,
    /// sorted. A folder that has become empty meanwhile may be among them.
    fn list_folders(&self, prefix: &str, cancel: &Cancel) -> Result<Vec<String>>;

    /// Removes objects. One that does not exist is as good as removed.
    fn delete(&self, keys: &[Key], cancel: &Cancel) -> Result<()>;

    /// Whether `only_if_absent` holds against writers at the same time. Where it does not, the store
    /// looks before and after it puts, and has warned.
    fn guards(&self, cancel: &Cancel) -> Result<bool>;

    /// What killed puts left behind longer than `age` ago; removes it if `remove` is set.
    fn leftovers(&self, age: Duration, remove: bool, cancel: &Cancel) -> Result<Vec<Leftover>>;

    /// Which store this is, for messages. Without secrets.
    fn describe(&self) -> String;
}

/// Opens the store at a location.
///
/// # Errors
/// When the folder does not exist, or the options do not fit.
pub fn open(
    location: &Location,
    options: &StoreOptions,
    reporter: Arc<dyn Reporter>,
) -> Result<Arc<dyn Store>> {
    match location {
        Location::Folder(root) => Ok(Arc::new(FolderStore::open(root, options, reporter)?)),
        #[cfg(feature = "s3")]
        Location::S3 { bucket, prefix } => {
            Ok(Arc::new(S3Store::open(bucket, prefix.as_ref(), options, reporter)?))
        }
        #[cfg(not(feature = "s3"))]
        Location::S3 { .. } => {
            Err(Error::new(ErrorKind::Usage, format!("{location}: this build knows folders only")))
        }
    }
}

/// An object that does not exist.
fn absent(key: &Key, place: &str) -> Error {
    Error::new(ErrorKind::NothingMatches, format!("there is no object {key} in {place}"))
}

/// The bytes that were asked for are not those of this object.
fn out_of_bounds(key: &Key, len: u64, range: Option<&Range<u64>>, limit: u64) -> Error {
    let what = match range {
        Some(range) => format!("ends after {len} bytes, before byte {}", range.end),
        None => format!("has {len} bytes, more than the {limit} that it may have"),
    };
    Error::new(ErrorKind::Damage, format!("the object {key} {what}"))
}

/// Checks what can be checked of a request before it is made; how many bytes the range has.
fn check_range(range: Option<&Range<u64>>, limit: u64) -> Result<Option<u64>> {
    let Some(range) = range else { return Ok(None) };
    match range.end.checked_sub(range.start) {
        Some(len) if len <= limit => Ok(Some(len)),
        _ => Err(Error::new(
            ErrorKind::Usage,
            format!("bytes {} to {} are not within a limit of {limit}", range.start, range.end),
        )),
    }
}

/// A listing that would take too much memory.
fn too_many(prefix: &str, place: &str) -> Error {
    Error::new(
        ErrorKind::Store,
        format!("more than {LIST_MAX} objects begin with {prefix:?} in {place}"),
    )
    .advise("use a prefix of its own for the repository")
}

/// Folders are asked for by whole names.
fn check_folder(prefix: &str) -> Result<()> {
    key::check_prefix(prefix)?;
    if prefix.is_empty() || prefix.ends_with('/') {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Usage,
        format!("the prefix {prefix:?} of folders has no / at its end"),
    ))
}

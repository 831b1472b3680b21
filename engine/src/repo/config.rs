//! What a repository is: `haulout.json`, written once and never changed.

use super::layout::{CONFIG, damaged};
use super::seal;
use crate::store::{Key, Put, PutOptions, Store};
use crate::{Cancel, Error, ErrorKind, Result};

/// Version of the layout. Programs refuse later ones.
pub const FORMAT: u32 = 1;
/// No configuration is longer.
const CONFIG_MAX: u64 = 1 << 20;

/// The content of the object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Config {
    /// Version of the layout.
    pub format: u32,
    /// Tells this repository from all others.
    pub id: String,
    /// When it was created.
    pub created: jiff::Timestamp,
    /// Whether backups are sealed.
    pub sealed: bool,
}

impl Config {
    /// Of a new repository.
    pub fn new(sealed: bool) -> Result<Self> {
        let mut id = [0; 16];
        seal::random(&mut id)?;
        let (id, created) = (seal::hex(&id), jiff::Timestamp::now());
        Ok(Self { format: FORMAT, id, created, sealed })
    }

    /// Puts it into a store that has none.
    pub fn create(&self, store: &dyn Store, cancel: &Cancel) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| {
            Error::new(ErrorKind::Failed, "cannot write the configuration").caused_by(e)
        })?;
        let options = PutOptions { only_if_absent: true, ..PutOptions::default() };
        match store.put(
            &Key::new(CONFIG)?,
            format!("{text}\n").into_bytes().into(),
            &options,
            cancel,
        )? {
            Put::Stored => Ok(()),
            Put::AlreadyThere => Err(Error::new(
                ErrorKind::Usage,
                format!("there is a repository already in {}", store.describe()),
            )),
        }
    }

    /// Reads it; `None` where there is none.
    pub fn read(store: &dyn Store, cancel: &Cancel) -> Result<Option<Self>> {
        let key = Key::new(CONFIG)?;
        let text = match store.get(&key, None, CONFIG_MAX, cancel) {
            Err(error) if error.kind() == ErrorKind::NothingMatches => return Ok(None),
            text => text?,
        };
        let config: Self = serde_json::from_slice(&text)
            .map_err(|e| damaged(&key, "cannot be read").caused_by(e))?;
        if config.format > FORMAT {
            let later = format!("it has format {}, which this version cannot use", config.format);
            return Err(damaged(&key, later).advise("use a newer version"));
        }
        Ok(Some(config))
    }
}

//! Binary log positions and GTIDs.
//!
//! Text in, values out, and back without loss. Every text is taken for hostile: no input makes
//! this crate panic or allocate out of proportion.
//!
//! | module | what |
//! |---|---|
//! | [`gtid`] | [`Gtid`], [`GtidPosition`] (one per domain), [`GtidState`] (one per domain and server) |
//! | [`position`] | [`BinlogPosition`]: file and offset |
#![forbid(unsafe_code)]

pub mod gtid;
pub mod position;

pub use gtid::{Gtid, GtidError, GtidPosition, GtidState};
pub use position::{BinlogPosition, BinlogPositionError};

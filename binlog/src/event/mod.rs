//! What is in each kind of event.
//!
//! Values borrow from the event. Text is bytes: it is in the character set of whoever wrote it.
//!
//! | module | events |
//! |---|---|
//! | [`query`] | QUERY and its compressed form, and the session that a statement ran in |
//! | [`gtid`] | GTID, GTID_LIST |
//! | [`control`] | ROTATE, BINLOG_CHECKPOINT, XID, XA_PREPARE, INCIDENT, HEARTBEAT |
//! | [`variables`] | INTVAR, RAND, USER_VAR |
//! | [`load`] | BEGIN_LOAD_QUERY, APPEND_BLOCK, DELETE_FILE, EXECUTE_LOAD_QUERY |
//! | [`table_map`] | TABLE_MAP and its optional metadata |
//! | [`rows`] | WRITE, UPDATE and DELETE of rows, in both versions, compressed or not |

pub mod control;
pub mod gtid;
pub mod load;
pub mod query;
pub mod rows;
pub mod table_map;
pub mod variables;

pub use control::{Incident, Rotate, Xid};
pub use gtid::{GtidEvent, GtidList};
pub use query::Query;
pub use rows::Rows;
pub use table_map::TableMap;
pub use variables::{IntVar, Rand, UserVar};

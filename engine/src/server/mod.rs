//! The server as the engine sees it: option files, connection, profile, locks, positions.
//!
//! | module | what |
//! |---|---|
//! | [`option_file`] | `my.cnf` files: groups, includes, precedence |
//! | [`connect`] | how to reach the server, from option files, environment and command line |
//! | [`session`] | one connection, blocking, with deadlines and cancelling |
//! | `pipeline` | many statements in one request, and several requests on their way |
//! | [`failure`] | why a statement or a connection failed, in words that help |
//! | [`rows`] | what the server answered |
//! | [`profile`] | what kind of server this is and where its files are |
//! | [`privileges`] | whether the account may do what a backup needs |
//! | [`stages`] | the BACKUP STAGE protocol and what it costs others |
//! | [`lsn`] | log sequence numbers, flushing and checkpoints |
//! | [`feed`] | the server's binary log, as a replica is sent it |
//! | `wire` | packets to and from the server |
//! | `login` | how a connection begins |
//! | `text_result` | what statements answer, as packets |
//! | [`tls_options`], `tls`, `trust` | encryption of connections, and who is at their other ends |
//! | [`replica`] | where the server is a replica itself |
//! | [`position`] | binary log position and GTIDs |

pub mod connect;
pub mod failure;
pub mod feed;
mod login;
pub mod lsn;
pub mod option_file;
pub(crate) mod pipeline;
pub mod position;
pub mod privileges;
pub mod profile;
pub mod replica;
pub mod rows;
pub mod session;
pub mod stages;
mod standing;
mod text_result;
pub(crate) mod tls;
pub mod tls_options;
mod trust;
mod wire;

pub use connect::{ConnectOptions, Protocol};
pub use rows::{Row, Variables};
pub use session::{Session, Wait};
pub use tls_options::TlsOptions;

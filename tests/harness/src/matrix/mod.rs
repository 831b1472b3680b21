//! The matrix: random kinds of servers, and everything that has to hold on each.
//!
//! A [`Cell`] is one kind of server and of load, made up from a seed. In it the same raw backup
//! is prepared by the stock tool and by ours and compared page by page, every page of the result
//! is opened and shown to the server's own checker, and the restored copy becomes a replica of
//! its source.
//!
//! What Haulout refuses by name is an outcome of its own, neither success nor failure. Which
//! refusals are right the table in `docs/compatibility.md` says ([`support`]): a cell that is
//! refused although the table promises it fails, and so does one that works although the table
//! says that it is refused. So the table cannot promise what is not there.

mod cell;
mod run;
pub mod support;

pub use cell::Cell;
pub use run::{Done, Outcome, run};

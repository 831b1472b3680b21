//! Private MariaDB servers, random load and proofs for the whole-system tests.
//!
//! This crate and `xtask` are the only places that start other programs. Everything a test
//! starts or writes is private to it (data directory, socket, port) and goes away with the
//! value that owns it, also when the test process is killed, so that any number of test
//! processes can run side by side.
//!
//! | module | what |
//! |---|---|
//! | [`galera`] | a node that joins a cluster by a state snapshot transfer |
//! | [`faulty_proxy`] | what networks and busy stores do to requests |
//! | [`generation`] | the servers to test with, unpacked from Debian's archive |
//! | [`server`] | a `mariadbd` of one's own: start, stop, crash, restart |
//! | [`canned`] | a web server whose answers a test makes up |
//! | [`certificate`] | a certificate of its own authority |
//! | [`client`] | a blocking SQL connection |
//! | [`keys`] | encryption keys for servers: key files, a small vault |
//! | [`load`] | seeded random DML and DDL, in threads, that replicates exactly |
//! | [`tool`] | the backup tools under test: the stock one and ours, one set of calls |
//! | [`process`] | running a program with a deadline; its time and memory |
//! | [`proof`] | the replica proof: a restored copy must catch up and equal its source |
//! | [`chain`] | the same of a base and its deltas, by changing tools |
//! | [`differential`] | the differential proof: two tools prepare to the same bytes |
//! | [`compare`] | comparing the tables of two servers |
//! | [`pages`] | comparing two prepared directories byte for byte |
//! | [`s3`] | a light S3 server in this process |
//! | [`stored`] | what encrypted and compressed pages hold |
//! | [`matrix`] | random kinds of servers, and everything that has to hold on each |

pub mod canned;
pub mod certificate;
pub mod chain;
pub mod client;
pub mod compare;
pub mod differential;
pub mod faulty_proxy;
pub mod galera;
pub mod generation;
mod keeper;
pub mod keys;
pub mod load;
pub mod matrix;
pub mod pages;
mod port;
pub mod process;
pub mod proof;
mod provision;
pub mod s3;
pub mod scratch;
pub mod server;
pub mod stored;
mod template;
pub mod tool;

pub use client::Client;
pub use generation::Generation;
pub use provision::c_library;
pub use scratch::Scratch;
pub use server::{ChecksumAlgorithm, Server, ServerOptions, runs_as_root};
pub use tool::Tool;

/// Result of everything that can fail here; tests unwrap it.
pub type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

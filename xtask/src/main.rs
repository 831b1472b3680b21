//! Developer commands:
//! `cargo xtask setup|test|demo|proof|matrix|kills|targets|mtr|logs|galera|s3|package|bench|fuzz`.
//!
//! Together with the tests this is the only place that starts other programs. Every command
//! installs nothing but Debian packages, and only when a program is missing.

mod bench;
mod build;
mod demo;
mod expected;
mod fuzz;
mod galera;
mod kills;
mod logs;
mod matrix;
mod mtr;
mod package;
mod proof;
mod s3;
mod setup;
mod targets;
mod test;
mod text;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of Haulout")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the Debian packages that tests and benchmarks need
    Setup,
    /// Format check, lints and every test
    Test(test::Arguments),
    /// Back up a busy server, restore it, and prove that the copy is right
    Demo(demo::Arguments),
    /// Replica proofs over many seeds
    Proof(proof::Arguments),
    /// Random kinds of servers, and everything that has to hold on each
    Matrix(matrix::Arguments),
    /// Commands on repositories, killed at many random moments
    Kills(kills::Arguments),
    /// A replay to many random targets, each compared with a witness
    Targets(targets::Arguments),
    /// MariaDB's own tests of its backup tool, with ours in its place
    Mtr(mtr::Arguments),
    /// The text of the logs in MariaDB's own tests, by the stock tool and by ours
    Logs,
    /// The stores' tests on a real distributed S3 server
    S3,
    /// Nodes that join a cluster by a backup, with every pair of tools
    Galera(galera::Arguments),
    /// Debian packages that run on Debian 11 and later
    Package(package::Arguments),
    /// Measure against the stock tool
    Bench(bench::Arguments),
    /// Run the fuzz targets, one after the other
    Fuzz(fuzz::Arguments),
}

fn main() -> std::process::ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => setup::setup(),
        Command::Test(arguments) => test::test(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::Proof(arguments) => proof::proof(&arguments),
        Command::Matrix(arguments) => matrix::matrix(&arguments),
        Command::Kills(arguments) => kills::kills(&arguments),
        Command::Targets(arguments) => targets::targets(&arguments),
        Command::Mtr(arguments) => mtr::mtr(&arguments),
        Command::S3 => s3::s3(),
        Command::Logs => logs::logs(),
        Command::Galera(arguments) => galera::galera(&arguments),
        Command::Package(arguments) => package::package(&arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::Fuzz(arguments) => fuzz::fuzz(&arguments),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

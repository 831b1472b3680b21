//! `cargo xtask package`: Debian packages, by one command.
//!
//! | module | what |
//! |---|---|
//! | [`program`] | the program, linked with the C library of Debian 11, so that it runs on every later one |
//! | [`pages`] | manual pages and completions, from the definitions of the arguments |
//! | [`deb`] | two packages of these |
//! | [`check`] | what has to hold of them, by dpkg |
//!
//! The package `haulout` has the program and its faces in a directory of their own, and gives them the
//! names of the stock tools as Debian alternatives, unless another package has programs of these
//! names: then nothing is touched. The package `haulout-mariadb-backup` is how one asks for them: it has
//! no files and takes the place of Debian's `mariadb-backup`.

mod check;
mod deb;
mod pages;
mod program;

use std::path::PathBuf;

use anyhow::Context;
use harness::{Result, Scratch};

use crate::{build, setup};

/// What is needed besides a compiler, and its packages.
const NEEDS: &[(&str, &str)] =
    &[("/usr/bin/dpkg-deb", "dpkg"), ("/usr/bin/gcc", "gcc"), ("/usr/bin/readelf", "binutils")];

/// Where to.
#[derive(clap::Args)]
pub struct Arguments {
    /// Directory for the packages; the default is `package` in the build directory
    #[arg(long)]
    out: Option<PathBuf>,
    /// Pack this program instead of building one
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Builds the packages and checks them.
pub fn package(arguments: &Arguments) -> Result<()> {
    setup::install(NEEDS)?;
    let out = arguments.out.clone().unwrap_or_else(|| build::target().join("package"));
    std::fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => program::build()?,
    };
    let newest = check::runs_on_old_systems(&program)?;
    println!("the newest symbols that the program needs are of glibc {newest}");
    let scratch = Scratch::new()?;
    let packages = deb::build(&program, newest, &scratch.join("trees"), &out)?;
    check::unpacked(&packages, &scratch.join("unpacked"))?;
    check::switching(&packages, &scratch)?;
    for package in [&packages.haulout, &packages.dropin] {
        let bytes = std::fs::metadata(package)?.len();
        println!("{} ({})", package.display(), crate::text::size(bytes));
    }
    Ok(())
}

//! The program, linked with an old C library.
//!
//! A program runs with the C library that it was linked with and with every later one. So the
//! machine's own compiler is told to take headers and libraries from a directory with those of
//! Debian 11. The allocator is glibc's: a static program would need another one.

use std::path::PathBuf;

use harness::Result;

use crate::build;

/// Builds it; its path.
pub fn build() -> Result<PathBuf> {
    let library = harness::c_library()?;
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let sysroot = format!("--sysroot={}", library.display());
    // What a panic says must not name the builder's directories.
    let root = build::root().canonicalize()?;
    let mut flags = vec![
        format!("-Clink-arg={sysroot}"),
        // Debian's compiler looks into its own directories before those of the sysroot.
        format!("-Clink-arg=-B{}/usr/lib/{}-linux-gnu", library.display(), std::env::consts::ARCH),
        format!("-Clink-arg=-B{}/lib/{}-linux-gnu", library.display(), std::env::consts::ARCH),
        format!("--remap-path-prefix={}=haulout", root.display()),
    ];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
    // With a target named, the flags are those of the program and not those of its build scripts.
    build::cargo_with(
        &["build", "--release", "--package", "haulout", "--bin", "haulout", "--target", &target],
        &[
            ("CARGO_ENCODED_RUSTFLAGS", &flags.join("\u{1f}")),
            (&format!("CFLAGS_{}", target.replace('-', "_")), &sysroot),
            ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo"),
        ],
    )?;
    Ok(build::target().join(target).join("release/haulout"))
}

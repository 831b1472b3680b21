//! Manual pages and completions, from the definitions of the arguments.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use flate2::{Compression, GzBuilder};
use harness::Result;

/// Where the manual pages are.
pub const MANUALS: &str = "usr/share/man/man1";

/// Where each shell looks for completions.
pub const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "usr/share/bash-completion/completions/haulout"),
    (Shell::Zsh, "usr/share/zsh/vendor-completions/_haulout"),
    (Shell::Fish, "usr/share/fish/vendor_completions.d/haulout.fish"),
];

/// Writes all of them into a tree of files to be installed.
pub fn write(tree: &Path) -> Result<()> {
    let manuals = tree.join(MANUALS);
    fs::create_dir_all(&manuals)?;
    for (name, command) in manual_pages() {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        compress(&page, &manuals.join(format!("{name}.1.gz")))?;
    }
    for (shell, path) in COMPLETIONS {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().context("no directory for completions")?)?;
        let mut file = File::create(path)?;
        clap_complete::generate(shell, &mut cli::manual::native(), "haulout", &mut file);
    }
    Ok(())
}

/// Every page with the name of its file. Pages of the faces are named so that they do not collide with
/// those of the stock tools.
pub fn manual_pages() -> Vec<(String, Command)> {
    let mut pages = Vec::new();
    let mut native = cli::manual::native().disable_help_subcommand(true);
    native.build();
    add_with_commands("haulout", native, &mut pages);
    for face in cli::manual::faces() {
        pages.push((format!("haulout-{}", face.get_name()), face));
    }
    pages
}

fn add_with_commands(name: &str, command: Command, pages: &mut Vec<(String, Command)>) {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        add_with_commands(&format!("{name}-{}", inner.get_name()), inner.clone(), pages);
    }
    pages.push((name.to_owned(), command));
}

/// Compresses; equal bytes give equal files.
pub fn compress(bytes: &[u8], to: &Path) -> Result<()> {
    let file = File::create(to).with_context(|| format!("create {}", to.display()))?;
    let mut packer = GzBuilder::new().mtime(0).write(file, Compression::best());
    packer.write_all(bytes)?;
    packer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_command_and_face_has_a_page() {
        let pages = manual_pages();
        let page = |wanted: &str| {
            let (_, command) = pages.iter().find(|(name, _)| name == wanted).unwrap();
            let mut page = Vec::new();
            clap_mangen::Man::new(command.clone()).render(&mut page).unwrap();
            String::from_utf8(page).unwrap()
        };
        for (name, words) in [
            ("haulout", "haulout\\-restore(1)"),
            ("haulout-backup", "\\-\\-target\\-dir"),
            ("haulout-binlog-dump", ".TH haulout-binlog-dump 1"),
            ("haulout-mariadb-backup", "\\-\\-incremental\\-basedir"),
            ("haulout-mbstream", "\\-\\-extract"),
            ("haulout-mariadb-binlog", "\\-\\-stop\\-datetime"),
        ] {
            let page = page(name);
            assert!(page.contains(words), "{name} should say {words}:\n{page}");
        }
        // Nothing that clap adds.
        assert!(pages.iter().all(|(name, _)| !name.ends_with("-help")));
    }
}

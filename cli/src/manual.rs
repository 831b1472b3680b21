//! The faces as `clap` knows them, for manual pages and completions.
//!
//! Only the native face is parsed by `clap`. The others have the grammars of the stock tools; what
//! is here describes them, from the same tables that they are parsed with.

use clap::{Arg, ArgAction, Command};

use crate::{commands, mbstream, mysqlbinlog, stock};

/// `haulout`, with all its commands.
pub fn native() -> Command {
    commands::definition()
}

/// The faces under other names, each under the first of its names.
pub fn faces() -> [Command; 3] {
    [stock::definition(), mbstream::definition(), mysqlbinlog::definition()]
}

/// A face without the options that `clap` adds by itself.
pub(crate) fn face(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
}

/// An option without value, with its letter unless that is a blank.
pub(crate) fn switch(letter: char, name: &'static str, about: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).help(about).action(ArgAction::SetTrue);
    if letter == ' ' { arg } else { arg.short(letter) }
}

/// An option with a value of this name.
pub(crate) fn valued(
    letter: char,
    name: &'static str,
    value: &'static str,
    about: &'static str,
) -> Arg {
    switch(letter, name, about).action(ArgAction::Append).value_name(value)
}

/// [`valued`], of which the value may be left out.
pub(crate) fn optional(
    letter: char,
    name: &'static str,
    value: &'static str,
    about: &'static str,
) -> Arg {
    valued(letter, name, value, about).num_args(0..=1).require_equals(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_have_no_contradictions() {
        native().debug_assert();
        for face in faces() {
            let name = face.get_name().to_owned();
            assert!(face.get_arguments().count() > 4, "{name}");
            assert!(face.get_after_help().is_some(), "{name} has examples");
            face.debug_assert();
        }
    }
}

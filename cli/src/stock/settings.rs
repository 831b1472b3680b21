//! What all sources together ask for: option files below, the command line on top.

use std::path::PathBuf;

use engine::server::option_file::OptionFiles;

use super::parse::{Given, Taken, Unknown, option};
use super::table::{Fate, Kind, find};
use super::value::{Refusal, Value};

/// Groups of which the tool takes the server's options, besides those of the version.
pub const SERVER_GROUPS: &[&str] = &[
    "mysqld",
    "server",
    "mysqld-10.11",
    "mariadb",
    "mariadb-10.11",
    "mariadbd",
    "mariadbd-10.11",
    "client-server",
    "galera",
];

/// The tool's own groups, in which every option must be known.
pub const TOOL_GROUPS: &[&str] = &["xtrabackup", "mariabackup", "mariadb-backup"];

/// Options by source; of equal names the last one counts.
#[derive(Debug, Default)]
pub struct Settings {
    files: Vec<Given>,
    typed: Vec<Given>,
}

impl Settings {
    /// Settings of the command line alone.
    pub fn typed(given: Vec<Given>) -> Self {
        Self { files: Vec::new(), typed: given }
    }

    /// Puts option files below the command line. Returns remarks on options passed over.
    pub fn read_files(&mut self, files: &OptionFiles) -> Result<Vec<String>, Refusal> {
        let mut notes = Vec::new();
        let named = self.text("defaults-group").map(str::to_string);
        let groups: Vec<&str> = SERVER_GROUPS.iter().copied().chain(named.as_deref()).collect();
        for written in files.options(&groups) {
            if let Taken::Given(given) =
                option(&written.name, written.value, Unknown::Skip, &mut || None)?
            {
                self.files.push(given);
            }
        }
        for written in files.options(TOOL_GROUPS) {
            let name = if written.loose { format!("loose-{}", written.name) } else { written.name };
            match option(&name, written.value, Unknown::Refuse, &mut || None) {
                Ok(Taken::Given(given)) => self.files.push(given),
                Ok(Taken::Note(note)) => notes.push(format!("{}: {note}", written.origin)),
                Ok(Taken::Nothing) => {}
                Err(refusal) => {
                    let message = format!("{} ({})", refusal.message, written.origin);
                    return Err(Refusal::new(refusal.status, message));
                }
            }
        }
        Ok(notes)
    }

    /// Says something as if it stood at the end of the command line.
    pub fn say(&mut self, name: &str, value: Value) {
        self.typed.extend(find(name).map(|entry| Given { entry, value }));
    }

    /// The value that counts; `None` when nothing was said or it was taken back.
    fn value(&self, name: &str) -> Option<&Value> {
        last(&self.typed, name).or_else(|| last(&self.files, name))
    }

    /// Whether a switch is on, be it by default.
    pub fn switch(&self, name: &str) -> bool {
        match self.value(name) {
            Some(value) => *value == Value::On,
            None => find(name).is_some_and(|entry| entry.kind == Kind::SwitchOn),
        }
    }

    /// Whether an option counts, with a value or without.
    pub fn given(&self, name: &str) -> bool {
        !matches!(self.value(name), None | Some(Value::Off))
    }

    /// A text, unless empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        as_text(self.value(name))
    }

    /// A path, unless empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<u64> {
        as_number(self.value(name))
    }

    /// A value as it is written, if there is one.
    pub fn shown(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::Text(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::On | Value::Off => None,
        }
    }

    /// A text of the command line alone: for the connection, whose option files the engine reads.
    pub fn typed_text(&self, name: &str) -> Option<&str> {
        as_text(last(&self.typed, name))
    }

    /// All texts of the command line alone, by name.
    pub fn typed_texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.typed.iter();
        texts.filter_map(|given| Some((given.entry.name, as_text(Some(&given.value))?)))
    }

    /// A number of the command line alone.
    pub fn typed_number(&self, name: &str) -> Option<u64> {
        as_number(last(&self.typed, name))
    }

    /// Which of these options of the command line was given last.
    pub fn typed_last(&self, is_one: impl Fn(&str) -> bool) -> Option<&'static str> {
        self.typed.iter().rev().map(|given| given.entry.name).find(|name| is_one(name))
    }

    /// A switch of the command line alone.
    pub fn typed_switch(&self, name: &str) -> Option<bool> {
        last(&self.typed, name).map(|value| *value == Value::On)
    }

    /// Names of options that were given with a fate, in the order given, each once, unless what
    /// was given is what happens anyway.
    pub fn with_fate(&self, fate: Fate) -> Vec<&'static str> {
        let mut names = Vec::new();
        for Given { entry, .. } in self.files.iter().chain(&self.typed) {
            let asks = match (entry.kind, self.value(entry.name)) {
                (Kind::Switch, Some(Value::Off)) | (Kind::SwitchOn, Some(Value::On)) => false,
                (Kind::Switch | Kind::SwitchOn, _) => true,
                (_, value) => !matches!(value, Some(Value::Off) | None),
            };
            if entry.fate == fate && asks && !names.contains(&entry.name) {
                names.push(entry.name);
            }
        }
        names
    }
}

fn last<'a>(given: &'a [Given], name: &str) -> Option<&'a Value> {
    given.iter().rev().find(|given| given.entry.name == name).map(|given| &given.value)
}

fn as_text(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::Text(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn as_number(value: Option<&Value>) -> Option<u64> {
    match value {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::parse::arguments;
    use super::super::value::status;
    use super::*;

    fn settings(line: &str, file: &str) -> Result<Settings, Refusal> {
        let line: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        let mut settings = Settings::typed(arguments(&line).unwrap().given);
        settings.read_files(&OptionFiles::from_text(file).unwrap())?;
        Ok(settings)
    }

    #[test]
    fn the_command_line_wins_over_the_tool_group_over_the_server_group() {
        let file = "[mariadb-backup]\nparallel=2\ntarget_dir=/t\n\
                    [mysqld]\nparallel=9\ndatadir=/d\nuser=mysql\nbogus=5\n";
        let found = settings("--target-dir=/c", file).unwrap();
        assert_eq!(found.text("target-dir"), Some("/c"));
        assert_eq!(found.number("parallel"), Some(2));
        assert_eq!(found.text("datadir"), Some("/d"));
        // The server's user is not the backup's user.
        assert_eq!(found.text("user"), None);
        assert_eq!(found.typed_text("target-dir"), Some("/c"));
        assert_eq!(found.typed_number("parallel"), None);
    }

    #[test]
    fn unknown_options_of_the_tool_groups_are_refused_with_their_line() {
        let refusal = settings("", "[mariabackup]\nparallel=1\nbogus=5\n").unwrap_err();
        assert_eq!(refusal.status, status::UNKNOWN_VARIABLE);
        assert!(refusal.message.contains(":3"), "{}", refusal.message);
        let refusal = settings("", "[xtrabackup]\nbogus\n").unwrap_err();
        assert_eq!(refusal.status, status::UNKNOWN_OPTION);
        assert!(settings("", "[xtrabackup]\nloose-bogus\n[mysqldump]\nquick\n").is_ok());
    }

    #[test]
    fn some_switches_are_on_unless_switched_off() {
        for (line, on) in [("", true), ("--rocksdb-backup=0", false), ("--rocksdb-backup", true)] {
            assert_eq!(settings(line, "").unwrap().switch("rocksdb-backup"), on, "{line}");
        }
        assert!(
            !settings("", "[mysqld]\nloose-skip-rocksdb-backup\n")
                .unwrap()
                .switch("rocksdb-backup")
        );
    }

    #[test]
    fn a_named_group_is_read_too() {
        let file = "[mine]\ndatadir=/mine\n";
        assert_eq!(settings("--defaults-group=mine", file).unwrap().text("datadir"), Some("/mine"));
        assert_eq!(settings("", file).unwrap().text("datadir"), None);
    }

    #[test]
    fn what_has_nothing_to_tune_is_named_only_when_it_asks_for_something() {
        for (line, names) in [
            ("--rsync --innodb-io-capacity=5", vec!["rsync", "innodb-io-capacity"]),
            ("--rsync --skip-rsync", vec![]),
        ] {
            assert_eq!(settings(line, "").unwrap().with_fate(Fate::Tuning), names, "{line}");
        }
        let tuned = settings("--innodb-io-capacity=5 --backup", "[mysqld]\ninnodb-io-capacity=7\n");
        assert_eq!(tuned.unwrap().with_fate(Fate::Tuning), ["innodb-io-capacity"]);
    }
}

//! The option grammar of the server's programs.
//!
//! `--name=value`, `--name value` where a value is required, `-n value`, `-nvalue`; dashes and
//! underscores are equal; `--skip-`, `--disable-`, `--enable-`, `--loose-` and `--maximum-`
//! prefixes; names are never abbreviated. A request that cannot be understood is refused with
//! the exit status of the stock tool.

use super::innobackupex;
use super::table::{self, Entry, Fate, Kind, Owner};
use super::value::{Refusal, Value, boolean, checked, status};

/// An option that was given, with its value checked for its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Which one.
    pub entry: &'static Entry,
    /// Its value.
    pub value: Value,
}

/// What a list of arguments asks for.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Options in the order given.
    pub given: Vec<Given>,
    /// Arguments that are no options.
    pub bare: Vec<String>,
    /// Remarks on options that were passed over.
    pub notes: Vec<String>,
    /// The arguments with passwords left out, for the info file.
    pub shown: Vec<String>,
}

/// Whether an option that nobody knows is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It is.
    Refuse,
    /// It is, in the older grammar, which has options of its own and lacks others.
    RefuseOlder,
    /// It is passed over: these are the server's options, of which the tool uses a few. Options
    /// of other owners are unknown here: the server's `--user` is not the backup's.
    Skip,
}

impl Unknown {
    /// Whether an option of the table counts as known.
    fn admits(self, entry: &Entry) -> bool {
        match self {
            Self::Refuse => entry.owner != Owner::Older,
            Self::RefuseOlder => !innobackupex::LACKS.contains(&entry.name),
            Self::Skip => entry.owner == Owner::Server && entry.fate == Fate::Used,
        }
    }
}

/// What came of one option.
pub enum Taken {
    /// It counts.
    Given(Given),
    /// It is passed over, with a remark.
    Note(String),
    /// It is passed over.
    Nothing,
}

/// Reads arguments, without the program's name and the defaults options.
pub fn arguments(arguments: &[String]) -> Result<Parsed, Refusal> {
    read(arguments, Unknown::Refuse)
}

/// The same in the older grammar.
pub fn older_arguments(arguments: &[String]) -> Result<Parsed, Refusal> {
    read(arguments, Unknown::RefuseOlder)
}

fn read(arguments: &[String], mut unknown: Unknown) -> Result<Parsed, Refusal> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            parsed.shown.push(argument.clone());
            parsed.bare.extend(rest.by_ref().cloned());
        } else if argument.replace('_', "-") == "--mysqld-args" {
            parsed.shown.push(argument.clone());
            unknown = Unknown::Skip;
        } else if let Some(text) = argument.strip_prefix("--") {
            long(text, unknown, &mut rest, &mut parsed)?;
        } else if let Some(letters) = argument.strip_prefix('-').filter(|l| !l.is_empty()) {
            short(letters, unknown, &mut rest, &mut parsed)?;
        } else {
            parsed.shown.push(argument.clone());
            // A lone dash is neither option nor argument: the stock tool skips it.
            if unknown != Unknown::Skip && argument != "-" {
                parsed.bare.push(argument.clone());
            }
        }
    }
    Ok(parsed)
}

/// `name`, `name=value`, or `name` with the value behind it.
fn long(
    text: &str,
    unknown: Unknown,
    rest: &mut std::slice::Iter<'_, String>,
    parsed: &mut Parsed,
) -> Result<(), Refusal> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => (text, None),
    };
    let secret = ["password", "filekey", "token"].iter().any(|word| name.ends_with(word));
    let shown_value = |value: &str| if secret { "...".to_string() } else { value.to_string() };
    parsed.shown.push(match &value {
        Some(value) => format!("--{name}={}", shown_value(value)),
        None => format!("--{name}"),
    });
    let mut next = || {
        let value = rest.next()?;
        parsed.shown.push(shown_value(value));
        Some(value.clone())
    };
    match option(name, value, unknown, &mut next)? {
        Taken::Given(given) => parsed.given.push(given),
        Taken::Note(note) => parsed.notes.push(note),
        Taken::Nothing => {}
    }
    Ok(())
}

/// `-Vuroot`: letters, of which one that takes a value takes the rest or the next argument.
fn short(
    letters: &str,
    unknown: Unknown,
    rest: &mut std::slice::Iter<'_, String>,
    parsed: &mut Parsed,
) -> Result<(), Refusal> {
    let mut shown = "-".to_string();
    let mut chars = letters.chars();
    while let Some(letter) = chars.next() {
        shown.push(letter);
        let known = table::find_letter(letter).filter(|entry| unknown.admits(entry));
        let Some(entry) = known else {
            if unknown == Unknown::Skip {
                break;
            }
            let message = format!("unknown option '-{letter}'");
            return Err(Refusal::new(status::UNKNOWN_OPTION, message));
        };
        if entry.kind == Kind::Switch {
            parsed.given.push(Given { entry, value: Value::On });
            continue;
        }
        let attached = chars.as_str();
        let value = if attached.is_empty() { rest.next().cloned() } else { Some(attached.into()) };
        let value = value.ok_or_else(|| {
            let message = format!("option '-{letter}' requires an argument");
            Refusal::new(status::ARGUMENT_REQUIRED, message)
        })?;
        if attached.is_empty() {
            shown.push(' ');
        }
        shown.push_str(if entry.name == "password" { "..." } else { &value });
        parsed.given.push(Given { entry, value: checked(entry, &value)? });
        break;
    }
    parsed.shown.push(shown);
    Ok(())
}

/// Reads one option; `next` gives the argument behind it, for an option that needs it.
pub fn option(
    written: &str,
    value: Option<String>,
    unknown: Unknown,
    next: &mut dyn FnMut() -> Option<String>,
) -> Result<Taken, Refusal> {
    let mut normal = written.replace('_', "-");
    if unknown == Unknown::RefuseOlder {
        normal.make_ascii_lowercase();
    }
    let loose = normal.strip_prefix("loose-");
    let name = loose.unwrap_or(&normal);
    if let Some(entry) = table::find(name).filter(|entry| unknown.admits(entry)) {
        return take(entry, written, value, next);
    }
    if let Some(limited) = name.strip_prefix("maximum-").and_then(table::find) {
        let note = format!("--maximum-{} limits what a session may set; ignored", limited.name);
        return Ok(Taken::Note(note));
    }
    if let Some((entry, on)) = prefixed(name).filter(|(entry, _)| unknown.admits(entry)) {
        // The stock tool lets a value of "off" reverse the prefix.
        let reversed = value.as_deref().and_then(boolean) == Some(false);
        let value = if on != reversed { Value::On } else { Value::Off };
        return Ok(Taken::Given(Given { entry, value }));
    }
    match (unknown, loose, value) {
        (Unknown::Skip, ..) => Ok(Taken::Nothing),
        (_, Some(_), _) => Ok(Taken::Note(format!("unknown option '--{written}'"))),
        (_, _, None) => {
            let message = format!("unknown option '--{written}'");
            Err(Refusal::new(status::UNKNOWN_OPTION, message))
        }
        (_, _, Some(value)) => {
            let message = format!("unknown variable '{written}={value}'");
            Err(Refusal::new(status::UNKNOWN_VARIABLE, message))
        }
    }
}

/// `skip-x`, `disable-x` or `enable-x` of a known option, and whether it turns it on.
fn prefixed(name: &str) -> Option<(&'static Entry, bool)> {
    [("skip-", false), ("disable-", false), ("enable-", true)]
        .into_iter()
        .find_map(|(prefix, on)| Some((table::find(name.strip_prefix(prefix)?)?, on)))
}

/// An option that is known, with its value.
fn take(
    entry: &'static Entry,
    written: &str,
    value: Option<String>,
    next: &mut dyn FnMut() -> Option<String>,
) -> Result<Taken, Refusal> {
    let switch = matches!(entry.kind, Kind::Switch | Kind::SwitchOn);
    let optional =
        matches!(entry.kind, Kind::OptionalText | Kind::OptionalNumber | Kind::OptionalWord(_));
    let value = match value {
        Some(text) if switch => match boolean(&text) {
            Some(true) => Value::On,
            Some(false) => Value::Off,
            None => {
                let note = format!("ignoring option '--{written}' due to invalid value '{text}'");
                return Ok(Taken::Note(note));
            }
        },
        Some(text) => checked(entry, &text)?,
        None if switch || optional => Value::On,
        None => {
            let text = next().ok_or_else(|| {
                let message = format!("option '--{written}' requires an argument");
                Refusal::new(status::ARGUMENT_REQUIRED, message)
            })?;
            checked(entry, &text)?
        }
    };
    Ok(Taken::Given(Given { entry, value }))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;

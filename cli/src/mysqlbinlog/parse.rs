//! The option grammar of clients: names may be abbreviated as long as they are unique.

use super::table::{Entry, Kind, TABLE};
use crate::stock::value::{Refusal, Value, boolean, status};

/// An option that was given.
#[derive(Clone, Debug)]
pub struct Given {
    /// Which.
    pub entry: &'static Entry,
    /// Its value.
    pub value: Value,
}

/// What the arguments ask for.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Options in their order.
    pub given: Vec<Given>,
    /// Files.
    pub bare: Vec<String>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// Reads the arguments.
pub fn arguments(program: &str, arguments: &[String]) -> Result<Parsed, Refusal> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            parsed.bare.extend(rest.by_ref().cloned());
        } else if let Some(long) = argument.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let (given, note) = option(program, name, value, &mut || rest.next().cloned())?;
            parsed.given.push(given);
            parsed.notes.extend(note);
        } else if let Some(letters) = argument.strip_prefix('-').filter(|l| !l.is_empty()) {
            short(program, letters, &mut || rest.next().cloned(), &mut parsed)?;
        } else {
            parsed.bare.push(argument.clone());
        }
    }
    Ok(parsed)
}

fn short(
    program: &str,
    letters: &str,
    next: &mut dyn FnMut() -> Option<String>,
    parsed: &mut Parsed,
) -> Result<(), Refusal> {
    let mut chars = letters.chars();
    while let Some(letter) = chars.next() {
        let known = TABLE.iter().find(|entry| entry.letter == letter && letter != ' ');
        let entry = known.ok_or_else(|| {
            Refusal::new(status::UNKNOWN_OPTION, format!("{program}: unknown option '-{letter}'"))
        })?;
        let attached = chars.as_str();
        let value = match entry.kind {
            Kind::Switch | Kind::Count => {
                parsed.given.push(Given { entry, value: Value::On });
                continue;
            }
            Kind::OptionalText if attached.is_empty() => Value::On,
            Kind::Text | Kind::Number if attached.is_empty() => {
                Value::Text(next().ok_or_else(|| {
                    Refusal::new(
                        status::ARGUMENT_REQUIRED,
                        format!("{program}: option '-{letter}' requires an argument"),
                    )
                })?)
            }
            _ => Value::Text(attached.to_owned()),
        };
        parsed.given.push(Given { entry, value });
        break;
    }
    Ok(())
}

/// Reads one long option; `next` gives the argument behind it. Also a remark, if there is one.
pub fn option(
    program: &str,
    written: &str,
    value: Option<String>,
    next: &mut dyn FnMut() -> Option<String>,
) -> Result<(Given, Option<String>), Refusal> {
    let name = written.replace('_', "-");
    let name = name.strip_prefix("loose-").unwrap_or(&name);
    let exact = |name: &str| TABLE.iter().find(|entry| entry.name == name);
    let turned = [("skip-", false), ("disable-", false), ("enable-", true)];
    let (entry, on, note) = if let Some(entry) = exact(name) {
        (entry, true, None)
    } else if let Some((entry, on)) =
        turned.iter().find_map(|(prefix, on)| Some((exact(name.strip_prefix(prefix)?)?, *on)))
    {
        (entry, on, None)
    } else {
        let (entry, on) = abbreviated(program, name, written, value.as_deref())?;
        let note = format!(
            "Info: Using unique option prefix '{written}' is error-prone and can break in the \
             future. Please use the full name '{}' instead.",
            entry.name
        );
        (entry, on, Some(note))
    };
    let is_switch = matches!(entry.kind, Kind::Switch | Kind::Count);
    let value = match value {
        Some(text) if is_switch => match boolean(&text) {
            Some(wanted) if wanted == on => Value::On,
            Some(_) => Value::Off,
            None => {
                let message = format!("{program}: option '--{written}' cannot take an argument");
                return Err(Refusal::new(status::NO_ARGUMENT, message));
            }
        },
        Some(text) => Value::Text(text),
        None if !on => Value::Off,
        None if is_switch || entry.kind == Kind::OptionalText => Value::On,
        None => Value::Text(next().ok_or_else(|| {
            Refusal::new(
                status::ARGUMENT_REQUIRED,
                format!("{program}: option '--{written}' requires an argument"),
            )
        })?),
    };
    Ok((Given { entry, value }, note))
}

/// The option that a beginning of a name means, and whether it is turned on.
fn abbreviated(
    program: &str,
    name: &str,
    written: &str,
    value: Option<&str>,
) -> Result<(&'static Entry, bool), Refusal> {
    let begins = |name: &str| -> Vec<&'static Entry> {
        TABLE.iter().filter(|entry| !name.is_empty() && entry.name.starts_with(name)).collect()
    };
    let mut on = true;
    let mut found = begins(name);
    for (prefix, turns_on) in [("skip-", false), ("disable-", false), ("enable-", true)] {
        if let Some(stem) = name.strip_prefix(prefix).filter(|_| found.is_empty()) {
            (found, on) = (begins(stem), turns_on);
        }
    }
    match (found.as_slice(), value) {
        ([entry], _) => Ok((entry, on)),
        ([], None) => Err(Refusal::new(
            status::UNKNOWN_OPTION,
            format!("{program}: unknown option '--{written}'"),
        )),
        ([], Some(value)) => Err(Refusal::new(
            status::UNKNOWN_VARIABLE,
            format!("{program}: unknown variable '{written}={value}'"),
        )),
        (several, _) => Err(Refusal::new(
            status::AMBIGUOUS,
            format!(
                "{program}: ambiguous option '--{written}' ({})",
                several.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(line: &str) -> Result<Parsed, Refusal> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        super::arguments("tool", &arguments)
    }

    #[test]
    fn spellings() {
        let parsed = parse("-vvj 4 --stop_position=9 --skip-gtid-strict-mode --verb a b").unwrap();
        let given: Vec<_> =
            parsed.given.iter().map(|given| (given.entry.name, given.value.clone())).collect();
        let text = |text: &str| Value::Text(text.to_owned());
        let expected = [
            ("verbose", Value::On),
            ("verbose", Value::On),
            ("start-position", text("4")),
            ("stop-position", text("9")),
            ("gtid-strict-mode", Value::Off),
            ("verbose", Value::On),
        ];
        assert_eq!(given, expected);
        assert_eq!(parsed.bare, ["a", "b"]);
        assert_eq!(parsed.notes.len(), 1);
    }

    #[test]
    fn refusals() {
        for (line, status, words) in [
            ("--bogus", 2, "unknown option '--bogus'"),
            ("--bogus=1", 7, "unknown variable 'bogus=1'"),
            ("-Z", 2, "unknown option '-Z'"),
            ("--start", 3, "ambiguous option"),
            ("-j", 5, "requires an argument"),
            ("--hexdump=what", 4, "cannot take an argument"),
        ] {
            let refusal = parse(line).unwrap_err();
            assert_eq!(refusal.status, status, "{line}");
            assert!(refusal.message.contains(words), "{line}: {}", refusal.message);
        }
    }
}

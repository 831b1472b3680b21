//! Values of stock options: switches, numbers with suffixes, words of a list.

use super::table::{Entry, Kind};

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A switch that is on, or an option whose value was left out.
    On,
    /// A switch that is off, or any option taken back with `--skip-`.
    Off,
    /// A text or a word.
    Text(String),
    /// A number.
    Number(u64),
}

/// Why a request was refused, with the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Exit status.
    pub status: u8,
    /// What standard error says, after the program's name.
    pub message: String,
}

impl Refusal {
    /// A refusal with this status.
    pub fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// Something that went wrong, in the words of the stock clients.
    pub fn error(message: impl std::fmt::Display) -> Self {
        Self::new(status::FAILED, format!("ERROR: {message}"))
    }
}

/// Exit statuses of the option parser of the stock tools.
pub mod status {
    /// Anything that is no matter of the grammar.
    pub const FAILED: u8 = 1;
    /// Unknown option without value.
    pub const UNKNOWN_OPTION: u8 = 2;
    /// An abbreviation of several options.
    pub const AMBIGUOUS: u8 = 3;
    /// An argument for an option that takes none.
    pub const NO_ARGUMENT: u8 = 4;
    /// An option misses its argument.
    pub const ARGUMENT_REQUIRED: u8 = 5;
    /// Unknown option with value.
    pub const UNKNOWN_VARIABLE: u8 = 7;
    /// A number with a suffix that is none.
    pub const UNKNOWN_SUFFIX: u8 = 9;
    /// A value out of range, or a word that is not one of the known.
    pub const INVALID_VALUE: u8 = 13;
}

/// On or off, in the spellings that the server knows.
pub fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "true" => Some(true),
        "0" | "off" | "false" => Some(false),
        _ => None,
    }
}

/// A text as the value that its option's kind wants.
pub fn checked(entry: &Entry, text: &str) -> Result<Value, Refusal> {
    let invalid = |(status, why): (u8, String)| {
        let separator = if why.is_empty() { "" } else { ": " };
        let message = format!("Error while setting value '{text}' to '{}'", entry.name);
        Refusal::new(status, format!("{message}{separator}{why}"))
    };
    match entry.kind {
        Kind::Number | Kind::OptionalNumber => number(text).map(Value::Number).map_err(invalid),
        Kind::Word(words) | Kind::OptionalWord(words) => words
            .iter()
            .position(|word| word.eq_ignore_ascii_case(text))
            .or_else(|| text.parse().ok())
            .and_then(|index| words.get(index))
            .map(|word| Value::Text((*word).to_string()))
            .ok_or_else(|| invalid((status::INVALID_VALUE, String::new()))),
        _ => Ok(Value::Text(text.to_string())),
    }
}

/// A number with a suffix. An empty text is zero, as in the stock tool.
fn number(text: &str) -> Result<u64, (u8, String)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    if text.is_empty() {
        return Ok(0);
    }
    if text.starts_with('-') {
        return Err((status::INVALID_VALUE, "a negative number".to_string()));
    }
    let mut letters = suffix.chars();
    let shift = match (letters.next(), letters.next()) {
        (None, _) => Some(0),
        (Some(letter), None) => {
            "kmgtpe".find(letter.to_ascii_lowercase()).map(|power| (power as u32 + 1) * 10)
        }
        _ => None,
    };
    let Some(shift) = shift.filter(|_| digits > 0) else {
        let letter = suffix.chars().next().unwrap_or_default();
        let why = format!("unknown suffix '{letter}'; legal suffixes are K, M, G, T, P, E");
        return Err((status::UNKNOWN_SUFFIX, why));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| (status::INVALID_VALUE, "the number is too large".to_string()))
}

//! What ends otherwise with ours than with the stock tools: tables in `docs/compatibility.md`, which
//! runs check.

use std::collections::BTreeMap;

use anyhow::ensure;
use harness::Result;

const DOCUMENT: &str = include_str!("../../docs/compatibility.md");
/// Where tests are that cannot pass.
pub const TESTS: &str = "## MariaDB's own tests";
/// Where logs are whose text differs.
pub const LOGS: &str = "## MariaDB's own logs";
/// In the column of servers: on each of them.
const EVERYWHERE: &str = "all";

/// Names of tests or logs, each with the reason.
pub type Expected = BTreeMap<&'static str, &'static str>;

/// What a section has for a server of this series.
pub fn on(section: &str, series: &str) -> Result<Expected> {
    of(DOCUMENT, section, series)
}

fn of<'a>(document: &'a str, section: &str, series: &str) -> Result<BTreeMap<&'a str, &'a str>> {
    let section = document.split(section).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut expected = BTreeMap::new();
    for line in section.lines() {
        let Some(row) = line.strip_prefix("| `") else { continue };
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        let [name, servers, why] = cells[..] else {
            anyhow::bail!("this row of docs/compatibility.md cannot be read: {line}");
        };
        ensure!(!why.is_empty(), "docs/compatibility.md does not say why: {line}");
        if servers == EVERYWHERE || servers.split(", ").any(|server| server == series) {
            expected.insert(name.trim_end_matches('`'), why);
        }
    }
    Ok(expected)
}

/// The test of a name with its combination.
pub fn test_of(name: &str) -> &str {
    name.split_whitespace().next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_table() -> Result<()> {
        let text = format!(
            "| `other` | all | x |\n{TESTS}\n| test | on | why |\n|---|---|---|\n\
             | `a` | all | one |\n| `b` | 10.11, 11.8 | two |\n## Next\n| `c` | all | x |\n"
        );
        assert_eq!(of(&text, TESTS, "10.11")?, BTreeMap::from([("a", "one"), ("b", "two")]));
        assert_eq!(of(&text, TESTS, "10.5")?, BTreeMap::from([("a", "one")]));
        assert!(of(&format!("{TESTS}\n| `a` | all |\n"), TESTS, "10.5").is_err());
        assert!(!on(TESTS, "10.11")?.is_empty() && !on(LOGS, "11.8")?.is_empty());
        assert_eq!(test_of("xbstream '16k'"), "xbstream");
        Ok(())
    }
}

//! Which tests cannot pass with ours: the table in `docs/compatibility.md`, which a run checks.

use std::collections::BTreeMap;

use anyhow::ensure;
use harness::Result;

const DOCUMENT: &str = include_str!("../../../docs/compatibility.md");
const SECTION: &str = "## MariaDB's own tests";
/// In the column of servers: on each of them.
const EVERYWHERE: &str = "all";

/// Tests by name, each with the reason.
pub type Expected = BTreeMap<&'static str, &'static str>;

/// The tests that cannot pass on a server of this series.
pub fn on(series: &str) -> Result<Expected> {
    of(DOCUMENT, series)
}

fn of<'a>(document: &'a str, series: &str) -> Result<BTreeMap<&'a str, &'a str>> {
    let section = document.split(SECTION).nth(1).unwrap_or_default();
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
            "| `other` | all | x |\n{SECTION}\n| test | on | why |\n|---|---|---|\n\
             | `a` | all | one |\n| `b` | 10.11, 11.8 | two |\n## Next\n| `c` | all | x |\n"
        );
        assert_eq!(of(&text, "10.11")?, BTreeMap::from([("a", "one"), ("b", "two")]));
        assert_eq!(of(&text, "10.5")?, BTreeMap::from([("a", "one")]));
        assert!(of(&format!("{SECTION}\n| `a` | all |\n"), "10.5").is_err());
        assert!(!on("10.11")?.is_empty());
        assert_eq!(test_of("xbstream '16k'"), "xbstream");
        Ok(())
    }
}

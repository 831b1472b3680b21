//! Words about tables that need more than the backup.

use engine::capture::TableNeed;

/// So many tables with the same needs are named; programs find all of them in the document.
const NAMED: usize = 10;

/// A line for each kind of need, with the tables that have it.
pub fn needs_words(tables: &[TableNeed]) -> Vec<String> {
    let mut groups: Vec<(&TableNeed, Vec<String>)> = Vec::new();
    for table in tables {
        let name = printable(&format!("{}.{}", table.database, table.table));
        let same = groups
            .iter_mut()
            .find(|(first, _)| (&first.engine, &first.needs) == (&table.engine, &table.needs));
        match same {
            Some((_, names)) => names.push(name),
            None => groups.push((table, vec![name])),
        }
    }
    groups.into_iter().map(|(first, names)| line(first, &names)).collect()
}

fn line(table: &TableNeed, names: &[String]) -> String {
    let named = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} {named}{more}: {}.", printable(&table.engine), printable(&table.needs))
}

/// Names come from the server and end on terminals.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_with_the_same_needs_share_a_line() {
        let table = |number: u32, needs: &str| TableNeed {
            database: "d".into(),
            table: format!("t\x1b{number}"),
            engine: "SPIDER".into(),
            needs: needs.into(),
        };
        let mut tables: Vec<_> = (0..12).map(|number| table(number, "all of it")).collect();
        tables.insert(3, table(99, "nothing"));
        let words = needs_words(&tables);
        assert_eq!(words.len(), 2);
        assert!(words[0].starts_with("SPIDER d.t?0, d.t?1, ") && words[0].contains(" and 2 more"));
        assert!(words[0].ends_with(": all of it."), "{words:?}");
        assert_eq!(words[1], "SPIDER d.t?99: nothing.");
    }
}

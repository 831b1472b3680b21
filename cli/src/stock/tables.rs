//! Which tables the stock tool's options choose.

use std::path::Path;

use engine::table_filter::TableFilter;
use engine::{Error, ErrorKind, Result};

use super::settings::Settings;

/// Longest list that is read from a file.
const LIST_SIZE_MAX: u64 = 64 << 20;

/// The filter that the options make.
pub fn filter(settings: &Settings) -> Result<TableFilter> {
    let mut filter = TableFilter::default();
    for pattern in listed(settings.text("tables"), &[',']) {
        filter.choose_matching(pattern)?;
    }
    for pattern in listed(settings.text("tables-exclude"), &[',']) {
        filter.exclude_matching(pattern)?;
    }
    for name in listed(settings.text("databases"), &[' ', '\t']) {
        filter.choose_in_databases(name)?;
    }
    for name in listed(settings.text("databases-exclude"), &[' ', '\t']) {
        filter.exclude(name)?;
    }
    if let Some(file) = settings.path("databases-file") {
        for name in lines(&read(&file)?) {
            filter.choose_in_databases(name)?;
        }
    }
    if let Some(file) = settings.path("tables-file") {
        for name in lines(&read(&file)?) {
            filter.choose_table(name)?;
        }
    }
    Ok(filter)
}

fn listed<'a>(text: Option<&'a str>, separators: &'a [char]) -> impl Iterator<Item = &'a str> {
    text.unwrap_or_default().split(separators).filter(|part| !part.is_empty())
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty())
}

fn read(file: &Path) -> Result<String> {
    let size = std::fs::metadata(file).map_err(|e| Error::io("open", file, e))?.len();
    if size > LIST_SIZE_MAX {
        let message = format!("{} is too long for a list of tables", file.display());
        return Err(Error::new(ErrorKind::Usage, message));
    }
    std::fs::read_to_string(file).map_err(|e| Error::io("read", file, e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::parse::arguments;
    use super::*;

    fn chosen(line: &[&str]) -> Result<Vec<&'static str>> {
        let line: Vec<String> = line.iter().map(|word| (*word).to_string()).collect();
        let filter = filter(&Settings::typed(arguments(&line).unwrap().given))?;
        let files = ["ibdata1", "a/t.ibd", "a/u.ibd", "b/t.ibd", "c/t.ibd"];
        Ok(files.into_iter().filter(|file| filter.keeps(file.as_bytes())).collect())
    }

    #[test]
    fn lists_and_files_of_lists() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_string_lossy().into_owned()
        };
        let tables = format!("--tables-file={}", file("t", "a.u\nb.t"));
        let databases = format!("--databases-file={}", file("d", "b\na.t\n"));
        for (line, files) in [
            (vec![], vec!["ibdata1", "a/t.ibd", "a/u.ibd", "b/t.ibd", "c/t.ibd"]),
            (vec!["--tables=^a[.]u,^c"], vec!["ibdata1", "a/u.ibd", "c/t.ibd"]),
            (vec!["--tables-exclude=t$"], vec!["ibdata1", "a/u.ibd"]),
            (vec!["--databases=b  a.u"], vec!["ibdata1", "a/u.ibd", "b/t.ibd"]),
            (vec!["--databases-exclude=b\tc"], vec!["ibdata1", "a/t.ibd", "a/u.ibd"]),
            (vec![&tables], vec!["ibdata1", "a/u.ibd", "b/t.ibd"]),
            (vec![&databases], vec!["ibdata1", "a/t.ibd", "b/t.ibd"]),
        ] {
            assert_eq!(chosen(&line).unwrap(), files, "{line:?}");
        }
        let bad = format!("--tables-file={}", file("x", "database\n"));
        assert!(chosen(&[&bad]).unwrap_err().to_string().contains("database"));
        assert!(chosen(&["--tables-file=/nowhere"]).is_err());
    }
}

//! Tests of the option file reader.
#![allow(clippy::unwrap_used)]

use std::fs;

use proptest::prelude::*;

use super::*;

fn pairs(text: &str, groups: &[&str]) -> Vec<(String, Option<String>)> {
    let files = OptionFiles::from_text(text).unwrap();
    files.options(groups).into_iter().map(|o| (o.name, o.value)).collect()
}

fn one(line: &str) -> (String, Option<String>) {
    pairs(&format!("[g]\n{line}\n"), &["g"]).remove(0)
}

fn is(name: &str, value: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(value.to_owned()))
}

#[test]
fn forms_of_an_option() {
    assert_eq!(one("a=b"), is("a", "b"));
    assert_eq!(one("  a_b-c  =  d e  "), is("a-b-c", "d e"));
    assert_eq!(one("bare"), ("bare".to_owned(), None));
    assert_eq!(one("a="), is("a", ""));
    assert_eq!(one("a=b=c"), is("a", "b=c"));
    assert_eq!(one("loose_x=1"), is("x", "1"));
    assert_eq!(one("skip-ssl"), is("ssl", "0"));
    assert_eq!(one("loose-disable-x"), is("x", "0"));
    assert_eq!(one("enable-x"), is("x", "1"));
}

#[test]
fn quotes_comments_and_escapes() {
    assert_eq!(one("p='a # b' # c"), is("p", "a # b"));
    assert_eq!(one("p=\"it's\""), is("p", "it's"));
    assert_eq!(one("p=a#b"), is("p", "a"));
    assert_eq!(one(r"p='a\'b\\c\sd\qe'"), is("p", r"a'b\c d\qe"));
    assert_eq!(one(r"p=C:\new"), is("p", "C:\new"));
    assert_eq!(one("p='open"), is("p", "'open"));
    assert_eq!(one("p=end\\"), is("p", "end\\"));
}

#[test]
fn later_wins_and_suffix_groups_are_read() {
    let mut files = OptionFiles::from_text("[g]\nx=1\n[g2]\nx=2\n[h]\nx=3\n[g]\nx-y=4\n").unwrap();
    assert_eq!(files.last(&["g"], "x").unwrap().value.as_deref(), Some("1"));
    assert_eq!(files.last(&["g"], "x_y").unwrap().value.as_deref(), Some("4"));
    files.group_suffix = Some("2".to_owned());
    assert_eq!(files.last(&["g"], "x").unwrap().value.as_deref(), Some("2"));
}

#[test]
fn broken_lines_are_refused_by_line() {
    for (text, line) in [("x=1\n", 1), ("[g\n", 1), ("[g]\n=1\n", 2), ("[g]\n\n!bogus x\n", 3)] {
        let error = OptionFiles::from_text(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(&format!(":{line}: ")), "{error}");
    }
}

#[test]
fn includes_are_followed_in_sorted_order() {
    let dir = tempfile::tempdir().unwrap();
    let parts = dir.path().join("parts");
    fs::create_dir(&parts).unwrap();
    fs::write(parts.join("20.cnf"), "[g]\nx=20\n").unwrap();
    fs::write(parts.join("10.cnf"), "[g]\nx=10\n").unwrap();
    fs::write(parts.join("99.cnf.bak"), "[g]\nx=99\n").unwrap();
    let extra = dir.path().join("extra.cnf");
    fs::write(&extra, "[g]\nx=5\ny=from-extra\n").unwrap();
    let main = dir.path().join("my.cnf");
    let text = format!(
        "[g]\nx=1\n!include {}\n!include {}/absent.cnf\n!includedir {}\n",
        extra.display(),
        dir.path().display(),
        parts.display()
    );
    fs::write(&main, text).unwrap();
    let choice = DefaultsChoice { file: Some(main), ..Default::default() };
    let files = OptionFiles::load(&choice).unwrap();
    let x: Vec<_> = files.options(&["g"]).into_iter().filter(|o| o.name == "x").collect();
    let values: Vec<_> = x.iter().filter_map(|o| o.value.as_deref()).collect();
    assert_eq!(values, ["1", "5", "10", "20"]);
    assert!(x.last().unwrap().origin.to_string().ends_with("20.cnf:2"));
}

#[test]
fn endless_include_ends() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("my.cnf");
    fs::write(&main, format!("!include {}\n", main.display())).unwrap();
    let choice = DefaultsChoice { file: Some(main), ..Default::default() };
    assert!(OptionFiles::load(&choice).unwrap_err().to_string().contains("too deeply"));
}

#[test]
fn file_that_anybody_may_write_is_not_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("my.cnf");
    fs::write(&main, "[g]\nx=1\n").unwrap();
    fs::set_permissions(&main, fs::Permissions::from_mode(0o666)).unwrap();
    let choice = DefaultsChoice { file: Some(main), ..Default::default() };
    let files = OptionFiles::load(&choice).unwrap();
    assert!(files.options(&["g"]).is_empty());
    assert_eq!(files.warnings().len(), 1);
}

#[test]
fn oversized_and_missing_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("my.cnf");
    let choice = DefaultsChoice { file: Some(main.clone()), ..Default::default() };
    assert!(OptionFiles::load(&choice).unwrap_err().to_string().contains("my.cnf"));
    fs::write(&main, vec![b'#'; FILE_SIZE_MAX as usize + 1]).unwrap();
    assert!(OptionFiles::load(&choice).is_err());
    let nothing = DefaultsChoice { no_defaults: true, ..choice };
    assert!(OptionFiles::load(&nothing).unwrap().entries.is_empty());
}

#[test]
fn user_file_comes_after_the_extra_file() {
    let home = tempfile::tempdir().unwrap();
    let extra = home.path().join("extra.cnf");
    fs::write(&extra, "[haulout-test]\nx=extra\n").unwrap();
    fs::write(home.path().join(USER_FILE), "[haulout-test]\nx=user\n").unwrap();
    let choice = DefaultsChoice { extra_file: Some(extra), ..Default::default() };
    let files = OptionFiles::load_with_home(&choice, Some(home.path())).unwrap();
    assert_eq!(files.last(&["haulout-test"], "x").unwrap().value.as_deref(), Some("user"));
}

#[test]
fn values_are_not_shown_by_debug() {
    let files = OptionFiles::from_text("[client]\npassword=geheim\n").unwrap();
    assert!(!format!("{files:?}").contains("geheim"));
}

#[test]
fn sizes() {
    assert_eq!(parse_size("16M"), Some(16 << 20));
    assert_eq!(parse_size("3"), Some(3));
    assert_eq!(parse_size("1e"), Some(1 << 60));
    for bad in ["", "M", "1x", "-1", "99999999999E", "1KK", "é"] {
        assert_eq!(parse_size(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut reader = Reader { include_allowed: false, ..Reader::default() };
        let _ = reader.parse(Path::new("x"), &bytes, 0);
    }

    #[test]
    fn quoted_values_survive(value in "[ -~]{0,40}") {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        prop_assert_eq!(one(&format!("p='{quoted}'")), is("p", &value));
    }
}

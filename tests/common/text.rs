//! The text of both tools, compared.

use std::path::PathBuf;

use harness::{Generation, Result, Scratch};

/// The face of `mariadb-binlog`, under its name.
pub fn face(scratch: &Scratch) -> Result<PathBuf> {
    let link = scratch.join("mariadb-binlog");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_haulout"), &link)?;
    Ok(link)
}

/// The stock tool sets a variable that servers before 10.11 do not have, and so refuse the text.
pub fn without_unknown(text: Vec<u8>, generation: Generation) -> Vec<u8> {
    const UNKNOWN: &[u8] = b", @@session.system_versioning_insert_history=0";
    if generation >= Generation::V10_11 {
        return text;
    }
    let mut rest = text.as_slice();
    let mut without = Vec::with_capacity(text.len());
    while let Some(at) = rest.windows(UNKNOWN.len()).position(|part| part == UNKNOWN) {
        without.extend_from_slice(&rest[..at]);
        rest = &rest[at + UNKNOWN.len()..];
    }
    without.extend_from_slice(rest);
    without
}

/// The first lines that differ.
pub fn difference(theirs: &[u8], ours: &[u8]) -> String {
    let lines = |text: &[u8]| -> Vec<String> {
        text.split(|byte| *byte == b'\n')
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect()
    };
    let (theirs, ours) = (lines(theirs), lines(ours));
    let at = theirs.iter().zip(&ours).take_while(|(one, other)| one == other).count();
    let show = |lines: &[String]| lines.iter().skip(at).take(3).cloned().collect::<Vec<_>>();
    format!("line {at}: stock {:#?}, ours {:#?}", show(&theirs), show(&ours))
}

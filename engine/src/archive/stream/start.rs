//! Which file of a server a stream begins with.
//!
//! The last one that the archive has of it; of a server that the archive does not know yet, the last one
//! that begins with transactions that are all there.
//!
//! A server is asked as replicas ask: for files, by their names. Where commits wait for an acknowledgement
//! (`rpl_semi_sync_master_wait_point=AFTER_SYNC`), two of them are enough that it answers SHOW BINARY LOGS,
//! and SHOW MASTER STATUS, only when they have it; and it is the stream that they wait for.

use super::StreamOptions;
use crate::archive::Archive;
use crate::archive::arriving::{Identified, identify};
use crate::archive::catalog::File;
use crate::archive::gaps::{Missing, between};
use crate::archive::layout::number_of;
use crate::server::feed::Wanted;
use crate::{Error, ErrorKind, Reporter, Result};

/// Servers number their files up to here; who says more is not asked for ever.
const GREATEST: u64 = i32::MAX as u64;

/// Where a stream begins.
pub(super) struct First {
    /// The file.
    pub name: String,
    /// What was logged before it and is neither in the archive nor at the server.
    pub missing: Vec<Missing>,
}

impl From<String> for First {
    fn from(name: String) -> Self {
        Self { name, missing: Vec::new() }
    }
}

/// The file to begin with.
pub(super) fn first_file(
    archive: &Archive<'_>,
    server: u32,
    options: &StreamOptions,
    wanted: &Wanted<'_>,
    reporter: &dyn Reporter,
) -> Result<First> {
    let ask = |name: &str| identify(&options.connect, wanted, name);
    let latest = |file: &&File| file.parts.first().map_or(0, |part| part.head.about.created);
    let known = archive.files().filter(|file| file.server == server);
    let known = known.max_by_key(|file| (latest(file), file.number));
    if let Some(last) = known
        && ask(&last.name)?.is_some_and(|there| there.identity == last.identity)
    {
        return Ok(last.name.clone().into());
    }
    let first = ask("")?.ok_or_else(|| Error::new(ErrorKind::Server, "the server has no logs"))?;
    // A log whose files were purged goes on; one that has the same names again does not.
    if let Some(last) = known
        && number_of(&first.name)? <= last.number
    {
        if options.accept_new_server {
            return Ok(first.name.into());
        }
        return Err(Error::new(
            ErrorKind::Usage,
            format!(
                "server {server} has another {} than the archive: it was reset or restored, or is \
                 another one",
                last.name
            ),
        )
        .advise("if this is meant, say --accept-new-server once"));
    }
    if archive.logs.is_empty() {
        return Ok(first.name.into());
    }
    let mut all = binlog::GtidState::default();
    for gtid in archive.files().filter_map(File::after).flat_map(|after| after.entries()) {
        if !all.covers(*gtid) {
            all.record(*gtid);
        }
    }
    if let Some(name) = last_of(&first, &ask, |file| all.includes(&file.before))? {
        return Ok(name.into());
    }
    let missing = between(&all, &first.before);
    let words: Vec<String> = missing.iter().map(Missing::to_string).collect();
    reporter.warn(format!(
        "the server has purged what follows the archive: there will be a gap before {}, missing: {}; \
         take a backup",
        first.name,
        words.join(", ")
    ));
    Ok(First { name: first.name, missing })
}

/// The last file that fits. Their numbers are without holes: the first ones are purged, or none.
fn last_of(
    first: &Identified,
    ask: &dyn Fn(&str) -> Result<Option<Identified>>,
    fits: impl Fn(&Identified) -> bool,
) -> Result<Option<String>> {
    let begin = number_of(&first.name)?;
    let base = first.name.rsplit_once('.').map_or("", |(base, _)| base);
    let at = |number: u64| ask(&format!("{base}.{number:06}"));
    // The number behind the last: twice as far each time, then in halves.
    let (mut there, mut step) = (begin, 1);
    while there <= GREATEST && at(there + step)?.is_some() {
        there += step;
        step *= 2;
    }
    let mut absent = there.saturating_add(step);
    while absent - there > 1 {
        let middle = there + (absent - there) / 2;
        if at(middle)?.is_some() { there = middle } else { absent = middle }
    }
    for number in (begin..=there).rev() {
        // One that was purged meanwhile does not fit.
        if let Some(file) = at(number)?.filter(&fits) {
            return Ok(Some(file.name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;

    use super::*;

    fn file(number: u64) -> Identified {
        Identified {
            name: format!("bin.{number:06}"),
            server: 1,
            before: binlog::GtidState::default(),
            identity: String::new(),
        }
    }

    #[test]
    fn a_server_that_has_every_file_is_not_asked_for_ever() {
        for begin in [1, GREATEST + 1, u64::MAX] {
            let asked = Cell::new(0);
            let ask = |name: &str| {
                asked.set(asked.get() + 1);
                Ok(Some(file(number_of(name)?)))
            };
            assert!(last_of(&file(begin), &ask, |_| true).unwrap().is_some());
            assert!(asked.get() < 100, "{begin}: {}", asked.get());
        }
    }

    #[test]
    fn the_last_file_that_fits_is_found_with_few_questions() {
        for (begin, end) in [(1_u64, 1), (1, 2), (3, 9), (999_990, 1_000_020), (7, 3000)] {
            for last in [begin, end, (begin + end) / 2, end.saturating_sub(2).max(begin)] {
                let asked = Cell::new(0);
                let ask = |name: &str| {
                    asked.set(asked.get() + 1);
                    let number = number_of(name)?;
                    Ok((begin..=end).contains(&number).then(|| file(number)))
                };
                let fits = |file: &Identified| number_of(&file.name).unwrap() <= last;
                let found = last_of(&file(begin), &ask, fits).unwrap();
                assert_eq!(found, Some(file(last).name), "{begin} to {end}, {last}");
                assert!(asked.get() < 30 + (end - last), "{begin} to {end}, {last}");
                assert_eq!(last_of(&file(begin), &ask, |_| false).unwrap(), None);
            }
        }
    }
}

//! Ways through catalogs that are made up.

#![allow(clippy::unwrap_used)]

use binlog::BinlogPosition;

use super::super::canned::{Canned, repository};
use super::*;
use crate::replay::archived::ArchivedLogs;
use crate::replay::plan::Anchor;
use crate::replay::target::Target;
use crate::repo::Repository;

#[test]
fn a_log_is_entered_where_nothing_is_left_out() {
    let begins = |before: &str, position: &str| {
        begins_by(&before.parse().unwrap(), &position.parse().unwrap())
    };
    assert!(begins("", "") && begins("", "0-1-5"));
    assert!(begins("0-1-5", "0-1-5") && begins("0-1-5", "0-1-7") && begins("0-1-5", "0-2-9"));
    assert!(!begins("0-1-5", "") && !begins("0-1-5", "0-1-4") && !begins("0-1-5", "1-1-9"));
    // 0-1-5 was not the last one of its domain.
    assert!(!begins("0-1-5,0-2-6", "0-1-5"));
    assert!(begins("0-2-6,0-1-5", "0-1-5"));
}

#[test]
fn what_was_there_is_left_out() {
    let mut skipper =
        Skipper::new(&"0-1-5,2-1-1,3-1-4".parse().unwrap(), &"3-1-4,0-1-1".parse().unwrap());
    let mut leaves = |gtid: &str| skipper.leaves_out(gtid.parse().unwrap());
    assert!(leaves("0-1-4") && leaves("0-2-5") && leaves("0-1-5"));
    assert!(!leaves("0-1-6") && !leaves("0-2-4") && !leaves("1-1-1"));
    // A hole: the position itself is not in the log.
    assert!(!leaves("2-1-2"));
    // The log was entered right behind what was there.
    assert!(!leaves("3-2-5"));
    assert_eq!(skipper.awaited(), None);
    // What was there never comes.
    let mut skipper = Skipper::new(&"0-9-500,1-1-1".parse().unwrap(), &GtidState::default());
    assert!(skipper.leaves_out("0-1-1".parse().unwrap()));
    assert_eq!(skipper.awaited(), Some("0-9-500".parse().unwrap()));
}
/// Puts the log of a server: names of files, what was logged before them, and their transactions, each a
/// second after the one before, from a time on.
fn log(repository: &Repository, server: u32, time: u32, files: &[(u32, &str, &[&str])]) {
    let mut epoch = None;
    for (number, before, transactions) in files {
        let name = format!("binlog.{number:06}");
        let file = Canned::new(server, time, &name, before).transactions(transactions);
        epoch = Some(file.store(repository, epoch.as_ref()));
    }
}

/// The way from a backup of server 1.
fn way(repository: &Repository, position: &str, until: &Until) -> Result<Plan> {
    let start = Start {
        position: position.parse().unwrap(),
        place: Some(("binlog.000001".to_owned(), 4)),
        server: Some(1),
        read: None,
        began: None,
    };
    Archive::read(repository, &Cancel::new()).unwrap().plan(&start, until, &Cancel::new())
}

/// Its files, and what is logged behind them.
fn told(plan: &Plan) -> (Vec<String>, String) {
    let name = |step: &Step| format!("{}:{}", step.file.server, step.file.number);
    let after = plan.steps.last().map(|step| step.after.to_string());
    (plan.steps.iter().map(name).collect(), after.unwrap_or_default())
}

#[test]
fn a_log_is_entered_again_behind_a_gap_that_another_one_fills() {
    let (_dir, repository) = repository();
    let first: &[&str] = &["0-1-1", "0-1-2", "0-1-3"];
    let third: &[&str] = &["0-1-7", "0-1-8", "0-1-9"];
    log(&repository, 1, 100, &[(1, "", first), (3, "0-1-6", third), (4, "0-1-9", &["0-1-10"])]);
    let all: Vec<String> = (2..9).map(|sequence| format!("0-1-{sequence}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    log(&repository, 2, 100, &[(1, "0-1-1", &all)]);
    let archive = Archive::read(&repository, &Cancel::new()).unwrap();
    assert_eq!(archive.gaps(&Cancel::new()).unwrap(), []);
    for until in [Until::End, Until::Gtid("0-1-10".parse().unwrap()), Until::Time(110)] {
        // The other log alone begins too late.
        let plan = way(&repository, "", &until).unwrap();
        let files = ["1:1", "2:1", "1:3", "1:4"].map(str::to_owned).to_vec();
        assert_eq!(told(&plan), (files, "0-1-10".to_owned()), "{until:?}");
        assert!(plan.reaches && plan.gap.is_none(), "{until:?}");
        let plan = way(&repository, "0-1-2", &until).unwrap();
        assert_eq!((told(&plan).1.as_str(), plan.reaches), ("0-1-10", true), "{until:?}");
    }
}

#[test]
fn a_gap_that_another_log_fills_in_part_is_one() {
    let (_dir, repository) = repository();
    log(&repository, 1, 100, &[(1, "", &["0-1-1", "0-1-2"]), (3, "0-1-6", &["0-1-7"])]);
    log(&repository, 2, 100, &[(1, "0-1-1", &["0-1-2", "0-1-3", "0-1-4"])]);
    let plan = way(&repository, "", &Until::End).unwrap();
    assert_eq!((told(&plan).1.as_str(), plan.reaches), ("0-1-4", false));
    assert_eq!(plan.gap.unwrap().before, "binlog.000003");
    // Before it all is well.
    let plan = way(&repository, "", &Until::Gtid("0-1-4".parse().unwrap())).unwrap();
    assert!(plan.reaches && plan.gap.is_none());
}

#[test]
fn a_gap_is_one_although_another_history_has_the_same_numbers() {
    let (_dir, repository) = repository();
    log(&repository, 1, 100, &[(1, "", &["0-1-1", "0-1-2"]), (3, "0-1-4", &["0-1-5"])]);
    // The same numbers at other times.
    log(&repository, 2, 50, &[(1, "0-1-1", &["0-1-2", "0-1-3", "0-1-4"])]);
    let archive = Archive::read(&repository, &Cancel::new()).unwrap();
    assert_eq!(archive.gaps(&Cancel::new()).unwrap(), []);
    for until in [Until::End, Until::Time(1000), Until::Gtid("0-1-5".parse().unwrap())] {
        let plan = way(&repository, "", &until).unwrap();
        assert!(!plan.reaches, "{until:?}");
        let gap = plan.gap.unwrap();
        assert_eq!(gap.missing.len(), 1);
        assert_eq!(gap.missing[0].to_string(), "0-1-3 to 4");
    }
}

#[test]
fn the_end_is_not_where_somebody_went_on_without_having_logged_what_was_before() {
    let (_dir, repository) = repository();
    log(&repository, 1, 100, &[(1, "", &["0-1-1", "0-1-2", "0-1-3"])]);
    // A replica without log_slave_updates has taken over.
    log(&repository, 2, 100, &[(1, "", &["0-2-4", "0-2-5"])]);
    for until in [Until::End, Until::Time(1000)] {
        let error = way(&repository, "0-1-1", &until).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gap);
        assert!(error.to_string().contains("0-2-5 of server 2"), "{error}");
    }
    for until in [Until::Gtid("0-1-3".parse().unwrap()), Until::Time(103)] {
        assert!(way(&repository, "0-1-1", &until).unwrap().reaches, "{until:?}");
    }
}

#[test]
fn what_was_written_before_the_end_does_not_move_it() {
    let (_dir, repository) = repository();
    log(&repository, 1, 100, &[(1, "", &["0-1-1", "0-1-2", "0-1-3"])]);
    // The server before it was reset, and what somebody wrote on a replica.
    log(&repository, 1, 10, &[(1, "", &["0-1-20", "0-1-50"])]);
    log(&repository, 2, 100, &[(1, "", &["0-2-1"])]);
    let plan = way(&repository, "0-1-1", &Until::End).unwrap();
    assert_eq!((told(&plan).1.as_str(), plan.reaches), ("0-1-3", true));
}

#[test]
fn what_a_server_wrote_since_it_was_reset_is_behind_the_end() {
    let (_dir, repository) = repository();
    log(&repository, 1, 100, &[(1, "", &["0-1-1", "0-1-2", "0-1-3"])]);
    log(&repository, 1, 1000, &[(1, "", &["0-1-1", "0-1-2"])]);
    let cancel = Cancel::new();
    let archive = Archive::read(&repository, &cancel).unwrap();
    let end = archive.files().map(File::end).max().unwrap();
    let start = Start {
        position: "0-1-3".parse().unwrap(),
        place: Some(("binlog.000001".to_owned(), end)),
        server: Some(1),
        read: None,
        began: None,
    };
    let error = archive.plan(&start, &Until::End, &cancel).unwrap_err();
    assert!(error.to_string().contains("0-1-2 of server 1"), "{error}");
    assert!(archive.plan(&start, &Until::Gtid("0-1-3".parse().unwrap()), &cancel).is_ok());
}

#[test]
fn of_two_logs_the_one_with_more_of_the_same_history_counts() {
    let (_dir, repository) = repository();
    log(&repository, 1, 100, &[(1, "", &["0-1-1", "0-1-2"]), (3, "0-1-4", &["0-1-5"])]);
    // What it has at its beginning is not that of the other.
    log(&repository, 2, 100, &[(1, "", &["0-1-1", "0-1-2", "0-1-3", "0-1-4", "0-1-5", "0-1-6"])]);
    let plan = way(&repository, "0-1-1", &Until::End).unwrap();
    assert_eq!((told(&plan).1.as_str(), plan.reaches), ("0-1-6", true));
}

/// Up to a place in a log, from the backup of server 1 that [`way`] begins at.
fn up_to(repository: &Repository, position: &str, file: &str) -> Result<()> {
    let anchor = Anchor {
        position: BinlogPosition::new("binlog.000001", 4).ok(),
        server: Some(1),
        gtid: position.parse().unwrap(),
        ..Anchor::default()
    };
    let archive = Archive::read(repository, &Cancel::new()).unwrap();
    let target = Target::Position { file: file.to_owned(), offset: 300 };
    ArchivedLogs::open(&archive, (&anchor, Some(1)), &target, &Cancel::new()).map(drop)
}

#[test]
fn a_place_in_a_log_needs_no_end_of_everything() {
    let (_dir, repository) = repository();
    log(&repository, 1, 100, &[(1, "", &["0-1-1", "0-1-2", "0-1-3"])]);
    log(&repository, 2, 100, &[(7, "", &["0-2-4", "0-2-5"])]);
    way(&repository, "0-1-1", &Until::End).unwrap_err();
    up_to(&repository, "0-1-1", "binlog.000001").unwrap();
}

#[test]
fn a_place_in_several_logs_on_the_way_is_none() {
    let (_dir, repository) = repository();
    log(&repository, 1, 100, &[(1, "", &["0-1-1", "0-1-2", "0-1-3"])]);
    // What took over has the same names.
    log(&repository, 2, 100, &[(1, "0-1-3", &["0-2-4"]), (2, "0-1-3,0-2-4", &["0-2-5"])]);
    let error = up_to(&repository, "0-1-1", "binlog.000001").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    up_to(&repository, "0-1-1", "binlog.000002").unwrap();
}

/// A server that was recovered, to before a transaction, goes on with the same numbers.
#[test]
fn after_a_recovery_there_are_two_histories() {
    let cancel = Cancel::new();
    // The new one has fewer transactions than the old one, or more.
    for new in [&["0-1-3"][..], &["0-1-3", "0-1-4", "0-1-5", "0-1-6", "0-1-7"]] {
        let (_dir, repository) = repository();
        let old: &[&str] = &["0-1-1", "0-1-2", "0-1-3", "0-1-4", "0-1-5"];
        log(&repository, 1, 100, &[(1, "", old)]);
        let first = Canned::new(1, 100, "binlog.000001", "");
        let after = |file: &Canned, gtid: &str| {
            let mut file = file.clone();
            file = file.transactions(&[gtid]);
            file.bytes().len() as u64
        };
        // What was replayed has its old times.
        let file = Canned::new(1, 100, "binlog.000001", "0-1-1").transactions(&["0-1-2"]);
        let file = file.begun(1000);
        let later = after(&file, "0-1-3");
        file.transactions(new).store(&repository, None);
        let mut archive = Archive::read(&repository, &cancel).unwrap();
        let start = Start {
            position: "0-1-1".parse().unwrap(),
            place: Some(("binlog.000001".to_owned(), after(&first, "0-1-1"))),
            server: Some(1),
            read: Some(500),
            began: Some(500),
        };
        // Before they part there is nothing to choose.
        for until in [Until::Gtid("0-1-2".parse().unwrap()), Until::Time(103)] {
            archive.plan(&start, &until, &cancel).unwrap();
        }
        for until in [Until::End, Until::Time(2000)] {
            let error = archive.plan(&start, &until, &cancel).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Gap, "{until:?}");
            assert!(error.to_string().contains("was written later"), "{error}");
        }
        let ambiguous = [
            Until::Gtid("0-1-3".parse().unwrap()),
            Until::Time(104),
            Until::Position("binlog.000001".to_owned(), 400),
        ];
        for until in &ambiguous {
            let error = archive.plan(&start, until, &cancel).unwrap_err();
            assert!(error.to_string().contains("two histories"), "{until:?}: {error}");
            assert_eq!(error.kind(), ErrorKind::Usage, "{until:?}");
        }
        let epochs: Vec<_> = archive.logs.iter().map(|log| log.epoch.to_string()).collect();
        for (epoch, last) in epochs.iter().zip(["0-1-5", new[new.len() - 1]]) {
            archive.choose_history(epoch).unwrap();
            let plan = archive.plan(&start, &Until::End, &cancel).unwrap();
            assert_eq!(told(&plan).1, last, "{epoch}");
            for until in &ambiguous {
                assert!(archive.plan(&start, until, &cancel).unwrap().reaches, "{until:?}");
            }
        }
        assert_eq!(archive.choose_history("none").unwrap_err().kind(), ErrorKind::Usage);
        // From a backup that was taken since then only the new one leads on.
        let archive = Archive::read(&repository, &cancel).unwrap();
        let place = Some(("binlog.000001".to_owned(), later));
        let start = Start { position: "0-1-3".parse().unwrap(), read: Some(1500), place, ..start };
        let plan = archive.plan(&start, &Until::End, &cancel).unwrap();
        assert_eq!(told(&plan).1, new[new.len() - 1]);
        let plan = archive.plan(&start, &Until::Gtid("0-1-5".parse().unwrap()), &cancel).unwrap();
        assert_eq!(plan.reaches, new.len() > 1);
    }
}

/// A replica that was made from a backup, later than a gap, says nothing of what was before it.
#[test]
fn a_gap_stays_one_after_a_failover() {
    let (_dir, repository) = repository();
    log(&repository, 1, 100, &[(1, "", &["0-1-1", "0-1-2"]), (3, "0-1-5", &["0-1-6", "0-1-7"])]);
    log(&repository, 2, 100, &[(1, "", &["0-1-7", "0-2-8"])]);
    let archive = Archive::read(&repository, &Cancel::new()).unwrap();
    let gaps = archive.gaps(&Cancel::new()).unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].missing[0].to_string(), "0-1-3 to 5");
    for until in [Until::End, Until::Gtid("0-2-8".parse().unwrap())] {
        let plan = way(&repository, "0-1-1", &until).unwrap();
        assert!(!plan.reaches && plan.gap.is_some(), "{until:?}");
        // Behind the gap all is well.
        let plan = way(&repository, "0-1-6", &until).unwrap();
        assert_eq!((told(&plan).1.as_str(), plan.reaches), ("0-1-7,0-2-8", true), "{until:?}");
    }
}

#[test]
fn a_number_that_nobody_used_is_no_target() {
    let (_dir, repository) = repository();
    log(&repository, 1, 100, &[(1, "", &["0-1-1", "0-1-2", "0-2-3", "0-1-4", "0-2-5"])]);
    for (gtid, is_there) in [("0-2-3", true), ("0-1-4", true), ("0-2-4", false), ("0-1-3", false)] {
        let plan = way(&repository, "0-1-1", &Until::Gtid(gtid.parse().unwrap())).unwrap();
        assert_eq!(plan.reaches, is_there, "{gtid}");
    }
}

#[test]
fn from_the_beginning_on_nothing_is_left_out() {
    for servers in [[1, 2], [2, 1]] {
        let (_dir, repository) = repository();
        log(&repository, servers[0], 100, &[(1, "", &["0-1-1", "0-1-2", "0-1-3"])]);
        log(&repository, servers[1], 100, &[(1, "", &["0-1-2", "0-1-3"])]);
        let archive = Archive::read(&repository, &Cancel::new()).unwrap();
        let plan = archive.plan(&Start::default(), &Until::End, &Cancel::new()).unwrap();
        assert_eq!(plan.steps[0].file.server, servers[0]);
    }
}

/// A backup that was taken right after a recovery, before anybody wrote: all that it has is in both logs.
#[test]
fn from_a_backup_of_the_new_history_the_old_one_does_not_lead_on() {
    let cancel = Cancel::new();
    for is_archived in [true, false] {
        for old_files in [1, 2] {
            let (_dir, repository) = repository();
            let old: &[&str] = &["0-1-1", "0-1-2", "0-1-3", "0-1-4"];
            match old_files {
                1 => log(&repository, 1, 100, &[(1, "", old)]),
                // The file of the same name has expired.
                _ => log(&repository, 1, 100, &[(2, "0-1-1", &old[1..])]),
            }
            let file = Canned::new(1, 100, "binlog.000001", "0-1-1").transactions(&["0-1-2"]);
            let end = file.bytes().len() as u64;
            if is_archived {
                let file = file.begun(1000).transactions(&["0-1-3", "0-1-4"]);
                file.store(&repository, None);
            }
            let archive = Archive::read(&repository, &cancel).unwrap();
            let start = Start {
                position: "0-1-2".parse().unwrap(),
                place: Some(("binlog.000001".to_owned(), end)),
                server: Some(1),
                read: Some(1002),
                began: Some(1002),
            };
            let targets = [Until::End, Until::Gtid("0-1-4".parse().unwrap()), Until::Time(2000)];
            for until in targets {
                match archive.plan(&start, &until, &cancel) {
                    Ok(plan) => {
                        assert!(is_archived, "{until:?}");
                        assert_eq!(plan.steps[0].file.created(), Some(1000), "{until:?}");
                        assert_eq!(told(&plan).1, "0-1-4", "{until:?}");
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Gap, "{until:?}");
                        assert!(!is_archived, "{until:?}: {error}");
                    }
                }
            }
        }
    }
}

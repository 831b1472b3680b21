//! Comparing two prepared directories byte for byte.
//!
//! Two tools that prepare the same raw backup must come to the same bytes. What may differ is
//! listed in [`PERMITTED`], each entry with its reason; everything else is a finding.
//!
//! Pages of page-compressed tablespaces need not have the same bytes: the same page has many
//! images, and which one a library makes is its own affair. Those are equal that hold the same
//! page; how many there were is counted. Encryption is no such excuse: it follows from the page
//! and its key. But the stock tool of 10.5 does not heed the `innodb_encrypt_tables` that it has
//! written down itself (MDEV-33334): it stores pages plain that the server would encrypt.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use innodb::page::verify::is_doublewrite;
use innodb::{PageNo, PageSize};

use crate::stored::{Keys, Space};
use crate::{Generation, Result};

/// Files that may differ between the two tools.
struct Permitted {
    /// Whether a path below the backup directory is meant.
    applies: fn(&str) -> bool,
    /// Why this is no defect.
    #[expect(dead_code, reason = "written for the reader")]
    reason: &'static str,
}

/// The whole list.
const PERMITTED: &[Permitted] = &[
    Permitted {
        applies: |path| path.starts_with(".haulout-"),
        reason: "the temporary file of an atomic replacement that was killed; restore leaves it \
                 out",
    },
    Permitted {
        applies: |path| path == "ib_logfile0",
        reason: "the header names the program that made the file; its other bytes are compared \
                 by the tests of the redo writer",
    },
    Permitted {
        applies: |path| is_aria(path) || path.ends_with(".TMD"),
        reason: "compared by `compare_aria` where both tools have recovered all of Aria's log: \
                 the stock tool of 10.5 never does, and open statements are undone by the one and \
                 left out by the other. The stock tool can leave the temporary file of a repair \
                 behind",
    },
];

/// Everything but what [`compare_aria`] compares.
const NOT_ARIA: &[Permitted] =
    &[Permitted { applies: |path| !is_aria(path), reason: "compared by `compare`" }];

/// Whether a file is one of Aria's: a table or a log.
fn is_aria(path: &str) -> bool {
    path.ends_with(".MAD") || path.ends_with(".MAI") || path.starts_with("aria_log")
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The file is in one directory only.
    OnlyIn {
        /// `left` or `right`.
        side: &'static str,
        /// Path below the directory.
        file: String,
    },
    /// The files have different lengths.
    Length {
        /// Path below the directory.
        file: String,
        /// Bytes on the left.
        left: u64,
        /// Bytes on the right.
        right: u64,
    },
    /// A page, or a block of a file without pages, differs.
    Page {
        /// Path below the directory.
        file: String,
        /// Page number.
        page: u64,
        /// Offsets in the page at which differing runs start, with their lengths.
        runs: Vec<(usize, usize)>,
        /// Page type on the left and on the right.
        page_type: (u16, u16),
        /// Page LSN on the left and on the right.
        lsn: (u64, u64),
    },
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OnlyIn { side, file } => write!(f, "{file}: only on the {side}"),
            Self::Length { file, left, right } => {
                write!(f, "{file}: {left} bytes on the left, {right} on the right")
            }
            Self::Page { file, page, runs, page_type, lsn } => {
                let (count, first) = (runs.len(), &runs[..runs.len().min(6)]);
                write!(
                    f,
                    "{file}: page {page} differs in {count} runs, first {first:?} \
                     (types {page_type:?}, LSNs {lsn:?})"
                )
            }
        }
    }
}

/// What a comparison saw.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Files compared.
    pub files: usize,
    /// Pages of tablespaces compared.
    pub pages: u64,
    /// Of them, pages that hold the same under different bytes: page-compressed ones.
    pub reimaged: u64,
    /// Of them, pages that hold the same, but are not encrypted on the left.
    pub left_plain: u64,
    /// All findings.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// The findings as text, at most 40 of them.
    pub fn report(&self) -> String {
        let lines: Vec<String> =
            self.differences.iter().take(40).map(ToString::to_string).collect();
        format!("{} differences\n{}", self.differences.len(), lines.join("\n"))
    }
}

/// Compares two prepared directories, save what [`PERMITTED`] lists.
pub fn compare(left: &Path, right: &Path, page_size: usize) -> Result<Comparison> {
    let keys = None;
    let excuse = Excuse::Image;
    Comparer { left, right, page_size, permitted: PERMITTED, excuse, keys }.run()
}

/// [`compare`] with the stock tool of `generation` on the left, and with keys to open pages.
pub fn compare_encrypted(
    generation: Generation,
    left: &Path,
    right: &Path,
    page_size: usize,
    keys: Option<&Keys>,
) -> Result<Comparison> {
    let excuse = match generation {
        Generation::V10_5 => Excuse::ImageOrLeftPlain,
        Generation::V10_11 | Generation::V11_8 => Excuse::Image,
    };
    Comparer { left, right, page_size, permitted: PERMITTED, excuse, keys }.run()
}

/// Compares Aria's tables and log, in which nothing may differ. A table is left out that the stock
/// tool, on the left, began to repair and gave up, saying that all is well (seen on 11.8): its
/// temporary file is still there.
pub fn compare_aria(left: &Path, right: &Path) -> Result<Comparison> {
    let (excuse, keys, page_size) = (Excuse::None, None, 8 << 10);
    let mut result =
        Comparer { left, right, page_size, permitted: NOT_ARIA, excuse, keys }.run()?;
    let given_up = |file: &str| left.join(file).with_extension("TMD").exists();
    result.differences.retain(|difference| !given_up(difference.file()));
    let mut kept = Vec::new();
    for difference in result.differences {
        if !is_behind_encrypted_keys(&difference, right, page_size)? {
            kept.push(difference);
        }
    }
    result.differences = kept;
    Ok(result)
}

/// Whether pages of keys of an encrypted table differ only in what is not in use, where the server
/// writes whatever was in its memory.
fn is_behind_encrypted_keys(difference: &Difference, dir: &Path, page_size: usize) -> Result<bool> {
    let Difference::Page { file, page, runs, .. } = difference else { return Ok(false) };
    if !file.ends_with(".MAI") {
        return Ok(false);
    }
    let bytes = std::fs::read(dir.join(file))?;
    let base = number_at(&bytes, 12, 2) as usize;
    let (keys_begin, options) = (number_at(&bytes, base + 16, 8), number_at(&bytes, base + 90, 2));
    let at = *page as usize * page_size;
    if options & 1 == 0 || (at as u64) < keys_begin || at + page_size > bytes.len() {
        return Ok(false);
    }
    let unused = number_at(&bytes[at..], 19, 2) as usize..page_size - 4;
    Ok(runs
        .iter()
        .all(|(start, length)| unused.contains(start) && unused.contains(&(start + length - 1))))
}

impl Difference {
    /// Path of the file below the directories.
    fn file(&self) -> &str {
        match self {
            Self::OnlyIn { file, .. } | Self::Length { file, .. } | Self::Page { file, .. } => file,
        }
    }
}

/// Compares two directories in which nothing may differ.
pub fn compare_raw(left: &Path, right: &Path, page_size: usize) -> Result<Comparison> {
    let (permitted, excuse, keys) = (&[], Excuse::None, None);
    Comparer { left, right, page_size, permitted, excuse, keys }.run()
}

/// Has the server's own checker look at every page of the tablespaces below `dir`, and returns
/// its complaints, a line each.
pub fn innochecksum(generation: Generation, dir: &Path, page_size: usize) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for file in files_below(dir)?.iter().filter(|file| is_tablespace(file)) {
        let pages = std::fs::metadata(dir.join(file))?.len() / page_size as u64;
        let ranges = match file.starts_with("ibdata") {
            false => vec![None],
            // It takes the doublewrite area for damage.
            true => around_doublewrite(page_size, pages).into_iter().map(Some).collect(),
        };
        for range in ranges {
            let mut command = Command::new(generation.program("innochecksum"));
            if let Some((first, last)) = range {
                command.arg(format!("--start-page={first}")).arg(format!("--end-page={last}"));
            }
            command.arg(dir.join(file));
            let run = crate::process::run(command)?;
            if !run.status.success() {
                let said = run.stderr.lines().find(|line| !line.is_empty()).unwrap_or_default();
                complaints.push(format!("{file}: {said} ({})", run.status));
            }
        }
    }
    Ok(complaints)
}

/// The pages of the system tablespace before and behind the doublewrite area, first and last.
fn around_doublewrite(page_size: usize, pages: u64) -> Vec<(u64, u64)> {
    let size = u32::try_from(page_size).ok().and_then(PageSize::new);
    let Some(size) = size else { return Vec::new() };
    let inside = |page: &u64| is_doublewrite(PageNo(*page as u32), size);
    let first = (0..pages).find(inside).unwrap_or(pages);
    let behind = (first..pages).find(|page| !inside(page)).unwrap_or(pages);
    let ranges = [(0, first), (behind, pages)];
    ranges.into_iter().filter(|(from, to)| from < to).map(|(from, to)| (from, to - 1)).collect()
}

/// Why two pages that hold the same may have different bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Excuse {
    None,
    /// They are page-compressed.
    Image,
    /// Or the one on the left should be encrypted, and is not.
    ImageOrLeftPlain,
}

struct Comparer<'a> {
    left: &'a Path,
    right: &'a Path,
    page_size: usize,
    permitted: &'static [Permitted],
    excuse: Excuse,
    keys: Option<&'a Keys>,
}

impl Comparer<'_> {
    fn run(&self) -> Result<Comparison> {
        let mut result = Comparison::default();
        let (left_files, right_files) = (files_below(self.left)?, files_below(self.right)?);
        let permitted = |file: &&String| self.permitted.iter().any(|entry| (entry.applies)(file));
        for (side, mine, other) in
            [("left", &left_files, &right_files), ("right", &right_files, &left_files)]
        {
            let only = mine.difference(other).filter(|file| !permitted(file));
            let only = only.map(|file| Difference::OnlyIn { side, file: file.clone() });
            result.differences.extend(only);
        }
        for file in left_files.intersection(&right_files).filter(|file| !permitted(file)) {
            self.compare_file(file, &mut result).with_context(|| format!("compare {file}"))?;
            result.files += 1;
        }
        Ok(result)
    }

    /// What counts the pages that are excused for the reason that these two would be.
    fn excused<'r>(
        &self,
        space: &Space,
        left: &[u8],
        right: &[u8],
        result: &'r mut Comparison,
    ) -> Option<&'r mut u64> {
        let left_plain = space.lacks_spatial_number(left)
            || (!space.is_page_encrypted(left) && space.is_page_encrypted(right));
        if left_plain && self.excuse == Excuse::ImageOrLeftPlain {
            return Some(&mut result.left_plain);
        }
        space.is_page_compressed().then_some(&mut result.reimaged)
    }

    fn compare_file(&self, file: &str, result: &mut Comparison) -> Result<()> {
        let (left, right) = (File::open(self.left.join(file))?, File::open(self.right.join(file))?);
        let (left_length, right_length) = (left.metadata()?.len(), right.metadata()?.len());
        if left_length != right_length {
            let file = file.to_owned();
            let difference = Difference::Length { file, left: left_length, right: right_length };
            result.differences.push(difference);
        }
        let (mut left, mut right) =
            (BufReader::with_capacity(1 << 20, left), BufReader::with_capacity(1 << 20, right));
        let mut space = match self.excuse != Excuse::None && is_tablespace(file) {
            true => Space::of(&mut right, self.keys).ok(),
            false => None,
        };
        right.rewind()?;
        let page_size = space.as_ref().map_or(self.page_size, Space::page_size);
        let (mut left_page, mut right_page) = (vec![0; page_size], vec![0; page_size]);
        let mut descriptors = Vec::new();
        for page in 0.. {
            let left_read = read_full(&mut left, &mut left_page)?;
            let right_read = read_full(&mut right, &mut right_page)?;
            let both = left_read.min(right_read);
            if both == 0 {
                break;
            }
            result.pages += u64::from(is_tablespace(file));
            if page % page_size as u64 == 0 {
                descriptors.clone_from(&right_page);
            }
            if left_page[..both] == right_page[..both] {
                continue;
            }
            let number = PageNo(page as u32);
            // A server of 10.5 does not make holes of freed pages when it recovers.
            if let Some(space) = &space
                && right_page.iter().all(|byte| *byte == 0)
                && space.is_page_compressed()
                && space.is_free(&descriptors, number)
            {
                result.reimaged += 1;
                continue;
            }
            if let Some(space) = &mut space
                && both == page_size
                && let Some(count) = self.excused(space, &left_page, &right_page, result)
                && space.hold_the_same(&left_page, &right_page, number)
            {
                *count += 1;
                continue;
            }
            result.differences.push(Difference::Page {
                file: file.to_owned(),
                page,
                runs: differing_runs(&left_page[..both], &right_page[..both]),
                page_type: (
                    number_at(&left_page, 24, 2) as u16,
                    number_at(&right_page, 24, 2) as u16,
                ),
                lsn: (number_at(&left_page, 16, 8), number_at(&right_page, 16, 8)),
            });
        }
        Ok(())
    }
}

/// Whether a path below a backup is that of a file with pages.
pub(crate) fn is_tablespace(file: &str) -> bool {
    file.ends_with(".ibd") || file.starts_with("ibdata") || file.starts_with("undo")
}

/// A big-endian number at a place in a page.
fn number_at(page: &[u8], offset: usize, length: usize) -> u64 {
    page[offset..offset + length].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn differing_runs(left: &[u8], right: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for at in (0..left.len()).filter(|at| left[*at] != right[*at]) {
        match runs.last_mut() {
            Some((start, length)) if *start + *length == at => *length += 1,
            _ => runs.push((at, 1)),
        }
    }
    runs
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Paths of all files below a directory, relative to it.
pub(crate) fn files_below(dir: &Path) -> Result<BTreeSet<String>> {
    fn walk(dir: &Path, prefix: &str, files: &mut BTreeSet<String>) -> Result<()> {
        for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), &format!("{name}/"), files)?;
            } else {
                files.insert(name);
            }
        }
        Ok(())
    }
    let mut files = BTreeSet::new();
    walk(dir, "", &mut files)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn directory(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        dir
    }

    #[test]
    fn equal_directories_have_no_differences() {
        let files = [("d/t.ibd", vec![7; 16384]), ("d/t.frm", b"x".to_vec())];
        let (left, right) = (directory(&files), directory(&files));
        let result = compare(left.path(), right.path(), 4096).unwrap();
        assert_eq!((result.files, result.pages), (2, 4));
        assert_eq!(result.differences, []);
    }

    #[test]
    fn one_changed_byte_is_found_in_its_page() {
        let mut changed = vec![7; 16384];
        changed[2 * 4096 + 100] = 8;
        let left = directory(&[("t.ibd", vec![7; 16384])]);
        let right = directory(&[("t.ibd", changed)]);
        let result = compare(left.path(), right.path(), 4096).unwrap();
        let [Difference::Page { page: 2, runs, .. }] = &result.differences[..] else {
            panic!("{}", result.report());
        };
        assert_eq!(runs, &[(100, 1)]);
    }

    #[test]
    fn missing_and_shorter_files_are_found() {
        let left = directory(&[("t.ibd", vec![7; 8192]), ("a.frm", vec![])]);
        let right = directory(&[("t.ibd", vec![7; 4096])]);
        let result = compare(left.path(), right.path(), 4096).unwrap();
        assert_eq!(result.differences.len(), 2, "{}", result.report());
    }
}

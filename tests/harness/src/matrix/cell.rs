//! One cell of the matrix: what is varied, and how it is made up.

use std::path::Path;

use fastrand::Rng;
use innodb::crypt::{CipherMode, Key};

use super::support::Feature;
use crate::generation::Generation;
use crate::load::{LoadOptions, Mix, TableOptions};
use crate::stored::Keys;
use crate::{ChecksumAlgorithm, Result, ServerOptions};

/// Keys of encrypted cells, of every length.
const KEYS: &[(u32, &str)] = &[
    (1, "770a8a65da156d24ee2a093277530142"),
    (2, "18420b5cbad2c3e2a1f7d0c9b8a79685"),
    (3, "000102030405060708090a0b0c0d0e0f1011121314151617"),
    (4, "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"),
];

/// What is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Nothing.
    None,
    /// Tablespaces, some by their own wish, some by the server's.
    Tables,
    /// Tablespaces, the redo log, Aria tables, temporary files and the binary log.
    Everything,
}

/// One kind of server and of load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Which server.
    pub generation: Generation,
    /// What everything here follows from, and the load too.
    pub seed: u64,
    /// `innodb_page_size` in KiB.
    pub page_kib: u32,
    /// `innodb_checksum_algorithm`.
    pub checksum: &'static str,
    /// What is encrypted.
    pub encryption: Encryption,
    /// How keys are used.
    pub cipher: &'static str,
    /// `innodb_encrypt_tables`, where anything is encrypted.
    pub encrypt_tables: &'static str,
    /// `innodb_encryption_threads`: they encrypt and decrypt while the backup runs.
    pub encryption_threads: u32,
    /// `innodb_compression_algorithm` of page-compressed tables; none without any.
    pub compression: Option<&'static str>,
    /// Whether only tables of ROW_FORMAT=COMPRESSED are used.
    pub only_compressed_rows: bool,
    /// `innodb_undo_tablespaces`.
    pub undo: u32,
    /// Whether undo tablespaces are truncated all the time.
    pub truncates_undo: bool,
    /// `innodb_log_file_size` in MiB.
    pub log_mib: u64,
    /// `innodb_immediate_scrub_data_uncompressed`.
    pub scrubs: bool,
    /// `innodb_change_buffering=all`, where there is a change buffer.
    pub buffers_changes: bool,
    /// Whether the backup that both tools prepare is the stock tool's.
    pub backup_by_stock: bool,
}

impl Cell {
    /// The cell of this seed.
    pub fn random(generation: Generation, seed: u64) -> Self {
        // Neighbouring seeds have nothing in common after this.
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ generation as u64);
        for _ in 0..8 {
            rng.u64(..);
        }
        let page_kib = choose(&mut rng, &[4, 8, 16, 16, 32, 64]);
        Self {
            generation,
            seed,
            page_kib,
            checksum: choose(&mut rng, checksums(generation)),
            encryption: choose(
                &mut rng,
                &[
                    Encryption::None,
                    Encryption::None,
                    Encryption::Tables,
                    Encryption::Everything,
                    Encryption::Everything,
                ],
            ),
            cipher: choose(&mut rng, &["aes_cbc", "aes_ctr"]),
            encrypt_tables: choose(&mut rng, &["OFF", "ON"]),
            encryption_threads: choose(&mut rng, &[0, 1, 4]),
            compression: match rng.u32(0..2) {
                0 => None,
                _ => Some(choose(&mut rng, compressions(generation))),
            },
            only_compressed_rows: rng.u32(0..4) == 0 && page_kib <= 16,
            undo: choose(&mut rng, &[0, 2, 4]),
            truncates_undo: rng.u32(0..3) == 0,
            log_mib: choose(&mut rng, &[24, 33, 64, 96]),
            scrubs: rng.u32(0..4) == 0,
            buffers_changes: rng.bool(),
            backup_by_stock: rng.u32(0..4) == 0,
        }
    }

    /// What has to work for the cell to succeed.
    pub fn features(&self) -> Vec<Feature> {
        let mut features = vec![Feature::Plain];
        if self.page_kib <= 16 {
            features.push(Feature::CompressedRows);
        }
        match self.encryption {
            Encryption::None => {}
            Encryption::Tables => features.push(Feature::EncryptedTables),
            Encryption::Everything => {
                features.extend([Feature::EncryptedTables, Feature::EncryptedLog]);
            }
        }
        match self.compression.filter(|_| !self.only_compressed_rows) {
            None => {}
            Some("zlib") => features.push(Feature::PageCompressedZlib),
            Some(_) => features.push(Feature::PageCompressedOther),
        }
        match self.checksum {
            "innodb" | "none" => features.push(Feature::OldChecksums),
            _ => {}
        }
        features
    }

    /// The server; encrypted ones find their keys below `dir`, where [`Self::write_keys`] puts
    /// them.
    pub fn server(&self, dir: &Path) -> ServerOptions {
        let mut server = ServerOptions::of(self.generation);
        server.page_size = self.page_kib << 10;
        // Installing once for each page format serves all algorithms and sizes of the log.
        server.checksum = match self.checksum.contains("full_crc32") {
            true => ChecksumAlgorithm::FullCrc32,
            false => ChecksumAlgorithm::Crc32,
        };
        server.log_file_size = 16 << 20;
        server.undo_tablespaces = self.undo;
        let mut arguments = vec![
            format!("--innodb-checksum-algorithm={}", self.checksum),
            format!("--innodb-log-file-size={}M", self.log_mib),
            // Off: a table that the page size does not allow is made in another way.
            "--innodb-strict-mode=OFF".to_owned(),
        ];
        if self.truncates_undo && self.undo > 0 {
            arguments.push("--innodb-undo-log-truncate=ON".to_owned());
            arguments.push("--innodb-max-undo-log-size=10M".to_owned());
        }
        if self.scrubs {
            arguments.push("--innodb-immediate-scrub-data-uncompressed=ON".to_owned());
        }
        if self.buffers_changes && self.generation < Generation::V11_8 {
            arguments.push("--innodb-change-buffering=all".to_owned());
        }
        if let Some(algorithm) = self.compression {
            if algorithm != "zlib" && self.generation >= Generation::V10_11 {
                arguments.push(format!("--plugin-load-add=provider_{algorithm}"));
            }
            arguments.push(format!("--innodb-compression-algorithm={algorithm}"));
        }
        if self.encryption != Encryption::None {
            arguments.extend([
                "--plugin-load-add=file_key_management".to_owned(),
                format!("--file-key-management-filename={}", dir.join(KEY_FILE).display()),
                format!("--file-key-management-encryption-algorithm={}", self.cipher),
                format!("--innodb-encrypt-tables={}", self.encrypt_tables),
                format!("--innodb-encryption-threads={}", self.encryption_threads),
            ]);
        }
        if self.encryption == Encryption::Everything {
            for name in ["innodb-encrypt-log", "aria-encrypt-tables", "encrypt-tmp-disk-tables"] {
                arguments.push(format!("--{name}=ON"));
            }
            arguments.push("--encrypt-tmp-files=ON".to_owned());
            arguments.push("--encrypt-binlog=ON".to_owned());
        }
        server.extra.extend(arguments);
        server
    }

    /// Writes the key file below `dir`.
    pub fn write_keys(&self, dir: &Path) -> Result<()> {
        let lines: Vec<String> = KEYS.iter().map(|(id, key)| format!("{id};{key}\n")).collect();
        Ok(std::fs::write(dir.join(KEY_FILE), lines.concat())?)
    }

    /// The keys, to open pages with.
    pub fn keys(&self) -> Option<Keys> {
        let mode = match self.cipher {
            "aes_ctr" => CipherMode::Ctr,
            _ => CipherMode::Cbc,
        };
        let keys = KEYS.iter().filter_map(|(id, key)| Some((*id, Key::from_hex(key)?))).collect();
        (self.encryption != Encryption::None).then_some(Keys { mode, keys })
    }

    /// What happens on the server.
    pub fn load(&self) -> LoadOptions {
        let mut load = LoadOptions::new(self.seed);
        if self.only_compressed_rows {
            load.mix = Mix::Compressed;
        }
        load.rows = 400;
        load.tables = TableOptions {
            keys: match self.encryption {
                Encryption::None => Vec::new(),
                _ => KEYS.iter().map(|(id, _)| *id).collect(),
            },
            encrypts_spatial: self.checksum.contains("full_crc32"),
            page_compressed: self.compression.is_some(),
        };
        load
    }

    /// Names and values of what is varied, for tables.
    pub fn traits(&self) -> Vec<(&'static str, String)> {
        let encryption = match self.encryption {
            Encryption::None => "none",
            Encryption::Tables => "tables",
            Encryption::Everything => "all",
        };
        vec![
            ("pages", format!("{}k", self.page_kib)),
            ("checksum", self.checksum.to_owned()),
            ("encryption", encryption.to_owned()),
            ("compression", self.compression.unwrap_or("none").to_owned()),
            ("rows", if self.only_compressed_rows { "compressed" } else { "all" }.to_owned()),
            ("undo", self.undo.to_string()),
            ("log", format!("{}M", self.log_mib)),
            ("backup", if self.backup_by_stock { "stock" } else { "haulout" }.to_owned()),
        ]
    }

    /// The command that runs this cell again.
    pub fn command(&self) -> String {
        let series = self.generation.series();
        format!("cargo xtask matrix --server {series} --first {} --seeds 1", self.seed)
    }
}

/// Name of the key file.
const KEY_FILE: &str = "keys";

/// The whole cell on one line.
impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}k {}", self.page_kib, self.checksum)?;
        if self.encryption != Encryption::None {
            let what = match self.encryption {
                Encryption::Everything => "tables+redo+aria",
                _ => "tables",
            };
            let (cipher, default, threads) =
                (self.cipher, self.encrypt_tables, self.encryption_threads);
            write!(f, " encrypted({what} {cipher} default={default} threads={threads})")?;
        }
        if let Some(algorithm) = self.compression {
            write!(f, " {algorithm}")?;
        }
        if self.only_compressed_rows {
            write!(f, " compressed-rows")?;
        }
        write!(f, " undo={}", self.undo)?;
        for (is, word) in [
            (self.truncates_undo && self.undo > 0, "truncated"),
            (self.scrubs, "scrubbed"),
            (self.buffers_changes && self.generation < Generation::V11_8, "change-buffer"),
        ] {
            if is {
                write!(f, " {word}")?;
            }
        }
        write!(f, " log={}M", self.log_mib)?;
        if self.backup_by_stock {
            write!(f, " stock-backup")?;
        }
        Ok(())
    }
}

fn choose<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}

/// Checksum algorithms that servers of a generation have, the usual ones more often.
fn checksums(generation: Generation) -> &'static [&'static str] {
    match generation {
        Generation::V10_5 => &[
            "full_crc32",
            "full_crc32",
            "crc32",
            "crc32",
            "strict_full_crc32",
            "strict_crc32",
            "innodb",
            "none",
        ],
        Generation::V10_11 | Generation::V11_8 => {
            &["full_crc32", "full_crc32", "crc32", "strict_full_crc32", "strict_crc32"]
        }
    }
}

/// Algorithms of page compression that Debian's servers of a generation have.
fn compressions(generation: Generation) -> &'static [&'static str] {
    match generation {
        Generation::V10_5 => &["zlib", "zlib", "lz4", "snappy"],
        Generation::V10_11 | Generation::V11_8 => {
            &["zlib", "zlib", "lz4", "lzo", "lzma", "bzip2", "snappy"]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_follows_from_its_seed_and_all_values_occur() {
        for generation in Generation::ALL {
            let cells: Vec<Cell> = (1..=300).map(|seed| Cell::random(generation, seed)).collect();
            assert_eq!(cells[6], Cell::random(generation, 7));
            for checksum in checksums(generation) {
                assert!(cells.iter().any(|cell| cell.checksum == *checksum), "{checksum}");
            }
            for algorithm in compressions(generation) {
                assert!(cells.iter().any(|cell| cell.compression == Some(*algorithm)));
            }
            for kib in [4, 8, 16, 32, 64] {
                assert!(cells.iter().any(|cell| cell.page_kib == kib), "{kib}");
            }
        }
    }
}

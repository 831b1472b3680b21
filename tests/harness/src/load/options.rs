//! Options of InnoDB tables that a load mixes in: encryption and page compression.

use fastrand::Rng;

use super::shape::Shape;

/// Which options tables get. Without any, tables are as the server makes them by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Keys to encrypt tables with. Some tables then name one, some ask for no encryption, some
    /// leave it to the server.
    pub keys: Vec<u32>,
    /// Whether spatial tables can be encrypted: servers do it in files of `full_crc32` only.
    pub encrypts_spatial: bool,
    /// Whether most tables are page-compressed.
    pub page_compressed: bool,
}

impl TableOptions {
    fn encrypts(&self, shape: Shape) -> bool {
        let can = self.encrypts_spatial || shape != Shape::InnodbSpatial;
        !self.keys.is_empty() && shape.is_innodb() && can
    }

    /// Options for a new table of this shape, at random.
    pub fn pick(&self, shape: Shape, rng: &mut Rng) -> String {
        let mut options = Vec::new();
        if self.encrypts(shape) {
            let key = self.keys[rng.usize(0..self.keys.len())];
            match rng.u32(0..4) {
                0 => options.push("ENCRYPTED=NO".to_owned()),
                1 => options.push(format!("ENCRYPTED=YES ENCRYPTION_KEY_ID={key}")),
                2 => options.push(format!("ENCRYPTION_KEY_ID={key}")),
                _ => {}
            }
        }
        if self.page_compressed && is_page_compressible(shape) && rng.u32(0..4) > 0 {
            options.push("PAGE_COMPRESSED=1".to_owned());
        }
        options.join(" ")
    }

    /// Other options for a table of this shape; `None` when there are none to change, and every
    /// second time.
    pub fn change(&self, shape: Shape, rng: &mut Rng) -> Option<String> {
        let encryption = self.encrypts(shape);
        let compression = self.page_compressed && is_page_compressible(shape);
        if !(encryption || compression) || rng.bool() {
            return None;
        }
        if encryption && (!compression || rng.bool()) {
            let key = self.keys[rng.usize(0..self.keys.len())];
            return Some(match rng.u32(0..3) {
                0 => "ENCRYPTED=NO ENCRYPTION_KEY_ID=1".to_owned(),
                1 => "ENCRYPTED=DEFAULT".to_owned(),
                _ => format!("ENCRYPTED=YES ENCRYPTION_KEY_ID={key}"),
            });
        }
        Some(match rng.u32(0..3) {
            0 => "PAGE_COMPRESSED=0".to_owned(),
            1 => "PAGE_COMPRESSED=1".to_owned(),
            _ => format!("PAGE_COMPRESSED=1 PAGE_COMPRESSION_LEVEL={}", rng.u32(1..10)),
        })
    }
}

/// Whether the server page-compresses tables of this shape at all.
fn is_page_compressible(shape: Shape) -> bool {
    shape.is_innodb()
        && !matches!(
            shape,
            Shape::InnodbRedundant | Shape::InnodbZip(_) | Shape::InnodbPageCompressed(_)
        )
}

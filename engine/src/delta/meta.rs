//! `.meta` files: what the pages of a `.delta` file are pages of.

use std::path::Path;

use innodb::{PageSize, SpaceId};

use crate::metadata::{key_value, read_text};
use crate::{Error, ErrorKind, Result};

/// The content of a `.meta` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Size of the pages as they are stored.
    pub page_size: PageSize,
    /// Whether they are those of `ROW_FORMAT=COMPRESSED`.
    pub zip: bool,
    /// Their tablespace.
    pub space: SpaceId,
}

impl Meta {
    /// The bytes of the file: those of the stock tool, which has a blank at the end of one line.
    pub fn to_text(self) -> String {
        let zip_size = if self.zip { self.page_size.bytes() } else { 0 };
        format!(
            "page_size = {}\nzip_size = {zip_size} \nspace_id = {}\n",
            self.page_size, self.space
        )
    }

    /// Reads the content: keys in any order, others passed over. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut page_size, mut zip, mut space) = (None, false, None);
        for (key, value) in text.lines().filter_map(key_value) {
            let number = || {
                value
                    .parse::<u32>()
                    .map_err(|_| format!("'{key}' is '{value}', which is no number"))
            };
            match key {
                "page_size" => {
                    let size = number()?;
                    let valid = PageSize::new(size);
                    page_size = Some(valid.ok_or_else(|| format!("{size} is no size of a page"))?);
                }
                "zip_size" => zip = number()? != 0,
                "space_id" => space = Some(SpaceId(number()?)),
                _ => {}
            }
        }
        Ok(Self {
            page_size: page_size.ok_or("it has no 'page_size'")?,
            zip,
            space: space.ok_or("it has no 'space_id'")?,
        })
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let damaged = |why: &str| {
            Error::new(ErrorKind::Damage, format!("{} is damaged: {why}", path.display()))
                .advise("the delta is not usable; take another one")
        };
        let text = read_text(path)?.ok_or_else(|| damaged("there is no such file"))?;
        Self::parse(&text).map_err(|why| damaged(&why))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_are_those_of_the_stock_tool() {
        let plain = Meta { page_size: PageSize::DEFAULT, zip: false, space: SpaceId(5) };
        assert_eq!(plain.to_text(), "page_size = 16384\nzip_size = 0 \nspace_id = 5\n");
        let page_size = PageSize::new(4096).unwrap();
        let zip = Meta { page_size, zip: true, space: SpaceId(8) };
        assert_eq!(zip.to_text(), "page_size = 4096\nzip_size = 4096 \nspace_id = 8\n");
        for meta in [plain, zip] {
            assert_eq!(Meta::parse(&meta.to_text()), Ok(meta));
        }
    }

    #[test]
    fn what_is_missing_or_impossible_is_refused() {
        for bad in [
            "",
            "page_size = 16384\n",
            "space_id = 5\n",
            "page_size = 512\nspace_id = 5\n",
            "page_size = 16383\nspace_id = 5\n",
            "page_size = 16384\nspace_id = -1\n",
            "page_size = 16384\nspace_id = 4294967296\n",
        ] {
            assert!(Meta::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Meta::parse("space_id=5\r\nfoo\npage_size=1024").is_ok());
    }
}

//! The kinds of tables that the load uses, and how each is created and filled.
//!
//! Every table has the columns `id`, `k`, `c` and `b`, so that one statement generator serves
//! all of them. All values follow from `id` and a salt.

use fastrand::Rng;

/// A kind of table: engine, row format, and what is special about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    InnodbDynamic,
    InnodbCompact,
    InnodbRedundant,
    /// No primary key: InnoDB makes up a row id.
    InnodbBare,
    InnodbFulltext,
    InnodbPartitioned,
    InnodbSpatial,
    InnodbVirtual,
    /// ROW_FORMAT=COMPRESSED with pages of so many KiB. Where the server's pages are too small for
    /// that it takes another size, and where they are too large it takes another row format.
    InnodbZip(u8),
    /// PAGE_COMPRESSED=1 with this algorithm. In the older page format the algorithm is whichever
    /// is set when a page is written.
    InnodbPageCompressed(&'static str),
    Aria,
    /// Aria without a log: repaired, not recovered, after a crash.
    AriaPlain,
    AriaPartitioned,
    Myisam,
    MyisamFixed,
    MyisamPartitioned,
    /// A MERGE table over two MyISAM tables.
    Merge,
    Csv,
    Archive,
    Sequence,
}

/// Shapes with their weight in the mix.
const MIX: &[(Shape, u32)] = &[
    (Shape::InnodbDynamic, 6),
    (Shape::InnodbCompact, 3),
    (Shape::InnodbRedundant, 3),
    (Shape::InnodbBare, 1),
    (Shape::InnodbFulltext, 1),
    (Shape::InnodbPartitioned, 2),
    (Shape::InnodbSpatial, 1),
    (Shape::InnodbVirtual, 2),
    (Shape::InnodbZip(1), 1),
    (Shape::InnodbZip(2), 1),
    (Shape::InnodbZip(4), 1),
    (Shape::InnodbZip(8), 1),
    (Shape::InnodbZip(16), 1),
    (Shape::InnodbPageCompressed("zlib"), 1),
    (Shape::InnodbPageCompressed("lz4"), 1),
    (Shape::InnodbPageCompressed("lzo"), 1),
    (Shape::InnodbPageCompressed("lzma"), 1),
    (Shape::InnodbPageCompressed("bzip2"), 1),
    (Shape::InnodbPageCompressed("snappy"), 1),
    (Shape::Aria, 3),
    (Shape::AriaPlain, 2),
    (Shape::AriaPartitioned, 1),
    (Shape::Myisam, 2),
    (Shape::MyisamFixed, 1),
    (Shape::MyisamPartitioned, 1),
    (Shape::Merge, 1),
    (Shape::Csv, 1),
    (Shape::Archive, 1),
    (Shape::Sequence, 1),
];

/// Which shapes a load uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// All of them, by their weights.
    Everything,
    /// Only those whose pages are compressed.
    Compressed,
    /// Only InnoDB.
    Innodb,
    /// All but sequences, whose rows a server of 10.5 dies of when a text says them (BINLOG).
    Tables,
}

impl Mix {
    fn shapes(self) -> impl Iterator<Item = (Shape, u32)> {
        let fits = move |shape: Shape| match self {
            Self::Everything => true,
            Self::Compressed => shape.is_compressed(),
            Self::Innodb => shape.is_innodb(),
            Self::Tables => shape != Shape::Sequence,
        };
        MIX.iter().copied().filter(move |(shape, _)| fits(*shape))
    }

    /// All shapes, one of each.
    pub fn all(self) -> impl Iterator<Item = Shape> {
        self.shapes().map(|(shape, _)| shape)
    }

    /// A shape by its weight.
    pub fn pick(self, rng: &mut Rng) -> Shape {
        let mut ticket = rng.u32(0..self.shapes().map(|(_, weight)| weight).sum());
        for (shape, weight) in self.shapes() {
            if ticket < weight {
                return shape;
            }
            ticket -= weight;
        }
        Shape::InnodbDynamic
    }
}

/// What a statement generator may do with a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything, rows are found by key.
    Keyed,
    /// Everything, but rows are found by scanning: few rows only.
    Scanned,
    /// Insert only.
    Append,
    /// `NEXT VALUE`, `SETVAL`.
    Counter,
}

impl Shape {
    /// Whether its pages are compressed.
    pub fn is_compressed(self) -> bool {
        matches!(self, Self::InnodbZip(_) | Self::InnodbPageCompressed(_))
    }

    /// Whether rollback works and rows belong to the transaction.
    pub fn is_innodb(self) -> bool {
        matches!(
            self,
            Self::InnodbDynamic
                | Self::InnodbCompact
                | Self::InnodbRedundant
                | Self::InnodbBare
                | Self::InnodbFulltext
                | Self::InnodbPartitioned
                | Self::InnodbSpatial
                | Self::InnodbVirtual
                | Self::InnodbZip(_)
                | Self::InnodbPageCompressed(_)
        )
    }

    /// Whether the table is partitioned by `id`.
    pub fn is_partitioned(self) -> bool {
        matches!(self, Self::InnodbPartitioned | Self::AriaPartitioned | Self::MyisamPartitioned)
    }

    /// What may be done with the rows.
    pub fn access(self) -> Access {
        match self {
            Self::Archive | Self::Merge => Access::Append,
            Self::Csv | Self::InnodbBare => Access::Scanned,
            Self::Sequence => Access::Counter,
            _ => Access::Keyed,
        }
    }

    /// Statements that create a table of this shape under a quoted name.
    pub fn create(self, name: &str, members: &[String]) -> Vec<String> {
        let plain = "id BIGINT NOT NULL PRIMARY KEY, k INT NOT NULL, \
                     c VARCHAR(120) NOT NULL DEFAULT '', b LONGBLOB";
        let keyed = format!("{plain}, KEY k (k)");
        let options = match self {
            Self::InnodbDynamic => format!("({keyed}, KEY c (c(40))) ENGINE=InnoDB"),
            Self::InnodbCompact => format!("({keyed}) ENGINE=InnoDB ROW_FORMAT=COMPACT"),
            Self::InnodbRedundant => {
                format!("({keyed}, UNIQUE KEY u (k, id)) ENGINE=InnoDB ROW_FORMAT=REDUNDANT")
            }
            Self::InnodbBare => {
                "(id BIGINT NOT NULL, k INT NOT NULL, c VARCHAR(120), b LONGBLOB) ENGINE=InnoDB"
                    .to_owned()
            }
            Self::InnodbFulltext => format!("({keyed}, FULLTEXT KEY f (c)) ENGINE=InnoDB"),
            Self::InnodbPartitioned => format!("({keyed}) ENGINE=InnoDB {PARTITIONS}"),
            Self::InnodbSpatial => {
                format!("({keyed}, p POINT NOT NULL, SPATIAL KEY p (p)) ENGINE=InnoDB")
            }
            Self::InnodbVirtual => format!(
                "({keyed}, v INT AS (k * 2) VIRTUAL, s VARCHAR(20) AS (LEFT(c, 20)) STORED, \
                 KEY v (v)) ENGINE=InnoDB"
            ),
            Self::InnodbZip(size) => {
                format!("({keyed}) ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE={size}")
            }
            Self::InnodbPageCompressed(algorithm) => {
                return vec![
                    // Not every server has every algorithm; then the last one stays.
                    format!(
                        "BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END; \
                         SET GLOBAL innodb_compression_algorithm = '{algorithm}'; END"
                    ),
                    format!("CREATE TABLE {name} ({keyed}) ENGINE=InnoDB PAGE_COMPRESSED=1"),
                ];
            }
            Self::Aria => format!("({keyed}) ENGINE=Aria TRANSACTIONAL=1"),
            Self::AriaPlain => format!("({keyed}) ENGINE=Aria TRANSACTIONAL=0 ROW_FORMAT=DYNAMIC"),
            Self::AriaPartitioned => format!("({keyed}) ENGINE=Aria {PARTITIONS}"),
            Self::Myisam => format!("({keyed}) ENGINE=MyISAM"),
            Self::MyisamFixed => "(id BIGINT NOT NULL PRIMARY KEY, k INT NOT NULL, \
                                  c CHAR(40) NOT NULL DEFAULT '', b BINARY(16), KEY k (k)) \
                                  ENGINE=MyISAM ROW_FORMAT=FIXED"
                .to_owned(),
            Self::MyisamPartitioned => format!("({keyed}) ENGINE=MyISAM {PARTITIONS}"),
            Self::Csv => "(id BIGINT NOT NULL, k INT NOT NULL, c VARCHAR(120) NOT NULL, \
                          b VARCHAR(200) NOT NULL) ENGINE=CSV"
                .to_owned(),
            Self::Archive => {
                "(id BIGINT NOT NULL, k INT NOT NULL, c VARCHAR(120), b BLOB) ENGINE=ARCHIVE"
                    .to_owned()
            }
            Self::Sequence => {
                return vec![format!("CREATE SEQUENCE {name} START WITH 1 CACHE 20 ENGINE=InnoDB")];
            }
            Self::Merge => {
                let member =
                    "(id BIGINT NOT NULL, k INT NOT NULL, c VARCHAR(120), b BLOB, KEY (k))";
                let mut statements: Vec<String> = members
                    .iter()
                    .map(|table| format!("CREATE TABLE {table} {member} ENGINE=MyISAM"))
                    .collect();
                statements.push(format!(
                    "CREATE TABLE {name} {member} ENGINE=MERGE UNION=({}) INSERT_METHOD=LAST",
                    members.join(", ")
                ));
                return statements;
            }
        };
        vec![format!("CREATE TABLE {name} {options}")]
    }

    /// `(columns) SELECT values` for the ids `first..=last`.
    pub fn rows(self, first: u64, last: u64, salt: u32, rng: &mut Rng) -> String {
        let blob = match self {
            Self::Csv => "'a \"quoted\", text'".to_owned(),
            Self::MyisamFixed => "UNHEX(MD5(seq))".to_owned(),
            Self::Archive | Self::Merge => format!("REPEAT(MD5(seq), {})", rng.u32(1..20)),
            // Most values fit the page; of some statements every 40th row gets a long one.
            _ => {
                let short = format!("REPEAT(MD5(seq + {salt}), {})", rng.u32(1..12));
                match rng.u32(0..12) {
                    0 => "NULL".to_owned(),
                    1 => format!(
                        "IF(seq % 40 = 0, REPEAT(MD5(seq), {}), {short})",
                        rng.u32(500..4000)
                    ),
                    2 => {
                        format!("IF(seq % 40 = 0, REPEAT(MD5(seq), {}), {short})", rng.u32(50..500))
                    }
                    _ => short,
                }
            }
        };
        let (extra, value) = match self {
            Self::InnodbSpatial => (", p", format!(", POINT(seq % 1000, (seq * {salt}) % 777)")),
            _ => ("", String::new()),
        };
        let text = match self {
            Self::InnodbFulltext => {
                format!("CONCAT('word', seq % 97, ' other', (seq + {salt}) % 31)")
            }
            Self::MyisamFixed => format!("LEFT(MD5(seq * {salt}), 32)"),
            _ => format!("REPEAT(MD5(seq * {salt}), {})", rng.u32(1..4)),
        };
        format!(
            "(id, k, c, b{extra}) SELECT seq, (seq * 7 + {salt}) % 100000, {text}, {blob}{value} \
             FROM app.seq_{first}_to_{last}"
        )
    }
}

const PARTITIONS: &str = "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (500), \
     PARTITION p1 VALUES LESS THAN (1500), PARTITION p2 VALUES LESS THAN MAXVALUE)";

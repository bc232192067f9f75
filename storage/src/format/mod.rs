//! What lies on disk, byte by byte. Little-endian, versioned, checksummed; see the crate's front page for the layout.
//!
//! Encoding and decoding only: no I/O, no state. A decoder says *why* bytes are refused, because the callers differ:
//! a torn journal tail is cut, an unknown version is an error a person must act on.

pub mod checkpoint;
pub mod entry;
pub(crate) mod fields;
pub mod group;
pub mod index_page;
pub mod journal_file;
pub mod mend;
pub mod segment_file;

use corelog_io::ALIGN;

/// Version of every format in this module. A build reads exactly the versions it knows and refuses others.
pub const VERSION: u16 = 1;

/// One page: the unit of direct I/O, of every file header and of every index page, in bytes.
pub const PAGE: usize = ALIGN;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not the magic number: nothing of ours was written here, or it was overwritten.
    Magic,
    /// Ours, from a build with another format.
    Version(u16),
    /// The checksum does not match: torn or damaged.
    Checksum,
    /// The checksum matches, the content cannot be: written by a broken build.
    Content(&'static str),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Magic => write!(f, "the magic number is missing"),
            Refused::Version(v) => {
                write!(f, "format version {v} is unknown to this build, which knows version {VERSION}")
            }
            Refused::Checksum => write!(f, "the checksum does not match"),
            Refused::Content(what) => write!(f, "{what}"),
        }
    }
}

/// `n` rounded up to a whole page.
pub const fn page_ceil(n: u64) -> u64 {
    n.next_multiple_of(PAGE as u64)
}

/// `n` rounded down to a whole page.
pub const fn page_floor(n: u64) -> u64 {
    n & !(PAGE as u64 - 1)
}

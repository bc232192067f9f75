//! What lies on disk, byte by byte. Little-endian, versioned, checksummed; see the crate's front page for the layout.
//!
//! Each format has a version of its own ([`Format`]). A build writes its newest and reads every one from its oldest on:
//! whoever changes a format counts its newest up, keeps the decoder of the former, and keeps a data directory of the former
//! in the broker's tests (`simulation/earlier`). The oldest moves up when no supported build writes it any more. What a newer
//! build wrote is refused, and left as it is; but for indexes, which are made again from their segments.
//!
//! Encoding and decoding only: no I/O, no state. A decoder says *why* bytes are refused, because the callers differ:
//! a torn journal tail is cut, an unknown version is an error a person must act on.

pub mod checkpoint;
pub mod entry;
pub(crate) mod fields;
pub mod group;
pub mod index_page;
pub mod journal_file;
pub mod log_sections;
pub mod mend;
pub mod segment_file;

use corelog_io::ALIGN;

/// One format's name, and its versions that this build reads. It writes the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub name: &'static str,
    pub oldest: u16,
    pub newest: u16,
}

impl Format {
    /// The version of what lies there, if it can be read.
    pub(crate) fn known(self, version: u16) -> Result<u16, Refused> {
        match (self.oldest..=self.newest).contains(&version) {
            true => Ok(version),
            false => Err(Refused::Version { format: self, found: version }),
        }
    }
}

/// One page: the unit of direct I/O, of every file header and of every index page, in bytes.
pub const PAGE: usize = ALIGN;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not the magic number: nothing of ours was written here, or it was overwritten.
    Magic,
    /// Ours, from a build with another format.
    Version { format: Format, found: u16 },
    /// The checksum does not match: torn or damaged.
    Checksum,
    /// The checksum matches, the content cannot be: written by a broken build.
    Content(&'static str),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Magic => write!(f, "the magic number is missing"),
            Refused::Version { format: Format { name, newest, .. }, found } if found > newest => write!(
                f,
                "version {found} of the format of {name} is newer than this build, which knows {newest}. Run the build that \
                 wrote it, or a newer one"
            ),
            Refused::Version { format: Format { name, oldest, .. }, found } => write!(
                f,
                "version {found} of the format of {name} is older than what this build reads, {oldest} and later. Start once \
                 with a build that reads both"
            ),
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

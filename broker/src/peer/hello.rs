//! Greetings: what the two ends of a connection tell each other before anything else. `schema/peer.fbs` has the layout.
//!
//! Nothing of a greeting is believed before its checksum and the FlatBuffers verifier have seen it, and there is no more
//! of it than [`GREETING_BYTES_MAX`].

use bytes::{BufMut, Bytes, BytesMut};
use corelog_wire::frame::foreign_protocol;
use flatbuffers::{FlatBufferBuilder, VerifierOptions};

use super::generated::corelog::peer as fb;
use super::{Incarnation, PeerId};
use crate::ids::{BrokerId, ShardId};

const MAGIC: [u8; 8] = *b"CLG-PEER";
/// What stands before a greeting.
pub const PREFIX_BYTES: usize = 20;
/// A greeting with its prefix.
pub const GREETING_BYTES_MAX: usize = 1024;
/// The versions of the protocol that this build speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };
const CLUSTER_BYTES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 400;
// With room for tables, offsets and alignment.
const _: () = assert!(PREFIX_BYTES + CLUSTER_BYTES_MAX + TEXT_BYTES_MAX + 256 <= GREETING_BYTES_MAX);

/// From `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub min: u16,
    pub max: u16,
}

impl Versions {
    /// The version that two ends speak with each other.
    pub fn common(self, other: Versions) -> Option<u16> {
        let highest = self.max.min(other.max);
        (highest >= self.min.max(other.min)).then_some(highest)
    }
}

/// What an end says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// None: it belongs to no cluster yet.
    pub cluster: Option<String>,
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    pub shard: ShardId,
    pub shards: usize,
    /// The highest that it has.
    pub feature_level: u16,
    /// The lowest that it can work with.
    pub feature_level_required: u16,
}

impl Introduction {
    pub fn peer(&self) -> PeerId {
        PeerId { broker: self.broker, shard: self.shard }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Frames of replication, both ways.
    Frames = 0,
    /// Calls of the end that connects.
    Calls = 1,
    /// Nothing: the other end is to connect.
    Knock = 2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub from: Introduction,
    pub purpose: Purpose,
    /// None: it knows an address alone.
    pub to_broker: Option<BrokerId>,
    pub to_shard: ShardId,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// The reason of a newer build.
    Other = 0,
    /// No version of the protocol in common.
    Version = 1,
    /// A greeting that says what no broker does.
    Malformed = 2,
    Cluster = 3,
    /// It belongs to no cluster yet, or this broker does not: they can call each other, no more.
    Forming = 4,
    /// The address is another broker's.
    Broker = 5,
    /// Two brokers have one id.
    OwnId = 6,
    /// It is this broker itself.
    Itself = 7,
    /// Another incarnation has connected since.
    Former = 8,
    /// Another incarnation is connected, and answers.
    Alive = 9,
    FeatureLevel = 10,
    Shard = 11,
    /// This end has nothing to say to it.
    NotWanted = 12,
    Busy = 13,
}

impl RefusalKind {
    pub const ALL: [RefusalKind; 14] = [
        RefusalKind::Other,
        RefusalKind::Version,
        RefusalKind::Malformed,
        RefusalKind::Cluster,
        RefusalKind::Forming,
        RefusalKind::Broker,
        RefusalKind::OwnId,
        RefusalKind::Itself,
        RefusalKind::Former,
        RefusalKind::Alive,
        RefusalKind::FeatureLevel,
        RefusalKind::Shard,
        RefusalKind::NotWanted,
        RefusalKind::Busy,
    ];

    /// In metrics, and for lines that are told sparingly.
    pub fn name(self) -> &'static str {
        match self {
            RefusalKind::Other => "other",
            RefusalKind::Version => "version",
            RefusalKind::Malformed => "malformed",
            RefusalKind::Cluster => "cluster",
            RefusalKind::Forming => "forming",
            RefusalKind::Broker => "broker",
            RefusalKind::OwnId => "own_id",
            RefusalKind::Itself => "itself",
            RefusalKind::Former => "former_incarnation",
            RefusalKind::Alive => "other_incarnation_alive",
            RefusalKind::FeatureLevel => "feature_level",
            RefusalKind::Shard => "shard",
            RefusalKind::NotWanted => "not_wanted",
            RefusalKind::Busy => "busy",
        }
    }
}

/// The answer to a hello that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    pub kind: RefusalKind,
    /// For people.
    pub text: String,
    /// How many shards the broker has, where that is the reason.
    pub shards: Option<usize>,
}

impl Refusal {
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Refusal {
        Refusal { kind, text: text.into(), shards: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    Hello(Hello),
    Welcome(Introduction),
    Refusal(Refusal),
}

/// What was received in place of a greeting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGreeting {
    #[error("the other end speaks {0}, and this port is for brokers of the cluster")]
    Foreign(&'static str),
    #[error("the other end does not speak the protocol between brokers")]
    Magic,
    #[error("a greeting of {0} bytes, the limit is {GREETING_BYTES_MAX}")]
    TooLong(u32),
    #[error("the greeting's checksum is {found:08x}, it says {said:08x}: damaged on the way")]
    Checksum { said: u32, found: u32 },
    #[error("the greeting is no valid FlatBuffer of its schema: {0}")]
    Invalid(String),
    #[error("the greeting says what no broker does: {0}")]
    Senseless(&'static str),
}

/// What stands before a greeting; the same in all versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub versions: Versions,
    /// Bytes that follow.
    pub length: usize,
    checksum: u32,
}

impl Prefix {
    pub fn parse(bytes: [u8; PREFIX_BYTES]) -> Result<Prefix, BadGreeting> {
        if bytes[..8] != MAGIC {
            let foreign = foreign_protocol([bytes[0], bytes[1], bytes[2], bytes[3]]);
            return Err(foreign.map_or(BadGreeting::Magic, BadGreeting::Foreign));
        }
        let version = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let length = word(12);
        if length as usize > GREETING_BYTES_MAX - PREFIX_BYTES {
            return Err(BadGreeting::TooLong(length));
        }
        let versions = Versions { min: version(8), max: version(10) };
        Ok(Prefix { versions, length: length as usize, checksum: word(16) })
    }
}

/// `bytes` are as long as the prefix says.
pub fn decode(prefix: Prefix, bytes: &[u8]) -> Result<Greeting, BadGreeting> {
    let (said, found) = (prefix.checksum, crc32c::crc32c(bytes));
    if said != found {
        return Err(BadGreeting::Checksum { said, found });
    }
    let options = VerifierOptions {
        max_depth: 4,
        max_tables: 4,
        max_apparent_size: GREETING_BYTES_MAX,
        ..VerifierOptions::default()
    };
    let root = flatbuffers::root_with_opts::<fb::Greeting>(&options, bytes)
        .map_err(|error| BadGreeting::Invalid(error.to_string()))?;
    if let Some(hello) = root.content_as_hello() {
        return decode_hello(hello).map(Greeting::Hello);
    }
    if let Some(welcome) = root.content_as_welcome() {
        return decode_introduction(welcome.from()).map(Greeting::Welcome);
    }
    match root.content_as_refusal() {
        Some(refusal) => Ok(Greeting::Refusal(decode_refusal(refusal))),
        None => Err(BadGreeting::Senseless("a content that this build does not know")),
    }
}

fn decode_hello(hello: fb::Hello<'_>) -> Result<Hello, BadGreeting> {
    let purpose = match hello.purpose() {
        0 => Purpose::Frames,
        1 => Purpose::Calls,
        2 => Purpose::Knock,
        _ => return Err(BadGreeting::Senseless("a purpose that this build does not know")),
    };
    Ok(Hello {
        from: decode_introduction(hello.from())?,
        purpose,
        to_broker: BrokerId::known(hello.to_broker()),
        to_shard: ShardId(hello.to_shard().into()),
    })
}

fn decode_introduction(from: fb::Introduction<'_>) -> Result<Introduction, BadGreeting> {
    let broker = BrokerId::known(from.broker()).ok_or(BadGreeting::Senseless("a broker without an id"))?;
    if from.shard() >= from.shards() {
        return Err(BadGreeting::Senseless("a shard beyond the number of shards"));
    }
    if from.feature_level_required() > from.feature_level() {
        return Err(BadGreeting::Senseless("a feature level below the one that it requires"));
    }
    let cluster = from.cluster();
    if cluster.is_some_and(|cluster| cluster.is_empty() || cluster.len() > CLUSTER_BYTES_MAX) {
        return Err(BadGreeting::Senseless("an empty or endless cluster id"));
    }
    Ok(Introduction {
        cluster: cluster.map(str::to_owned),
        broker,
        incarnation: Incarnation(from.incarnation()),
        shard: ShardId(from.shard().into()),
        shards: from.shards().into(),
        feature_level: from.feature_level(),
        feature_level_required: from.feature_level_required(),
    })
}

fn decode_refusal(refusal: fb::Refusal<'_>) -> Refusal {
    let number = refusal.kind();
    let kind = RefusalKind::ALL.into_iter().find(|kind| *kind as u8 == number).unwrap_or(RefusalKind::Other);
    // It goes to the log.
    let text = refusal.text().unwrap_or_default().chars().flat_map(char::escape_debug).collect();
    let shards = (refusal.shards() > 0).then_some(refusal.shards().into());
    Refusal { kind, text, shards }
}

/// A greeting as it is sent.
pub fn encode(greeting: &Greeting) -> Bytes {
    let mut builder = FlatBufferBuilder::with_capacity(256);
    let (content_type, content) = match greeting {
        Greeting::Hello(hello) => {
            let from = encode_introduction(&mut builder, &hello.from);
            let args = fb::HelloArgs {
                from: Some(from),
                purpose: hello.purpose as u8,
                to_broker: hello.to_broker.map_or(-1, |broker| broker.0),
                to_shard: short(hello.to_shard.0),
            };
            (fb::Content::Hello, fb::Hello::create(&mut builder, &args).as_union_value())
        }
        Greeting::Welcome(from) => {
            let from = encode_introduction(&mut builder, from);
            let args = fb::WelcomeArgs { from: Some(from) };
            (fb::Content::Welcome, fb::Welcome::create(&mut builder, &args).as_union_value())
        }
        Greeting::Refusal(refusal) => {
            let text = builder.create_string(start_of(&refusal.text, TEXT_BYTES_MAX));
            let args = fb::RefusalArgs {
                kind: refusal.kind as u8,
                text: Some(text),
                shards: refusal.shards.map_or(0, short),
            };
            (fb::Content::Refusal, fb::Refusal::create(&mut builder, &args).as_union_value())
        }
    };
    let root = fb::Greeting::create(&mut builder, &fb::GreetingArgs { content_type, content: Some(content) });
    builder.finish(root, None);
    let bytes = builder.finished_data();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + bytes.len());
    out.put_slice(&MAGIC);
    out.put_u16_le(VERSIONS.min);
    out.put_u16_le(VERSIONS.max);
    out.put_u32_le(bytes.len() as u32);
    out.put_u32_le(crc32c::crc32c(bytes));
    out.put_slice(bytes);
    assert!(out.len() <= GREETING_BYTES_MAX, "a greeting of {} bytes", out.len());
    out.freeze()
}

fn encode_introduction<'a>(
    builder: &mut FlatBufferBuilder<'a>,
    from: &Introduction,
) -> flatbuffers::WIPOffset<fb::Introduction<'a>> {
    let cluster =
        from.cluster.as_ref().map(|cluster| builder.create_string(start_of(cluster, CLUSTER_BYTES_MAX)));
    let args = fb::IntroductionArgs {
        cluster,
        broker: from.broker.0,
        incarnation: from.incarnation.0,
        shard: short(from.shard.0),
        shards: short(from.shards),
        feature_level: from.feature_level,
        feature_level_required: from.feature_level_required,
    };
    fb::Introduction::create(builder, &args)
}

fn short(number: usize) -> u16 {
    u16::try_from(number).expect("a broker has fewer than 65536 shards")
}

fn start_of(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

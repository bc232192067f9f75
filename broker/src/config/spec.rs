//! One row of a config table: what a config is called, takes, does, and how it is described.

use super::error::BadValue;
use super::quantity;

/// Kafka's config types. The number is `config_type` in DescribeConfigs v3+ (KIP-569).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    /// A secret: what it is set to is told to nobody.
    Password = 9,
}

impl Kind {
    /// Kafka's name of the type, as in its error messages and documentation.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
            Kind::Password => "PASSWORD",
        }
    }

    /// The largest and smallest integer it holds; `None` for what is no integer.
    fn integer_range(self) -> Option<(i64, i64)> {
        match self {
            Kind::Int => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
            Kind::Short => Some((i64::from(i16::MIN), i64::from(i16::MAX))),
            Kind::Long => Some((i64::MIN, i64::MAX)),
            _ => None,
        }
    }
}

/// What a number counts. At start-up a value with a unit of its own (`512MiB`, `7d`) is converted to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A count, a level, or no number at all.
    None,
    Bytes,
    Milliseconds,
    Seconds,
    Minutes,
    Hours,
}

impl Unit {
    fn milliseconds(self) -> Option<u64> {
        match self {
            Unit::None | Unit::Bytes => None,
            Unit::Milliseconds => Some(1),
            Unit::Seconds => Some(1_000),
            Unit::Minutes => Some(60_000),
            Unit::Hours => Some(3_600_000),
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Unit::None => "units",
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "milliseconds",
            Unit::Seconds => "seconds",
            Unit::Minutes => "minutes",
            Unit::Hours => "hours",
        }
    }
}

/// Which values of its type a config takes.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// A range, or one value outside of it that means the default.
    BetweenOr(i64, i64, i64),
    /// A double from 0 to 1.
    Ratio,
    /// A string out of these.
    OneOf(&'static [&'static str]),
    /// A list whose elements are out of these.
    EachOf(&'static [&'static str]),
    /// One value only, and why no other.
    Only(&'static str, &'static str),
    /// A form of its own: what it takes in words, and a function that gives the text to keep, or why not.
    Form(&'static str, fn(&str) -> Result<String, String>),
}

/// What documentation says before the reason why a config, or the value it has, does nothing here: corectl looks for it.
pub const WITHOUT_EFFECT: &str = "Without effect here: ";

/// Whether setting a config changes what the broker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Works,
    /// Changes nothing here, for this reason. It is taken where clients and tools made for Kafka would stop without it (at
    /// start, and of topics), and described as read-only with the value that is true here; `None` is null: there is no
    /// such thing.
    Nothing {
        why: &'static str,
        truth: Option<&'static str>,
    },
}

/// When a broker config may change (KIP-226). Topic configs are all dynamic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// At start only.
    ReadOnly,
    /// While running, for this broker or as the cluster's default.
    ClusterWide,
}

/// One config. Built by the functions below in the style of a table row.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub kind: Kind,
    /// The default as text, in canonical form; `None` is Kafka's null: not set.
    pub default: Option<&'static str>,
    pub check: Check,
    pub unit: Unit,
    pub effect: Effect,
    pub update: Update,
    /// One of its values that is taken and has no effect yet, and why.
    pub unbuilt: Option<(&'static str, &'static str)>,
    /// What it does, in a sentence.
    pub doc: &'static str,
}

const fn spec(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    check: Check,
    doc: &'static str,
) -> Spec {
    Spec {
        name,
        kind,
        default,
        check,
        unit: Unit::None,
        effect: Effect::Works,
        update: Update::ReadOnly,
        unbuilt: None,
        doc,
    }
}

pub(super) const fn boolean(name: &'static str, default: &'static str, doc: &'static str) -> Spec {
    spec(name, Kind::Boolean, Some(default), Check::Any, doc)
}

pub(super) const fn string(
    name: &'static str,
    default: &'static str,
    check: Check,
    doc: &'static str,
) -> Spec {
    spec(name, Kind::String, Some(default), check, doc)
}

pub(super) const fn int(name: &'static str, default: &'static str, check: Check, doc: &'static str) -> Spec {
    spec(name, Kind::Int, Some(default), check, doc)
}

pub(super) const fn short(
    name: &'static str,
    default: &'static str,
    check: Check,
    doc: &'static str,
) -> Spec {
    spec(name, Kind::Short, Some(default), check, doc)
}

pub(super) const fn long(name: &'static str, default: &'static str, check: Check, doc: &'static str) -> Spec {
    spec(name, Kind::Long, Some(default), check, doc)
}

pub(super) const fn double(
    name: &'static str,
    default: &'static str,
    check: Check,
    doc: &'static str,
) -> Spec {
    spec(name, Kind::Double, Some(default), check, doc)
}

pub(super) const fn list(name: &'static str, default: &'static str, check: Check, doc: &'static str) -> Spec {
    spec(name, Kind::List, Some(default), check, doc)
}

impl Spec {
    pub(super) const fn unset(mut self) -> Spec {
        self.default = None;
        self
    }

    pub(super) const fn unit(mut self, unit: Unit) -> Spec {
        self.unit = unit;
        self
    }

    pub(super) const fn bytes(self) -> Spec {
        self.unit(Unit::Bytes)
    }

    pub(super) const fn ms(self) -> Spec {
        self.unit(Unit::Milliseconds)
    }

    pub(super) const fn dynamic(mut self) -> Spec {
        self.update = Update::ClusterWide;
        self
    }

    /// What Kafka has by default is how it is here, always.
    pub(super) const fn no_effect(self, why: &'static str) -> Spec {
        let default = self.default;
        self.always(default, why)
    }

    /// Here it is this, always; `None` where there is no such thing.
    pub(super) const fn always(mut self, truth: Option<&'static str>, why: &'static str) -> Spec {
        self.effect = Effect::Nothing { why, truth };
        self.update = Update::ReadOnly;
        self
    }

    pub(super) const fn unbuilt(mut self, value: &'static str, why: &'static str) -> Spec {
        self.unbuilt = Some((value, why));
        self
    }

    /// Why this value, or an element of it, has no effect here, if it has none.
    pub fn without_effect(&self, value: &str) -> Option<&'static str> {
        match (self.effect, self.unbuilt) {
            (Effect::Nothing { why, .. }, _) => Some(why),
            (Effect::Works, Some((unbuilt, why))) => split_list(value).contains(&unbuilt).then_some(why),
            (Effect::Works, None) => None,
        }
    }

    /// What the config does, and if it does nothing with this value, why: the documentation DescribeConfigs gives.
    pub fn documentation(&self, value: Option<&str>) -> String {
        match self.without_effect(value.unwrap_or_default()) {
            None => self.doc.to_owned(),
            Some(why) => format!("{} {WITHOUT_EFFECT}{why}", self.doc),
        }
    }

    /// Checks a value and gives the text to keep: trimmed, booleans in lower case, lists without spaces and
    /// repetitions. Follows Kafka's ConfigDef in what it takes and in the words of its refusals.
    pub fn canonical(&self, text: &str) -> Result<String, BadValue> {
        let text = text.trim();
        let bad = |value: &str, why: String| BadValue { name: self.name, value: value.to_owned(), why };
        match self.kind {
            Kind::Boolean => {
                let value = text.to_ascii_lowercase();
                if value != "true" && value != "false" {
                    return Err(bad(text, "Expected value to be either true or false".to_owned()));
                }
                self.check.string(&value).map_err(|why| bad(text, why))?;
                Ok(value)
            }
            Kind::Int | Kind::Short | Kind::Long => {
                let (min, max) = self.kind.integer_range().expect("an integer type");
                let number = text.parse::<i64>().ok().filter(|n| (min..=max).contains(n));
                let Some(number) = number else {
                    return Err(bad(text, format!("Not a number of type {}", self.kind.name())));
                };
                self.check.integer(number).map_err(|why| bad(&number.to_string(), why))?;
                Ok(number.to_string())
            }
            Kind::Double => {
                let Some(number) = text.parse::<f64>().ok().filter(|n| n.is_finite()) else {
                    return Err(bad(text, "Not a number of type DOUBLE".to_owned()));
                };
                let value = java_double(number);
                self.check.double(number).map_err(|why| bad(&value, why))?;
                Ok(value)
            }
            // Why a secret is not taken must not have it.
            Kind::Password => Ok(text.to_owned()),
            Kind::String => self.check.string(text).map_err(|why| bad(text, why)),
            Kind::List => {
                let elements = split_list(text);
                if elements.iter().any(|element| element.is_empty()) {
                    return Err(bad(
                        text,
                        format!("Configuration '{}' values must not be empty.", self.name),
                    ));
                }
                let mut kept: Vec<&str> = Vec::new();
                for element in elements {
                    self.check.element(element).map_err(|why| bad(element, why))?;
                    if !kept.contains(&element) {
                        kept.push(element);
                    }
                }
                let value = kept.join(",");
                self.check.list(&value).map_err(|why| bad(&format!("[{value}]"), why))
            }
        }
    }

    /// Checks a value written by a person at start-up: as [`Spec::canonical`], and numbers may bear a unit.
    pub fn canonical_from_person(&self, text: &str) -> Result<String, BadValue> {
        let text = text.trim();
        let explain = |mut bad: BadValue| {
            bad.why = format!("{} (takes {})", bad.why, self.takes());
            bad
        };
        let Some((min, max)) = self.kind.integer_range() else {
            return self.canonical(text).map_err(explain);
        };
        let plain = text.strip_prefix(['-', '+']).unwrap_or(text);
        if self.unit == Unit::None || plain.is_empty() || plain.bytes().all(|b| b.is_ascii_digit()) {
            return self.canonical(text).map_err(explain);
        }
        let bad = |why: String| explain(BadValue { name: self.name, value: text.to_owned(), why });
        let number = match self.unit.milliseconds() {
            None => quantity::parse_size(text).map_err(bad)?,
            Some(unit_ms) => {
                let ms = quantity::parse_duration_ms(text).map_err(bad)?;
                if ms % unit_ms != 0 {
                    return Err(bad(format!("it is not a whole number of {}", self.unit.plural())));
                }
                ms / unit_ms
            }
        };
        if i128::from(number) > i128::from(max) {
            let unit = self.unit.plural();
            return Err(bad(format!(
                "{number} {unit} do not fit: the type {} ends at {max}",
                self.kind.name()
            )));
        }
        debug_assert!(min < 0);
        self.canonical(&number.to_string()).map_err(explain)
    }

    /// The values it takes, in words, for documentation and for errors at start-up.
    pub fn takes(&self) -> String {
        let noun = match (self.kind, self.unit) {
            (Kind::Boolean, _) => "true or false".to_owned(),
            (Kind::String, _) => "text".to_owned(),
            (Kind::Double, _) => "a number".to_owned(),
            (Kind::List, _) => "a list separated by commas".to_owned(),
            (_, Unit::None) => "a whole number".to_owned(),
            (_, Unit::Bytes) => "bytes, or a size such as 512MiB".to_owned(),
            (_, unit) => format!("{}, or a duration such as 90s or 7d", unit.plural()),
        };
        match self.check {
            Check::Any => noun,
            Check::AtLeast(min) => format!("{noun}, at least {min}"),
            Check::Between(min, max) => format!("{noun}, from {min} to {max}"),
            Check::BetweenOr(min, max, or) => format!("{noun}, from {min} to {max}, or {or}"),
            Check::Ratio => format!("{noun} from 0 to 1"),
            Check::OneOf(values) => format!("one of {}", values.join(", ")),
            Check::EachOf(values) => format!("{noun}, each one of {}", values.join(", ")),
            Check::Only(value, _) => format!("only {value}"),
            Check::Form(takes, _) => takes.to_owned(),
        }
    }
}

/// The elements of a list value, trimmed. The empty text is the empty list.
pub fn split_list(text: &str) -> Vec<&str> {
    let text = text.trim();
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::trim).collect() }
}

impl Check {
    fn integer(&self, number: i64) -> Result<(), String> {
        let at_least = |min: i64| format!("Value must be at least {min}");
        let no_more = |max: i64| format!("Value must be no more than {max}");
        match *self {
            Check::AtLeast(min) if number < min => Err(at_least(min)),
            Check::Between(min, _) if number < min => Err(at_least(min)),
            Check::Between(_, max) if number > max => Err(no_more(max)),
            Check::BetweenOr(min, max, or) if number != or && !(min..=max).contains(&number) => {
                Err(format!("Value must be between {min} and {max} or equal to {or}"))
            }
            Check::Only(value, why) if number.to_string() != value => Err(why.to_owned()),
            _ => Ok(()),
        }
    }

    fn double(&self, number: f64) -> Result<(), String> {
        match *self {
            Check::Ratio if number < 0.0 => Err("Value must be at least 0".to_owned()),
            Check::Ratio if number > 1.0 => Err("Value must be no more than 1".to_owned()),
            _ => Ok(()),
        }
    }

    fn string(&self, text: &str) -> Result<String, String> {
        match *self {
            Check::OneOf(values) if !values.contains(&text) => {
                Err(format!("String must be one of: {}", values.join(", ")))
            }
            Check::Only(value, why) if text != value => Err(why.to_owned()),
            Check::Form(_, form) => form(text),
            _ => Ok(text.to_owned()),
        }
    }

    fn element(&self, element: &str) -> Result<(), String> {
        match *self {
            Check::EachOf(values) if !values.contains(&element) => {
                Err(format!("String must be one of: {}", values.join(", ")))
            }
            _ => Ok(()),
        }
    }

    fn list(&self, text: &str) -> Result<String, String> {
        match *self {
            Check::Only(value, why) if text != value => Err(why.to_owned()),
            Check::Form(_, form) => form(text),
            _ => Ok(text.to_owned()),
        }
    }
}

/// A double as Java's `Double.toString` writes it, which is how clients of Kafka see it: `0.5`, `1.0E10`.
fn java_double(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    let (mantissa, exponent) = text.split_once('E').expect("exponent form has an E");
    let point = if mantissa.contains('.') { "" } else { ".0" };
    format!("{mantissa}{point}E{exponent}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rows;
    use super::*;

    proptest! {
        /// Over every row of the tables: what is kept is taken again as it is, by clients and at start alike.
        #[test]
        fn canonical_stays_canonical(text in "[-+]?[0-9a-zA-Z.,: \\[\\]/*]{0,24}") {
            for spec in rows::broker().chain(rows::topic().iter().map(|row| &row.spec)) {
                if let Ok(kept) = spec.canonical(&text) {
                    prop_assert_eq!(spec.canonical(&kept), Ok(kept.clone()), "{}", spec.name);
                    prop_assert_eq!(spec.canonical_from_person(&kept), Ok(kept.clone()), "{}", spec.name);
                }
                let _ = spec.canonical_from_person(&text);
            }
        }
    }

    fn why(spec: &Spec, text: &str) -> String {
        spec.canonical(text).unwrap_err().to_string()
    }

    #[test]
    fn refusals_in_kafkas_words() {
        const SEGMENT: Spec = int("segment.bytes", "1", Check::AtLeast(1_048_576), "").bytes();
        const GZIP: Spec = int("compression.gzip.level", "-1", Check::BetweenOr(1, 9, -1), "");
        const LZ4: Spec = int("compression.lz4.level", "9", Check::Between(1, 17), "");
        const RATIO: Spec = double("min.cleanable.dirty.ratio", "0.5", Check::Ratio, "");
        const FLAG: Spec = boolean("preallocate", "false", "");
        const POLICY: Spec = list("cleanup.policy", "delete", Check::EachOf(&["compact", "delete"]), "");
        const TIMESTAMP: Spec = string(
            "message.timestamp.type",
            "CreateTime",
            Check::OneOf(&["CreateTime", "LogAppendTime"]),
            "",
        );
        for (spec, value, expected) in [
            (
                SEGMENT,
                "1000",
                "Invalid value 1000 for configuration segment.bytes: Value must be at least 1048576",
            ),
            (
                SEGMENT,
                "99999999999",
                "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT",
            ),
            (SEGMENT, "", "Invalid value  for configuration segment.bytes: Not a number of type INT"),
            (SEGMENT, "2MiB", "Invalid value 2MiB for configuration segment.bytes: Not a number of type INT"),
            (
                GZIP,
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                LZ4,
                "18",
                "Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17",
            ),
            (LZ4, "0", "Invalid value 0 for configuration compression.lz4.level: Value must be at least 1"),
            (
                RATIO,
                "2",
                "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                RATIO,
                "NaN",
                "Invalid value NaN for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE",
            ),
            (
                FLAG,
                "yes",
                "Invalid value yes for configuration preallocate: Expected value to be either true or false",
            ),
            (
                POLICY,
                "delete,foo",
                "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            (
                POLICY,
                "delete,,compact",
                "Invalid value delete,,compact for configuration cleanup.policy: Configuration 'cleanup.policy' values must not be empty.",
            ),
            (
                TIMESTAMP,
                "createtime",
                "Invalid value createtime for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime",
            ),
        ] {
            assert_eq!(why(&spec, value), expected);
        }
        for (spec, value, expected) in [
            (SEGMENT, " 2097152 ", "2097152"),
            (SEGMENT, "+2097152", "2097152"),
            (GZIP, "-1", "-1"),
            (FLAG, "TRUE", "true"),
            (POLICY, " compact , delete ", "compact,delete"),
            (POLICY, "delete,delete", "delete"),
            (POLICY, "", ""),
        ] {
            assert_eq!(spec.canonical(value).unwrap(), expected);
        }
    }

    #[test]
    fn people_may_write_units() {
        const HOURS: Spec = int("log.retention.hours", "168", Check::AtLeast(-1), "").unit(Unit::Hours);
        const BYTES: Spec = int("log.segment.bytes", "1", Check::AtLeast(1 << 20), "").bytes();
        assert_eq!(HOURS.canonical_from_person("7d").unwrap(), "168");
        assert_eq!(HOURS.canonical_from_person("-1").unwrap(), "-1");
        assert_eq!(BYTES.canonical_from_person("64 MiB").unwrap(), "67108864");
        for (spec, text, expected) in [
            (HOURS, "90m", "it is not a whole number of hours"),
            (BYTES, "4GiB", "4294967296 bytes do not fit: the type INT ends at 2147483647"),
            (
                BYTES,
                "1KiB",
                "Value must be at least 1048576 (takes bytes, or a size such as 512MiB, at least 1048576)",
            ),
            (BYTES, "lots", "does not begin with a number"),
            (BYTES, "", "Not a number of type INT"),
        ] {
            let error = spec.canonical_from_person(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn doubles_are_written_as_java_does() {
        for (number, expected) in [
            (0.5, "0.5"),
            (1.0, "1.0"),
            (0.0, "0.0"),
            (1e7, "1.0E7"),
            (1.5e-4, "1.5E-4"),
            (f64::MAX, "1.7976931348623157E308"),
        ] {
            assert_eq!(java_double(number), expected);
        }
    }
}

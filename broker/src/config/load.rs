//! Loading at start: flags over environment over file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::args::Args;
use super::error::{ConfigError, Origin};
use super::file;
use super::layers::StaticConfig;
use super::nearest::nearest;
use super::rows;
use super::spec::Spec;

const ENV_PREFIX: &str = "CORELOG_";
/// Names the configuration file; it has no config of its own.
const ENV_FILE: &str = "CORELOG_CONFIG";
/// Where the file is looked for when nobody names one, first come first served.
const FILES: [&str; 2] = ["./corelog.toml", "/etc/corelog/corelog.toml"];

/// Reads flags, environment and file, and checks every value. All that is wrong is reported at once.
pub fn load(
    args: &Args,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<StaticConfig, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let (env, env_file) = ours(env, &mut errors);
    let flags = flags(args, &mut errors);
    // One that is there and cannot be read is told, not passed over.
    let found = || FILES.iter().map(PathBuf::from).find(|path| path.symlink_metadata().is_ok());
    let path = args.config.clone().or(env_file).or_else(found);
    let file = match &path {
        Some(path) => file::read(path).unwrap_or_else(|found| {
            errors.extend(found);
            Vec::new()
        }),
        None => Vec::new(),
    };
    let file = file.into_iter().map(|entry| (known(&entry.name), entry.value, entry.origin)).collect();

    let mut fixed = StaticConfig::with_file(path);
    for layer in [flags, env, file] {
        put_layer(&mut fixed, layer, &mut errors);
    }
    if errors.is_empty() { Ok(fixed) } else { Err(errors) }
}

type Given = (Result<&'static Spec, String>, String, Origin);

fn put_layer(fixed: &mut StaticConfig, layer: Vec<Given>, errors: &mut Vec<ConfigError>) {
    let mut first: BTreeMap<&'static str, Origin> = BTreeMap::new();
    for (spec, value, origin) in layer {
        let spec = match spec {
            Ok(spec) => spec,
            Err(what) => {
                errors.push(ConfigError::at(origin, what));
                continue;
            }
        };
        // Within a layer an order would be a guess (the environment has none), and a name can have an alias.
        if let Some(first) = first.get(spec.name) {
            errors.push(ConfigError::at(origin, format!("{} is given twice, first by {first}", spec.name)));
            continue;
        }
        first.insert(spec.name, origin.clone());
        match spec.canonical_from_person(&value) {
            Ok(value) => fixed.put_below(spec, value, origin),
            Err(bad) => errors.push(ConfigError::at(origin, bad.to_string())),
        }
    }
}

/// The broker config of this name or alias, or why there is none: unknown, refused, or another's.
pub(super) fn known(name: &str) -> Result<&'static Spec, String> {
    let name =
        rows::ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, canonical)| canonical);
    if let Some(spec) = rows::broker_named(name) {
        return Ok(spec);
    }
    if let Some(why) = rows::refused_broker(name) {
        return Err(format!("{name} can't be set: {why}"));
    }
    if let Some(row) = rows::topic_named(name) {
        return Err(match row.synonyms.first() {
            Some((synonym, _)) => {
                format!("{name} is a topic's config; its default for all topics is {synonym}")
            }
            None => format!("{name} is a topic's config, and has no default for all topics"),
        });
    }
    let names = rows::broker().map(|spec| spec.name).chain(rows::ALIASES.iter().map(|(alias, _)| *alias));
    Err(match nearest(name, names) {
        Some(near) => format!("unknown config {name}; the nearest known one is {near}"),
        None => format!("unknown config {name}; corelog --help-configs lists all"),
    })
}

fn flags(args: &Args, errors: &mut Vec<ConfigError>) -> Vec<Given> {
    let mut given: Vec<Given> =
        args.flags().map(|(flag, name, value)| (known(name), value.to_owned(), Origin::Flag(flag))).collect();
    for set in &args.set {
        let origin = Origin::Flag("--set");
        match set.split_once('=') {
            Some((name, value)) => given.push((known(name.trim()), value.to_owned(), origin)),
            None => errors.push(ConfigError::at(origin, format!("'{set}' is not of the form NAME=VALUE"))),
        }
    }
    given
}

/// Our part of the environment: values by variable, and the configuration file's path.
fn ours(
    env: impl IntoIterator<Item = (OsString, OsString)>,
    errors: &mut Vec<ConfigError>,
) -> (Vec<Given>, Option<PathBuf>) {
    let mut given = Vec::new();
    let mut file = None;
    for (variable, value) in env {
        let Some(variable) = variable.to_str().filter(|variable| variable.starts_with(ENV_PREFIX)) else {
            continue;
        };
        if variable == ENV_FILE {
            file = Some(PathBuf::from(value));
            continue;
        }
        if is_service_link(variable, &value) {
            continue;
        }
        let origin = Origin::Env(variable.to_owned());
        match value.into_string() {
            Ok(value) => given.push((known_variable(variable), value, origin)),
            Err(_) => errors.push(ConfigError::at(origin, "its value is not UTF-8 text")),
        }
    }
    (given, file)
}

/// The variable that sets a broker config.
pub(super) fn variable(name: &str) -> String {
    let name = name.strip_prefix("corelog.").unwrap_or(name);
    format!("{ENV_PREFIX}{}", name.replace(['.', '-'], "_").to_ascii_uppercase())
}

fn known_variable(name: &str) -> Result<&'static Spec, String> {
    let names = || rows::broker().map(|spec| spec.name).chain(rows::ALIASES.iter().map(|(alias, _)| *alias));
    if let Some(config) = names().find(|config| variable(config) == name) {
        return known(config);
    }
    // As it would stand in the file: refusals know it by that name.
    let dotted = name[ENV_PREFIX.len()..].to_ascii_lowercase().replace('_', ".");
    if rows::refused_broker(&dotted).is_some() || rows::topic_named(&dotted).is_some() {
        return known(&dotted).map_err(|what| what.to_string());
    }
    let variables: Vec<String> = names().map(variable).chain([ENV_FILE.to_owned()]).collect();
    Err(match nearest(name, variables.iter().map(String::as_str)) {
        Some(near) => format!("unknown; the nearest known variable is {near}"),
        None => format!(
            "unknown; variables that begin with {ENV_PREFIX} are settings, listed by corelog --help-configs"
        ),
    })
}

/// What Kubernetes puts into the environment of every pod beside a Service called `corelog`: no settings of ours.
fn is_service_link(variable: &str, value: &OsStr) -> bool {
    let url = value.to_str().is_some_and(|value| value.starts_with("tcp://") || value.starts_with("udp://"));
    let of_a_port = variable.split_once("_PORT_").is_some_and(|(_, rest)| {
        let port = rest.split('_').next().unwrap_or_default();
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || (variable.ends_with("_PORT") && url)
        || of_a_port
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::super::broker::BrokerConfig;
    use super::super::layers::{ConfigMap, Layers};
    use super::super::machine::Machine;
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn args(line: &[&str]) -> Args {
        Args::try_parse_from([&["corelog"], line].concat()).unwrap()
    }

    struct File(PathBuf);

    impl File {
        fn new(tag: &str, text: &str) -> File {
            let path = std::env::temp_dir().join(format!("corelog-load-{tag}-{}.toml", std::process::id()));
            std::fs::write(&path, text).unwrap();
            File(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let file =
            File::new("precedence", "num.partitions = 1\nmemory = '1GiB'\ncores = '0'\ndata-dir = '/file'\n");
        let variables = [
            ("CORELOG_CONFIG", file.path()),
            ("CORELOG_NUM_PARTITIONS", "2"),
            ("CORELOG_CORES", "1"),
            ("PATH", "/bin"),
        ];
        let fixed = load(&args(&["--cores", "2-3"]), env(&variables)).unwrap();
        for (name, value, origin) in [
            ("corelog.cores", "2-3", Origin::Flag("--cores")),
            ("num.partitions", "2", Origin::Env("CORELOG_NUM_PARTITIONS".into())),
            ("log.dirs", "/file", Origin::File { path: file.path().into(), line: 4 }),
            ("corelog.memory", "1073741824", Origin::File { path: file.path().into(), line: 2 }),
        ] {
            assert_eq!(fixed.get(name), Some(value));
            assert_eq!(fixed.origin(name), Some(&origin));
        }
        assert_eq!(fixed.get("node.id"), None);
        // --config wins over CORELOG_CONFIG.
        let other = File::new("precedence-2", "num.partitions = 9\n");
        let fixed =
            load(&args(&["--config", other.path()]), env(&[("CORELOG_CONFIG", file.path())])).unwrap();
        assert_eq!(fixed.get("num.partitions"), Some("9"));
        assert_eq!(fixed.file.as_deref(), Some(std::path::Path::new(other.path())));
        assert_eq!(fixed.get("log.dirs"), None);
    }

    #[test]
    fn every_flag_has_its_variable() {
        let variables = [
            ("CORELOG_DATA_DIR", "/d"),
            ("CORELOG_LISTEN", "127.0.0.1:1"),
            ("CORELOG_ADVERTISE", "h:1"),
            ("CORELOG_ADMIN", "127.0.0.1:2"),
            ("CORELOG_PEER", "b1:3"),
            ("CORELOG_SEEDS", "b2:3,b1:3"),
            ("CORELOG_CORES", "0"),
            ("CORELOG_MEMORY", "1GiB"),
            ("CORELOG_LOG", "debug"),
            ("CORELOG_LOG_FORMAT", "json"),
            ("CORELOG_LOG_RETENTION_HOURS", "7d"),
        ];
        let fixed = load(&Args::default(), env(&variables)).unwrap();
        for (name, value) in [
            ("log.dirs", "/d"),
            ("listeners", "PLAINTEXT://127.0.0.1:1"),
            ("advertised.listeners", "h:1"),
            ("corelog.admin", "127.0.0.1:2"),
            ("corelog.peer", "b1:3"),
            ("corelog.seeds", "b1:3,b2:3"),
            ("corelog.cores", "0"),
            ("corelog.memory", "1073741824"),
            ("corelog.log.level", "debug"),
            ("corelog.log.format", "json"),
            ("log.retention.hours", "168"),
        ] {
            assert_eq!(fixed.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let file = File::new(
            "wrong",
            "num.partition = 1\nnum.partitions = 0\nretention.ms = 5\nssl.protocol = 'x'\n",
        );
        let line = [
            "--config",
            file.path(),
            "--set",
            "log.retention.hour=1",
            "--set",
            "nonsense",
            "--set",
            "zzz=1",
            "--data-dir",
            "/a",
            "--set",
            "log.dirs=/b",
        ];
        let variables = [
            ("CORELOG_NUM_PARTITION", "1"),
            ("CORELOG_SSL_PROTOCOL", "x"),
            ("CORELOG_XYZZY", "1"),
            ("CORELOG_MEMORY", "much"),
        ];
        let errors = load(&args(&line), env(&variables)).unwrap_err();
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for part in [
            "--set: unknown config log.retention.hour; the nearest known one is log.retention.hours",
            "--set: 'nonsense' is not of the form NAME=VALUE",
            "--set: unknown config zzz; corelog --help-configs lists all",
            "--set: log.dirs is given twice, first by --data-dir",
            "environment variable CORELOG_NUM_PARTITION: unknown; the nearest known variable is CORELOG_NUM_PARTITIONS",
            "environment variable CORELOG_SSL_PROTOCOL: ssl.protocol can't be set: TLS isn't built yet",
            "environment variable CORELOG_XYZZY: unknown; variables that begin with CORELOG_ are settings",
            "environment variable CORELOG_MEMORY: Invalid value much for configuration corelog.memory",
            "line 1: unknown config num.partition; the nearest known one is num.partitions",
            "line 2: Invalid value 0 for configuration num.partitions: Value must be at least 1",
            "line 3: retention.ms is a topic's config; its default for all topics is log.retention.ms",
            "line 4: ssl.protocol can't be set: TLS isn't built yet",
        ] {
            assert!(said.iter().any(|said| said.contains(part)), "{part}\n{said:#?}");
        }
        assert_eq!(said.len(), 12, "{said:#?}");
    }

    #[test]
    fn service_links_of_kubernetes_are_no_settings() {
        let variables = [
            ("CORELOG_SERVICE_HOST", "10.0.0.1"),
            ("CORELOG_SERVICE_PORT", "9092"),
            ("CORELOG_SERVICE_PORT_KAFKA", "9092"),
            ("CORELOG_PORT", "tcp://10.0.0.1:9092"),
            ("CORELOG_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
            ("CORELOG_PORT_9092_TCP_ADDR", "10.0.0.1"),
            ("CORELOG_HEADLESS_SERVICE_HOST", "10.0.0.1"),
        ];
        load(&Args::default(), env(&variables)).unwrap();
        load(&Args::default(), env(&[("CORELOG_PORT", "9092")])).unwrap_err();
    }

    #[test]
    fn no_two_configs_share_a_variable() {
        let mut seen = BTreeMap::new();
        for name in rows::broker().map(|spec| spec.name).chain(rows::ALIASES.iter().map(|(alias, _)| *alias))
        {
            let config = known(name).unwrap().name;
            if let Some(other) = seen.insert(variable(name), config) {
                assert_eq!(other, config, "{}", variable(name));
            }
        }
    }

    /// A name that means something, or nearly.
    fn any_name() -> impl Strategy<Value = String> {
        let names: Vec<&str> = (rows::broker().map(|spec| spec.name))
            .chain(rows::topic().iter().map(|row| row.spec.name))
            .chain(rows::ALIASES.iter().map(|(alias, _)| *alias))
            .collect();
        prop_oneof![
            20 => prop::sample::select(names).prop_map(str::to_owned),
            1 => "[a-z.]{0,12}",
        ]
    }

    /// Text that fits between TOML's single quotes.
    fn any_value() -> impl Strategy<Value = String> {
        let shaped = [
            "-?[0-9]{1,20}",
            "[0-9]{0,19}[.]?[0-9]{0,19} ?(|B|KiB|MiB|TiB|TB|ms|s|m|h|d|w)",
            "(auto|true|false|zstd|producer|compact|delete|json)",
            "[0-9]{0,5}(-[0-9]{0,5})?(,[0-9]{0,5}(-[0-9]{0,5})?){0,3}",
            "(PLAINTEXT|SSL|A)?(://)?([0-9.]{0,9}|\\[[0-9a-f:]{0,9}\\]|[a-z.-]{0,9})(:[0-9]{0,6})?,?",
            "(PLAINTEXT|[A-Z]{1,3}):(PLAINTEXT|SSL)(,[A-Z]{1,3}:PLAINTEXT)?",
            "([0-9.]{0,9}|\\[?[0-9a-f:]{0,9}\\]?):[0-9]{0,11}(,[0-9.:]{0,20})?",
            "([a-z._]{0,9}=)?(info|DEBUG|off|x)(,[a-z:]{0,9}=(warn|trace))?",
            "[^'\\p{Cc}]{0,40}",
        ];
        proptest::strategy::Union::new(
            shaped.map(|shape| proptest::string::string_regex(shape).expect("a regular expression")),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// What the checks of single values let through is taken as it stands when the values are put together.
        #[test]
        fn any_file_is_taken_or_refused(values in prop::collection::vec((any_name(), any_value()), 1..6)) {
            let text: String =
                values.iter().map(|(name, value)| format!("\"{name}\" = '{value}'\n")).collect();
            if let Ok(entries) = file::parse(&text, "c.toml") {
                let file =
                    entries.into_iter().map(|entry| (known(&entry.name), entry.value, entry.origin)).collect();
                // What is refused does not keep the rest from being looked at.
                let mut fixed = StaticConfig::default();
                put_layer(&mut fixed, file, &mut Vec::new());
                let none = ConfigMap::new();
                let layers = Layers { broker: &none, cluster: &none, fixed: &fixed };
                let machine = Machine {
                    cpus: vec![0, 1],
                    cpu_quota: None,
                    memory_bytes: 16 << 30,
                    host_name: "box".into(),
                };
                let _ = BrokerConfig::resolve(&layers, &machine);
            }
        }
    }
}

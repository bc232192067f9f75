//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// A streaming broker that speaks Kafka's protocol.
///
/// Every setting can be given as a flag, as a variable CORELOG_<NAME> of the environment (dots become underscores:
/// CORELOG_LOG_RETENTION_HOURS), or in the TOML file; flags win over the environment, that over the file. The file is the one
/// that --config or CORELOG_CONFIG names; without either ./corelog.toml, or else /etc/corelog/corelog.toml, if it is there.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "corelog", version = crate::version::version())]
pub struct Args {
    /// A TOML file with settings by their Kafka names; --print-config makes one, `corectl config convert` makes one of a
    /// server.properties.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory that holds all data [default: ./corelog-data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The address to serve Kafka clients on [default: 127.0.0.1:9092].
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// The address that clients are told to connect to [default: the one listened on].
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The address of metrics and health over HTTP [default: 127.0.0.1:9644].
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<String>,
    /// The address of this broker for other brokers [default: none, the broker is alone].
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: Option<String>,
    /// The addresses, --peer, of the brokers that found a cluster together; the same on all.
    #[arg(long, value_name = "LIST")]
    pub seeds: Option<String>,
    /// The CPUs to run on, such as 0-3,6 [default: all that the process may use].
    #[arg(long, value_name = "LIST")]
    pub cores: Option<String>,
    /// The memory budget, such as 4GiB [default: a quarter of the machine's, at most 1 GiB per core].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// What to log: a level, or levels by logger such as info,corelog_storage=debug [default: info].
    #[arg(long, value_name = "LEVELS")]
    pub log: Option<String>,
    /// How to log: text or json [default: text].
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Any setting by its name; may be repeated. --help-configs lists them.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Print every setting of brokers and topics as Markdown, and exit.
    #[arg(long)]
    pub help_configs: bool,
    /// Print a configuration file with every setting at its default, commented out, and exit.
    #[arg(long)]
    pub print_config: bool,
    /// Print every metric as Markdown, and exit.
    #[arg(long)]
    pub help_metrics: bool,
}

impl Args {
    /// The flags that stand for one config each: flag, config, value.
    pub(super) fn flags(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        [
            ("--data-dir", "log.dirs", &self.data_dir),
            ("--listen", "listeners", &self.listen),
            ("--advertise", "advertised.listeners", &self.advertise),
            ("--admin", "corelog.admin", &self.admin),
            ("--peer", "corelog.peer", &self.peer),
            ("--seeds", "corelog.seeds", &self.seeds),
            ("--cores", "corelog.cores", &self.cores),
            ("--memory", "corelog.memory", &self.memory),
            ("--log", "corelog.log.level", &self.log),
            ("--log-format", "corelog.log.format", &self.log_format),
        ]
        .into_iter()
        .filter_map(|(flag, name, value)| value.as_deref().map(|value| (flag, name, value)))
    }
}

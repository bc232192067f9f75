//! What all of a client's parts share.

use crate::error::{Error, Result};
use std::time::Duration;

/// How to reach the cluster. `ClientConfig::new("host:port,host:port")` and go; every field may be changed.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Some of the cluster's brokers as `host:port`; the others are learned from them.
    pub bootstrap: Vec<String>,
    /// Named in every request; brokers show it in logs and group descriptions.
    pub client_id: String,
    /// For setting up a connection, name lookup included.
    pub connect_timeout: Duration,
    /// For the answer to one request. Joins of groups wait longer, as long as their rebalance may take.
    pub request_timeout: Duration,
    /// For a whole call of admin, offsets, metadata and transactions, retries included.
    pub api_timeout: Duration,
    /// Before a retry; doubles with each up to `retry_backoff_max`.
    pub retry_backoff: Duration,
    pub retry_backoff_max: Duration,
    /// Before connecting again to a broker that could not be reached; doubles with each failure up to `reconnect_backoff_max`.
    pub reconnect_backoff: Duration,
    pub reconnect_backoff_max: Duration,
    /// What is known of topics and leaders is asked anew after this long, also without an error.
    pub metadata_max_age: Duration,
    /// Requests without an answer on one connection; callers wait beyond it.
    pub requests_in_flight_max: usize,
    /// A larger answer, in bytes, closes the connection: it is an error of the other side, or no Kafka broker at all.
    pub response_bytes_max: usize,
}

/// In place of times that are longer than clocks count.
pub(crate) const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// What is done at intervals, or again and again, is not done more often.
pub(crate) const INTERVAL_MIN: Duration = Duration::from_millis(1);

pub(crate) fn bound<const N: usize>(times: [&mut Duration; N]) {
    times.into_iter().for_each(|time| *time = FOREVER.min(*time));
}

impl ClientConfig {
    /// Defaults for brokers given as `host:port`, separated by commas. Without a port, 9092.
    pub fn new(bootstrap: &str) -> ClientConfig {
        ClientConfig {
            bootstrap: bootstrap.split(',').map(|one| one.trim().to_owned()).collect(),
            client_id: "corelog-client".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            api_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(300),
            requests_in_flight_max: 100,
            response_bytes_max: 256 << 20,
        }
    }

    /// With times that can be counted with.
    pub(crate) fn bounded(mut self) -> ClientConfig {
        bound([
            &mut self.connect_timeout,
            &mut self.request_timeout,
            &mut self.api_timeout,
            &mut self.retry_backoff,
            &mut self.retry_backoff_max,
            &mut self.reconnect_backoff,
            &mut self.reconnect_backoff_max,
            &mut self.metadata_max_age,
        ]);
        let pauses = [
            &mut self.retry_backoff,
            &mut self.retry_backoff_max,
            &mut self.reconnect_backoff,
            &mut self.reconnect_backoff_max,
            &mut self.metadata_max_age,
        ];
        pauses.into_iter().for_each(|pause| *pause = INTERVAL_MIN.max(*pause));
        self
    }

    pub(crate) fn addresses(&self) -> Result<Vec<Address>> {
        if self.requests_in_flight_max == 0 {
            return Err(Error::config("requests_in_flight_max is 0", "use at least 1"));
        }
        let addresses: Result<Vec<_>> = self.bootstrap.iter().map(|text| Address::parse(text)).collect();
        match addresses? {
            none if none.is_empty() => {
                Err(Error::config("no bootstrap broker is given", "name one as host:port"))
            }
            addresses => Ok(addresses),
        }
    }
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

const PORT_DEFAULT: u16 = 9092;

impl Address {
    fn parse(text: &str) -> Result<Address> {
        let fail = || {
            Error::config(
                format!("{text:?} is no broker address"),
                "give host:port, such as 127.0.0.1:9092 or [::1]:9092",
            )
        };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(fail)?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(fail)?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(fail)?,
            None => PORT_DEFAULT,
        };
        if host.is_empty() {
            return Err(fail());
        }
        Ok(Address { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in
            [("a:1", "a:1"), ("a", "a:9092"), ("[::1]:7", "[::1]:7"), ("[::1]", "[::1]:9092")]
        {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", ":1", "a:", "a:0", "a:65536", "a:b", "::1", "[::1", "[::1]7"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        assert_eq!(ClientConfig::new("a:1, b:2").addresses().unwrap().len(), 2);
    }
}

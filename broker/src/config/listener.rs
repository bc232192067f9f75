//! Listeners: the addresses a broker serves, and those it tells clients of.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::spec::split_list;
use crate::identity::FOUNDERS_MAX;

const PLAINTEXT: &str = "PLAINTEXT";

/// A host (name or IP address, IPv6 without brackets) and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Endpoint {
    /// Parses `HOST:PORT`; the host may be empty, an IPv6 address stands in brackets.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let text = text.trim();
        let missing = || format!("'{text}' has no port: write HOST:PORT, an IPv6 address as [ADDRESS]:PORT");
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once("]:").ok_or_else(missing)?;
                if !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
                    return Err(format!("'{host}' is not an IPv6 address"));
                }
                (host, port)
            }
            None => text.rsplit_once(':').ok_or_else(missing)?,
        };
        if !text.starts_with('[') && host.contains(':') {
            return Err(format!("'{text}' is ambiguous: write an IPv6 address as [ADDRESS]:PORT"));
        }
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if !host.chars().all(known) {
            return Err(format!("'{host}' is not a host name or IP address"));
        }
        let port = port.parse::<u16>().map_err(|_| format!("'{port}' is not a port: use 0 to 65535"))?;
        Ok(Endpoint { host: host.to_owned(), port })
    }

    /// The socket address, looked up by name if it must be; IPv4 first, as Java's brokers choose. An empty host is
    /// every IPv4 address. Blocks on the resolver: for start-up.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        let host = if self.host.is_empty() { "0.0.0.0" } else { &self.host };
        let addresses: Vec<SocketAddr> = (host, self.port)
            .to_socket_addrs()
            .map_err(|error| format!("can't find the address of '{host}': {error}"))?
            .collect();
        let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        first.copied().ok_or_else(|| format!("'{host}' has no address"))
    }

    fn is_wildcard(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// Whether both cannot be listened on at once: the same port, and one address or one that covers the other. Names
    /// are not looked up.
    pub fn collides(&self, other: &Endpoint) -> bool {
        let is_v6 = |endpoint: &Endpoint| endpoint.host.contains(':');
        let covers = |one: &Endpoint, other: &Endpoint| {
            // [::] serves IPv4 too.
            one.host == "::" || ((one.host.is_empty() || one.host == "0.0.0.0") && !is_v6(other))
        };
        self.port != 0
            && self.port == other.port
            && (self.host == other.host || covers(self, other) || covers(other, self))
    }
}

/// One listener. Every core binds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    pub bind: Endpoint,
    advertised: Endpoint,
}

impl Listener {
    /// What clients are told to connect to, given the port that the listener is bound to.
    pub fn advertised(&self, bound_port: u16) -> Endpoint {
        let port = if self.advertised.port == 0 { bound_port } else { self.advertised.port };
        Endpoint { host: self.advertised.host.clone(), port }
    }

    /// Puts `listeners`, `advertised.listeners` and `listener.security.protocol.map` together, each in canonical
    /// form. `host_name` is advertised for a listener with an empty host, as Kafka does.
    pub fn all(
        listeners: &str,
        advertised: Option<&str>,
        protocols: &str,
        host_name: &str,
    ) -> Result<Vec<Listener>, String> {
        let bound = named(listeners, Some(PLAINTEXT))?;
        let told = named(advertised.unwrap_or_default(), None)?;
        for (name, endpoint) in &told {
            let fits =
                if name.is_empty() { bound.len() == 1 } else { bound.iter().any(|(bound, _)| bound == name) };
            if !fits {
                let names: Vec<&str> = bound.iter().map(|(name, _)| name.as_str()).collect();
                return Err(format!(
                    "advertised.listeners: {endpoint} must name its listener, one of {}: NAME://{endpoint}",
                    names.join(", ")
                ));
            }
        }
        let protocol_of = |name: &str| {
            split_list(protocols)
                .iter()
                .any(|pair| pair.split_once(':').is_some_and(|(known, _)| known == name))
        };
        bound
            .into_iter()
            .map(|(name, bind)| {
                if !protocol_of(&name) {
                    return Err(format!(
                        "listeners: {name} has no security protocol; add {name}:PLAINTEXT to listener.security.protocol.map"
                    ));
                }
                let told = told.iter().find(|(told, _)| *told == name || told.is_empty()).map(|(_, told)| told);
                let advertised = match told {
                    Some(told) => told.clone(),
                    None if bind.host.is_empty() => Endpoint { host: host_name.to_owned(), port: 0 },
                    None if bind.is_wildcard() => {
                        return Err(format!(
                            "the listener {bind} serves every address, and clients must be told one that they can \
                             reach: set --advertise HOST:{}",
                            bind.port
                        ));
                    }
                    None => Endpoint { host: bind.host.clone(), port: 0 },
                };
                Ok(Listener { name, bind, advertised })
            })
            .collect()
    }
}

/// `[NAME://]HOST:PORT` elements. Names are upper case, as Kafka makes them; without one it is `default_name`, or
/// empty.
fn named(text: &str, default_name: Option<&str>) -> Result<Vec<(String, Endpoint)>, String> {
    let mut found: Vec<(String, Endpoint)> = Vec::new();
    for element in split_list(text) {
        let (name, address) = match element.split_once("://") {
            Some((name, address)) => (checked_name(name)?, address),
            None => (default_name.unwrap_or_default().to_owned(), element),
        };
        let endpoint = Endpoint::parse(address)?;
        if found.iter().any(|(other, _)| *other == name) {
            return Err(if name.is_empty() {
                "only one address can go without a listener name".to_owned()
            } else {
                format!("two listeners are called {name}: each needs a name of its own, NAME://HOST:PORT")
            });
        }
        found.push((name, endpoint));
    }
    Ok(found)
}

fn checked_name(name: &str) -> Result<String, String> {
    let name = name.trim().to_ascii_uppercase();
    if matches!(name.as_str(), "SSL" | "SASL_SSL" | "SASL_PLAINTEXT") {
        return Err(format!("{name} isn't built yet: listeners are PLAINTEXT"));
    }
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return Err(format!("'{name}' is not a listener name: use letters, digits, - and _"));
    }
    Ok(name)
}

fn written(endpoints: &[(String, Endpoint)]) -> String {
    let texts: Vec<String> = endpoints
        .iter()
        .map(
            |(name, endpoint)| {
                if name.is_empty() { endpoint.to_string() } else { format!("{name}://{endpoint}") }
            },
        )
        .collect();
    texts.join(",")
}

/// `listeners`: at least one, no two on one address.
pub fn canonical_listeners(text: &str) -> Result<String, String> {
    let endpoints = named(text, Some(PLAINTEXT))?;
    if endpoints.is_empty() {
        return Err("a broker needs a listener, such as 127.0.0.1:9092".to_owned());
    }
    for (index, (name, endpoint)) in endpoints.iter().enumerate() {
        let earlier = &endpoints[..index];
        if let Some((other, at)) = earlier.iter().find(|(_, other)| endpoint.collides(other)) {
            return Err(format!(
                "{other} and {name} are both on port {}: {at} and {endpoint}",
                endpoint.port
            ));
        }
    }
    Ok(written(&endpoints))
}

/// `advertised.listeners`: hosts that clients can reach.
pub fn canonical_advertised(text: &str) -> Result<String, String> {
    let endpoints = named(text, None)?;
    for (_, endpoint) in &endpoints {
        if endpoint.host.is_empty() || endpoint.is_wildcard() {
            return Err(format!(
                "{endpoint} is no address that clients can reach: name this machine as they know it"
            ));
        }
    }
    Ok(written(&endpoints))
}

/// `listener.security.protocol.map`: names and the one protocol there is.
pub fn canonical_protocol_map(text: &str) -> Result<String, String> {
    let mut kept: Vec<String> = Vec::new();
    for element in split_list(text) {
        let (name, protocol) = element
            .split_once(':')
            .ok_or_else(|| format!("'{element}' is not of the form NAME:PLAINTEXT"))?;
        let protocol = protocol.trim().to_ascii_uppercase();
        // Kafka's own default maps the protocols to themselves; they do no harm while no listener has such a name.
        if matches!(protocol.as_str(), "SSL" | "SASL_SSL" | "SASL_PLAINTEXT")
            && name.eq_ignore_ascii_case(&protocol)
        {
            continue;
        }
        if protocol != PLAINTEXT {
            return Err(format!("{name} can't be {protocol}: PLAINTEXT is the only protocol built so far"));
        }
        let name = checked_name(name)?;
        let pair = format!("{name}:{protocol}");
        if kept.contains(&pair) {
            return Err(format!("{name} is named twice"));
        }
        kept.push(pair);
    }
    Ok(kept.join(","))
}

/// `corelog.admin`: one address.
pub fn canonical_host_port(text: &str) -> Result<String, String> {
    Ok(Endpoint::parse(text)?.to_string())
}

/// `corelog.peer`: one address that other brokers can reach, or none. In lower case, since addresses are compared.
pub fn canonical_peer(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let endpoint = Endpoint::parse(&text.to_ascii_lowercase())?;
    if endpoint.host.is_empty() || endpoint.is_wildcard() {
        return Err(format!(
            "{endpoint} is no address that other brokers can reach: name this machine as they know it"
        ));
    }
    if endpoint.port == 0 {
        return Err(format!("{endpoint} has a port that nobody can know: choose one"));
    }
    Ok(endpoint.to_string())
}

/// `corelog.seeds`: such addresses, in one order for all.
pub fn canonical_seeds(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let mut seeds = split_list(text).into_iter().map(canonical_peer).collect::<Result<Vec<_>, _>>()?;
    seeds.sort();
    if seeds[0].is_empty() {
        return Err("an address is missing between two commas".to_owned());
    }
    if let Some(twice) = seeds.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("{} stands twice", twice[0]));
    }
    if seeds.len() > FOUNDERS_MAX {
        return Err(format!(
            "{} seeds, there are {FOUNDERS_MAX} at the most: brokers that are not among them join the cluster",
            seeds.len()
        ));
    }
    Ok(seeds.join(","))
}

/// What [`canonical_seeds`] has written.
pub fn parse_seeds(text: &str) -> Vec<Endpoint> {
    let elements = split_list(text).into_iter().filter(|element| !element.is_empty());
    elements.map(|element| Endpoint::parse(element).expect("checked seeds")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, host, port) in [
            ("127.0.0.1:9092", "127.0.0.1", 9092),
            ("localhost:0", "localhost", 0),
            (":9092", "", 9092),
            ("[::1]:9092", "::1", 9092),
            ("[::]:65535", "::", 65535),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint, Endpoint { host: host.into(), port });
            assert_eq!(endpoint.to_string(), text);
        }
        for (text, part) in [
            ("127.0.0.1", "has no port"),
            ("[::1]", "has no port"),
            ("::1:9092", "is ambiguous"),
            ("[127.0.0.1]:1", "not an IPv6 address"),
            ("host:65536", "not a port"),
            ("host:", "not a port"),
            ("ho st:1", "not a host name"),
            ("", "has no port"),
        ] {
            let why = Endpoint::parse(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
        assert_eq!(
            Endpoint::parse("localhost:7").unwrap().resolve().unwrap(),
            "127.0.0.1:7".parse().unwrap()
        );
        assert_eq!(Endpoint::parse(":7").unwrap().resolve().unwrap(), "0.0.0.0:7".parse().unwrap());
        assert_eq!(Endpoint::parse("[::1]:7").unwrap().resolve().unwrap(), "[::1]:7".parse().unwrap());
    }

    #[test]
    fn canonical_forms() {
        type Form = fn(&str) -> Result<String, String>;
        let table: &[(Form, &str, Result<&str, &str>)] = &[
            (canonical_listeners, "127.0.0.1:9092", Ok("PLAINTEXT://127.0.0.1:9092")),
            (
                canonical_listeners,
                "plaintext://:9092, internal://[::1]:1",
                Ok("PLAINTEXT://:9092,INTERNAL://[::1]:1"),
            ),
            (canonical_listeners, "A://:0,B://:0", Ok("A://:0,B://:0")),
            (canonical_listeners, "", Err("needs a listener")),
            (canonical_listeners, "A://:1,B://:1", Err("A and B are both on port 1: :1 and :1")),
            (canonical_listeners, "A://10.0.0.1:1,B://0.0.0.0:1", Err("A and B are both on port 1")),
            (canonical_listeners, "A://[::]:1,B://10.0.0.1:1", Err("A and B are both on port 1")),
            (canonical_listeners, "A://:1,B://[::]:1", Err("A and B are both on port 1")),
            (canonical_listeners, "A://:1,B://[::1]:1", Ok("A://:1,B://[::1]:1")),
            (canonical_listeners, "A://10.0.0.1:1,B://10.0.0.2:1", Ok("A://10.0.0.1:1,B://10.0.0.2:1")),
            (canonical_listeners, ":1,:2", Err("two listeners are called PLAINTEXT")),
            (canonical_listeners, "SSL://:1", Err("SSL isn't built yet")),
            (canonical_listeners, "a b://:1", Err("not a listener name")),
            (canonical_advertised, "", Ok("")),
            (canonical_advertised, "broker.example:9092", Ok("broker.example:9092")),
            (canonical_advertised, "a://h:1,B://h:2", Ok("A://h:1,B://h:2")),
            (canonical_advertised, ":9092", Err("no address that clients can reach")),
            (canonical_advertised, "0.0.0.0:9092", Err("no address that clients can reach")),
            (canonical_advertised, "[::]:9092", Err("no address that clients can reach")),
            (
                canonical_protocol_map,
                "PLAINTEXT:PLAINTEXT,SSL:SSL,a:plaintext",
                Ok("PLAINTEXT:PLAINTEXT,A:PLAINTEXT"),
            ),
            (canonical_protocol_map, "A:SSL", Err("A can't be SSL")),
            (canonical_protocol_map, "A", Err("NAME:PLAINTEXT")),
            (canonical_protocol_map, "A:PLAINTEXT,a:PLAINTEXT", Err("named twice")),
            (canonical_peer, "", Ok("")),
            (canonical_peer, "Broker1.example:9093", Ok("broker1.example:9093")),
            (canonical_peer, "[::1]:9093", Ok("[::1]:9093")),
            (canonical_peer, ":9093", Err("no address that other brokers can reach")),
            (canonical_peer, "0.0.0.0:9093", Err("no address that other brokers can reach")),
            (canonical_peer, "b1:0", Err("choose one")),
            (canonical_peer, "b1", Err("has no port")),
            (canonical_seeds, "", Ok("")),
            (canonical_seeds, "c:1, A:1,b:2", Ok("a:1,b:2,c:1")),
            (canonical_seeds, "a:1,A:1", Err("a:1 stands twice")),
            (canonical_seeds, "a:1,,b:1", Err("missing between two commas")),
            (canonical_seeds, "a:1,b", Err("has no port")),
            (canonical_seeds, "a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1,i:1,j:1", Err("10 seeds, there are 9")),
        ];
        for (form, text, expected) in table {
            match (form(text), expected) {
                (Ok(kept), Ok(expected)) => {
                    assert_eq!(&kept, expected);
                    assert_eq!(form(&kept).as_deref(), Ok(*expected), "canonical stays canonical");
                }
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn advertised_addresses() {
        let plain = "PLAINTEXT:PLAINTEXT,IN:PLAINTEXT";
        let told = |listeners: &str, advertised: Option<&str>| -> Result<Vec<String>, String> {
            let listeners = Listener::all(listeners, advertised, plain, "box")?;
            Ok(listeners.iter().map(|listener| listener.advertised(1234).to_string()).collect())
        };
        for (listeners, advertised, expected) in [
            ("PLAINTEXT://127.0.0.1:9092", None, vec!["127.0.0.1:1234"]),
            ("PLAINTEXT://:9092", None, vec!["box:1234"]),
            ("PLAINTEXT://0.0.0.0:9092", Some("h:7"), vec!["h:7"]),
            ("PLAINTEXT://0.0.0.0:9092", Some("h:0"), vec!["h:1234"]),
            ("PLAINTEXT://[::1]:9092", None, vec!["[::1]:1234"]),
            ("PLAINTEXT://:1,IN://a:2", Some("IN://b:3"), vec!["box:1234", "b:3"]),
        ] {
            assert_eq!(told(listeners, advertised).unwrap(), expected, "{listeners} {advertised:?}");
        }
        for (listeners, advertised, part) in [
            ("PLAINTEXT://0.0.0.0:9092", None, "set --advertise HOST:9092"),
            ("PLAINTEXT://[::]:9092", None, "set --advertise HOST:9092"),
            ("PLAINTEXT://:1,IN://a:2", Some("b:3"), "must name its listener, one of PLAINTEXT, IN"),
            ("PLAINTEXT://:1", Some("OUT://b:3"), "must name its listener"),
            ("OUT://:1", None, "add OUT:PLAINTEXT to listener.security.protocol.map"),
        ] {
            let why = told(listeners, advertised).unwrap_err();
            assert!(why.contains(part), "{listeners}: {why}");
        }
    }
}

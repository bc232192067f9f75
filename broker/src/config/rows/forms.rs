//! Values with a form of their own: each function gives the text to keep, or why the value is refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::spec::split_list;

/// `process.roles`: both roles, in any order.
pub fn process_roles(text: &str) -> Result<String, String> {
    let mut roles = split_list(text);
    roles.sort_unstable();
    if roles == ["broker", "controller"] {
        Ok("broker,controller".to_owned())
    } else {
        Err("a Corelog process is always both: broker,controller".to_owned())
    }
}

/// `log.dirs`: one path. Several disks belong under one file system, or to several brokers.
pub fn one_directory(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("a data directory is needed".to_owned())
    } else if text.contains(',') {
        Err("Corelog keeps its data in one directory: join several disks in one file system, or run a broker on each"
            .to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// `max.connections.per.ip.overrides`: `10.0.0.1:100,[::1]:5`.
pub fn per_ip_overrides(text: &str) -> Result<String, String> {
    let kept: Vec<String> = parse_per_ip_overrides(text)?
        .into_iter()
        .map(|(ip, count)| match ip {
            IpAddr::V4(ip) => format!("{ip}:{count}"),
            IpAddr::V6(ip) => format!("[{ip}]:{count}"),
        })
        .collect();
    Ok(kept.join(","))
}

/// The limits of [`per_ip_overrides`] by address.
pub fn parse_per_ip_overrides(text: &str) -> Result<BTreeMap<IpAddr, u32>, String> {
    let mut overrides = BTreeMap::new();
    for element in split_list(text) {
        let (host, count) =
            element.rsplit_once(':').ok_or_else(|| format!("'{element}' is not of the form IP:COUNT"))?;
        let ip: IpAddr = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
            .parse::<IpAddr>()
            .map_err(|_| format!("'{host}' is not an IP address; host names are not looked up here"))?
            .to_canonical();
        let count: u32 = count
            .parse()
            .ok()
            .filter(|count| *count <= i32::MAX as u32)
            .ok_or_else(|| format!("'{count}' is not a number of connections from 0 to {}", i32::MAX))?;
        if overrides.insert(ip, count).is_some() {
            return Err(format!("{ip} is named twice"));
        }
    }
    Ok(overrides)
}

/// `leader.replication.throttled.replicas` and its sibling: `*`, or `partition:broker` pairs. The name is in Kafka's
/// words.
pub fn throttled_replicas(name: &str, text: &str) -> Result<String, String> {
    let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let pair = |element: &&str| {
        element.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
    };
    if text == "*" || split_list(text).iter().all(pair) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{name} must be the literal '*' or a list of replicas in the following format: \
             [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        type Form = fn(&str) -> Result<String, String>;
        let throttled: Form = |text| throttled_replicas("x", text);
        let table: &[(Form, &str, Result<&str, &str>)] = &[
            (process_roles, "controller, broker", Ok("broker,controller")),
            (process_roles, "broker", Err("always both")),
            (one_directory, "/data", Ok("/data")),
            (one_directory, "", Err("is needed")),
            (one_directory, "/a,/b", Err("one directory")),
            (per_ip_overrides, "", Ok("")),
            (per_ip_overrides, "10.0.0.2:7, [::1]:5", Ok("10.0.0.2:7,[::1]:5")),
            (per_ip_overrides, "[::ffff:10.0.0.2]:7", Ok("10.0.0.2:7")),
            (per_ip_overrides, "example.org:7", Err("not an IP address")),
            (per_ip_overrides, "10.0.0.2", Err("IP:COUNT")),
            (per_ip_overrides, "10.0.0.2:-1", Err("not a number of connections")),
            (per_ip_overrides, "10.0.0.2:1,10.0.0.2:2", Err("named twice")),
            (throttled, "", Ok("")),
            (throttled, "*", Ok("*")),
            (throttled, "0:1,12:3", Ok("0:1,12:3")),
            (throttled, "none", Err("literal '*'")),
            (throttled, "0:", Err("literal '*'")),
            (throttled, "0:1,*", Err("literal '*'")),
        ];
        for (form, text, expected) in table {
            match (form(text), expected) {
                (Ok(kept), Ok(expected)) => assert_eq!(&kept, expected),
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            }
        }
    }
}

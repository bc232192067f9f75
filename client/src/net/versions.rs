//! What a broker speaks, and which version of each request to send it.

use crate::error::{Error, Result};
use corelog_wire::messages::Request;
use corelog_wire::messages::api_versions_response::ApiVersion;
use std::collections::BTreeMap;

/// The answer to ApiVersions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions(BTreeMap<i16, (i16, i16)>);

impl Versions {
    pub(crate) fn new(apis: &[ApiVersion]) -> Versions {
        Versions(apis.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (i16, (i16, i16))> {
        self.0.iter().map(|(key, range)| (*key, *range))
    }

    /// The newest version that both sides know, not above `cap`.
    pub(crate) fn pick<R: Request>(&self, address: &str, cap: i16) -> Result<i16> {
        let theirs = self.0.get(&i16::from(R::API_KEY)).copied();
        let ours = (R::MIN_VERSION, R::MAX_VERSION.min(cap));
        if let Some((min, max)) = theirs {
            let version = max.min(ours.1);
            if version >= min.max(ours.0) {
                return Ok(version);
            }
        }
        Err(Error::Unsupported { address: address.to_owned(), api: R::API_KEY.name(), theirs, ours })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::messages::{ListConfigResourcesRequest, Message, MetadataRequest};

    #[test]
    fn the_newest_common_version_is_picked() {
        let metadata =
            |min_version, max_version| Versions::new(&[ApiVersion { api_key: 3, min_version, max_version }]);
        let pick = |versions: &Versions, cap| versions.pick::<MetadataRequest>("b:1", cap).ok();
        assert_eq!(pick(&metadata(0, 4), i16::MAX), Some(4));
        assert_eq!(pick(&metadata(0, 99), i16::MAX), Some(MetadataRequest::MAX_VERSION));
        assert_eq!(pick(&metadata(0, 99), 8), Some(8));
        assert_eq!(pick(&metadata(90, 99), i16::MAX), None);
        assert_eq!(pick(&metadata(9, 12), 8), None);
        let error = metadata(0, 1).pick::<ListConfigResourcesRequest>("b:1", i16::MAX).unwrap_err();
        assert_eq!(
            error.to_string(),
            "b:1 does not speak ListConfigResources: use a newer broker, or do without"
        );
    }
}

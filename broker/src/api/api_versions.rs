//! ApiVersions (KIP-35, KIP-511): what this broker speaks.

use corelog_wire::ErrorCode;
use corelog_wire::messages::api_versions_response::ApiVersion;
use corelog_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::APIS;
use super::context::Context;

pub async fn handle(context: Context, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let version = context.api_version;
    if version >= 3 {
        let (name, software) = (&request.client_software_name, &request.client_software_version);
        if !is_software(name) || !is_software(software) {
            return ApiVersionsResponse { error_code: ErrorCode::INVALID_REQUEST.0, ..Default::default() };
        }
        tracing::debug!(peer = %context.connection.peer, %name, version = %software, "client");
        let _ = context.connection.software.set((name.detach(), software.detach()));
    }
    response(ErrorCode::NONE, version)
}

/// The table as an answer. A refusal of the request's version tells the range of ApiVersions alone.
pub fn response(error: ErrorCode, _version: i16) -> ApiVersionsResponse {
    let advertised =
        APIS.iter().filter(|api| error.is_ok() || api.key == corelog_wire::ApiKey::ApiVersions).map(|api| {
            ApiVersion { api_key: api.key.into(), min_version: api.min_version, max_version: api.max_version }
        });
    let mut api_keys: Vec<_> = advertised.collect();
    api_keys.sort_by_key(|api| api.api_key);
    ApiVersionsResponse { error_code: error.0, api_keys, ..Default::default() }
}

/// The form that KIP-511 asks of a client's name and version.
fn is_software(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names() {
        for good in ["apache-kafka-java", "2.15.0", "a"] {
            assert!(is_software(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "ä", "a_b"] {
            assert!(!is_software(bad), "{bad}");
        }
    }

    #[test]
    fn every_api_is_in_the_codec_and_listed_once() {
        let keys: std::collections::BTreeSet<i16> = APIS.iter().map(|api| api.key.into()).collect();
        assert_eq!(keys.len(), APIS.len());
        for api in APIS {
            let info = api.key.info().expect("advertised APIs have a codec");
            assert!(info.min_version <= api.min_version && api.max_version <= info.max_version, "{api:?}");
        }
    }
}

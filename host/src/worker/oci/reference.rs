//! What `oci://registry/repository[:tag|@digest]` names. Pure; asks no registry.

use std::fmt;
use std::str::FromStr;

use oci_client::Reference;
use thiserror::Error;
use url::Url;

/// How such a reference begins.
pub const SCHEME: &str = "oci";
/// Where Docker Hub answers.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// A place in a registry, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciUrl {
    reference: Reference,
}

/// Why a text names no place in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` {reason}; write oci://REGISTRY/REPOSITORY[:TAG], such as oci://ghcr.io/team/model:v1")]
pub struct OciUrlError {
    text: String,
    reason: String,
}

impl OciUrl {
    /// Host and port of the registry's API.
    pub fn host(&self) -> &str {
        match self.reference.registry() {
            "docker.io" | "index.docker.io" => DOCKER_HUB,
            registry => registry,
        }
    }

    /// The origin of the registry's API, and of the realm that is known to give its tokens where that is another.
    pub fn origins(&self, secure: bool) -> Vec<String> {
        let scheme = if secure { "https" } else { "http" };
        let own = format!("{scheme}://{}", self.host());
        if self.host() == DOCKER_HUB { vec![own, "https://auth.docker.io".to_owned()] } else { vec![own] }
    }

    /// The repository.
    pub fn repository(&self) -> &str {
        self.reference.repository()
    }

    /// The tag, where no digest is named; `latest` where nothing is.
    pub fn tag(&self) -> Option<&str> {
        self.reference.tag().filter(|_| self.reference.digest().is_none())
    }

    /// Where the registry's API has this repository; `secure` is https.
    pub fn base(&self, secure: bool) -> Option<Url> {
        let scheme = if secure { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{}/v2/{}/", self.host(), self.repository())).ok()
    }

    /// The same place by the digest of its manifest.
    pub fn at(&self, digest: &str) -> String {
        format!("{SCHEME}://{}/{}@{digest}", self.reference.registry(), self.repository())
    }
}

impl FromStr for OciUrl {
    type Err = OciUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason: &str| OciUrlError { text: crate::plugin::sentence(text), reason: reason.to_owned() };
        let rest = text.strip_prefix("oci://").ok_or_else(|| refuse("does not begin with oci://"))?;
        let (host, _) = rest.split_once('/').ok_or_else(|| refuse("names no repository"))?;
        if host.contains('@') {
            return Err(refuse("holds a credential; name a Secret instead"));
        }
        // A short name would mean Docker Hub, which nobody would guess of a URL.
        if !host.contains(['.', ':']) && host != "localhost" {
            return Err(refuse("does not begin with a registry's host"));
        }
        let reference: Reference =
            rest.parse().map_err(|error: oci_client::ParseError| refuse(&format!("is no reference ({error})")))?;
        let url = Self { reference };
        let fits = |base: Url| base.path() == format!("/v2/{}/", url.repository()) && base.username().is_empty();
        if url.base(true).is_some_and(fits) { Ok(url) } else { Err(refuse("holds what no registry's name may have")) }
    }
}

impl fmt::Display for OciUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}://{}", self.reference.whole())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_are_read() {
        let url: OciUrl = "oci://ghcr.io/team/model:v1".parse().unwrap();
        assert_eq!((url.host(), url.repository(), url.tag()), ("ghcr.io", "team/model", Some("v1")));
        assert_eq!(url.to_string(), "oci://ghcr.io/team/model:v1");
        assert_eq!(url.base(true).unwrap().as_str(), "https://ghcr.io/v2/team/model/");
        assert_eq!(url.at("sha256:00"), "oci://ghcr.io/team/model@sha256:00");
        let bare: OciUrl = "oci://registry.example:5000/m".parse().unwrap();
        assert_eq!((bare.host(), bare.repository(), bare.tag()), ("registry.example:5000", "m", Some("latest")));
        assert_eq!(bare.base(false).unwrap().as_str(), "http://registry.example:5000/v2/m/");
        let hub: OciUrl = "oci://docker.io/ai/smollm2".parse().unwrap();
        assert_eq!((hub.host(), hub.repository()), (DOCKER_HUB, "ai/smollm2"));
        let digest = format!("oci://ghcr.io/a/b@sha256:{}", "0".repeat(64));
        assert_eq!(digest.parse::<OciUrl>().unwrap().tag(), None);
        assert_eq!(digest.parse::<OciUrl>().unwrap().to_string(), digest);
    }

    #[test]
    fn what_names_no_registry_is_refused() {
        for text in [
            "",
            "ghcr.io/team/model",
            "oci://",
            "oci://ghcr.io",
            "oci://team/model",
            "oci://user:secret@ghcr.io/a",
            "oci://ghcr.io/../etc",
            "oci://ghcr.io/A B",
            "oci://ghcr.io/a?x=y",
            "oci://ghcr.io/a#b",
            "oci://ghcr.io/a@sha256:zz",
        ] {
            let error = text.parse::<OciUrl>().unwrap_err().to_string();
            assert!(error.contains("oci://REGISTRY/REPOSITORY"), "{text}: {error}");
        }
    }

    proptest! {
        /// Whatever passes leads to that host alone, below its own repository.
        #[test]
        fn any_text_is_a_place_in_a_registry_or_an_error(text in prop_oneof![
            "(oci://)?\\PC{0,40}",
            "oci://[a-z0-9.:@-]{1,20}/[A-Za-z0-9._/:@?#%\\\\-]{0,40}",
            "oci://[a-z0-9.-]{1,12}(:[0-9]{1,5})?/[a-z0-9._/-]{1,20}(:[A-Za-z0-9._-]{1,10})?",
        ]) {
            if let Ok(place) = text.parse::<OciUrl>() {
                let base = place.base(true).unwrap();
                prop_assert_eq!((base.scheme(), base.username(), base.password()), ("https", "", None));
                let prefix = format!("/v2/{}/", place.repository());
                prop_assert_eq!(base.path(), prefix);
                prop_assert!(base.query().is_none() && base.fragment().is_none());
                prop_assert_eq!(&place.to_string().parse::<OciUrl>().unwrap(), &place);
            }
        }
    }
}

//! Where images go so that the pods of a cluster can run them: our own node's registry, a registry of the user's, or the nodes
//! of kind. It must not know what is in an image.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use oci_client::client::ClientProtocol;
use oci_client::secrets;
use substratus::plugin::RegistryAuth;

use super::kind::Kind;
use crate::image::Artifact;

/// A place for images.
#[derive(Debug)]
pub enum Shelf {
    /// `host:port` of our own node's registry, which answers for every public one.
    Mirror(String),
    /// A registry of the user's.
    Registry(Remote),
    /// The nodes of kind take images from a file.
    Kind(Kind),
}

/// A registry that we push to and the cluster pulls from.
#[derive(Debug)]
pub struct Remote {
    /// `host[:port][/path]`.
    prefix: String,
    protocol: ClientProtocol,
    auth: secrets::RegistryAuth,
}

impl Shelf {
    /// Puts an image there and returns the name by which pods get exactly this one. `public` is what it is called where
    /// everybody gets it from, less the registry.
    pub async fn put(&self, image: &Artifact, public: &str, tag: &str) -> Result<String> {
        let short = public.rsplit('/').next().unwrap_or(public);
        match self {
            Self::Mirror(registry) => {
                let digest = image.push(registry, public, tag).await?;
                Ok(format!("ghcr.io/{public}@{digest}"))
            }
            Self::Registry(Remote { prefix, protocol, auth }) => {
                let name = format!("{prefix}/{short}");
                let pushed = image.push_as(&format!("{name}:{tag}"), protocol.clone(), auth).await;
                let digest = pushed.context("REGISTRY must be one that you may push to (`docker login`)")?;
                Ok(format!("{name}@{digest}"))
            }
            Self::Kind(kind) => {
                // A node keeps what a tag once was, so that every image gets one of its own.
                let digits: String = image.digest().trim_start_matches("sha256:").chars().take(12).collect();
                let name = format!("docker.io/substratusai/{short}:{tag}-{digits}");
                let folder = tempfile::tempdir().context("making a folder for an image")?;
                let file = folder.path().join("image.tar");
                image.write_layout(&file, &name)?;
                kind.load(&file)?;
                Ok(name)
            }
        }
    }

    /// Whether pods find public images there under their public names.
    pub fn is_mirror(&self) -> bool {
        matches!(self, Self::Mirror(_))
    }
}

impl Remote {
    /// Reads `[http://]host[:port][/path]`, with the credentials that `docker login` left for it.
    pub fn parse(text: &str) -> Result<Self> {
        let (plain, prefix) = match text.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            Some((other, _)) => bail!("REGISTRY={text} has the scheme {other}; write host[:port]/path"),
            None => (text.starts_with("localhost:") || text.starts_with("127.0.0.1:"), text),
        };
        let prefix = prefix.trim_end_matches('/');
        let host = prefix.split('/').next().unwrap_or_default();
        let looks_like_a_host = host.contains('.') || host.contains(':') || host == "localhost";
        if !looks_like_a_host || prefix.contains('@') || prefix.chars().any(char::is_whitespace) {
            bail!("REGISTRY={text} names no registry; write host[:port]/path, for example ghcr.io/your-name");
        }
        let protocol = if plain { ClientProtocol::Http } else { ClientProtocol::Https };
        Ok(Self { prefix: prefix.to_owned(), protocol, auth: credentials(host)? })
    }

    /// As it is written in image names.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// What `docker login` wrote for a registry; credential helpers are not run.
fn credentials(host: &str) -> Result<secrets::RegistryAuth> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(std::env::home_dir()?.join(".docker")));
    let Some(json) = folder.and_then(|folder| fs::read(folder.join("config.json")).ok()) else {
        return Ok(secrets::RegistryAuth::Anonymous);
    };
    let found = RegistryAuth::from_docker_config(&json, host).context("reading the credentials that `docker login` left")?;
    Ok(match found {
        RegistryAuth::Anonymous => secrets::RegistryAuth::Anonymous,
        RegistryAuth::Basic { username, password } => secrets::RegistryAuth::Basic(username, password),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read_as_people_write_them() {
        for (text, prefix, plain) in [
            ("ghcr.io/anna", "ghcr.io/anna", false),
            ("https://registry.test/a/b/", "registry.test/a/b", false),
            ("http://10.0.0.1:5000/x", "10.0.0.1:5000/x", true),
            ("localhost:5001", "localhost:5001", true),
        ] {
            let remote = Remote::parse(text).unwrap();
            assert_eq!((remote.prefix(), matches!(remote.protocol, ClientProtocol::Http)), (prefix, plain), "{text}");
        }
    }

    #[test]
    fn what_is_no_registry_is_refused() {
        for text in ["", "anna", "anna/images", "ftp://registry.test/x", "user@registry.test/x", "registry.test/a b"] {
            let error = Remote::parse(text).unwrap_err().to_string();
            assert!(error.contains("write host"), "{error}");
        }
    }
}

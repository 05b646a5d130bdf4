//! Names of images in one spelling, for rules about them. Pure; what a registry answers is none of its business.

use super::{RegistryError, registry};

/// An image reference, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// Registry and repository: `registry.example/acme/loader`, `docker.io/library/busybox`.
    pub name: String,
    /// Its tag.
    pub tag: Option<String>,
    /// The digest of its manifest: `sha256:…`.
    pub digest: Option<String>,
}

impl ImageName {
    /// Reads a reference. One that no registry could be asked for is an error.
    pub fn parse(reference: &str) -> Result<Self, RegistryError> {
        let parsed = registry::parse(reference)?;
        Ok(Self {
            name: format!("{}/{}", parsed.registry(), parsed.repository()),
            tag: parsed.tag().map(str::to_owned),
            digest: parsed.digest().map(str::to_owned),
        })
    }

    /// The same image under another name.
    pub fn at(&self, name: &str) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{name}@{digest}"),
            (None, Some(tag)) => format!("{name}:{tag}"),
            (None, None) => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_one_spelling() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (reference, name, tag, pinned) in [
            ("registry.example/acme/loader:1".to_owned(), "registry.example/acme/loader", Some("1"), false),
            ("127.0.0.1:5000/a/b".to_owned(), "127.0.0.1:5000/a/b", Some("latest"), false),
            (format!("registry.example/a@{digest}"), "registry.example/a", None, true),
            (format!("registry.example/a:1@{digest}"), "registry.example/a", Some("1"), true),
            ("acme/loader".to_owned(), "docker.io/acme/loader", Some("latest"), false),
        ] {
            let image = ImageName::parse(&reference).unwrap();
            assert_eq!((image.name.as_str(), image.tag.as_deref(), image.digest.is_some()), (name, tag, pinned), "{reference}");
        }
        for reference in ["registry.example/acme/../evil", "registry.example/acme/./a", "Not A Name", "registry.example/A/b", ""]
        {
            assert!(ImageName::parse(reference).is_err(), "{reference}");
        }
    }

    #[test]
    fn a_mirror_keeps_tag_and_digest() {
        let at = |reference: &str| ImageName::parse(reference).unwrap().at("mirror.example/x");
        assert_eq!(at("registry.example/a:1"), "mirror.example/x:1");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(at(&format!("registry.example/a:1@{digest}")), format!("mirror.example/x@{digest}"));
    }

    proptest! {
        /// What is taken for a name is one that a registry can be asked for, and that means the same when it is read again.
        #[test]
        fn any_text_is_a_name_or_an_error(text in prop_oneof![
            "\\PC{0,40}",
            "[a-z0-9./:@-]{0,60}",
            "([a-z0-9.-]{1,12}(:[0-9]{1,6})?/)?[a-z0-9._/-]{1,20}(:[A-Za-z0-9._-]{0,10})?(@sha256:[0-9a-f]{60,66})?",
        ]) {
            if let Ok(image) = ImageName::parse(&text) {
                let again = image.at(&image.name);
                let parsed = ImageName::parse(&again).unwrap();
                prop_assert_eq!(&parsed.name, &image.name);
                prop_assert_eq!(parsed.digest, image.digest);
                prop_assert!(!again.contains(|c: char| c.is_whitespace() || c.is_control()), "{again:?}");
                prop_assert!(!image.name.split('/').any(|part| part.is_empty() || part == ".."), "{again}");
            }
        }
    }
}

//! What a manifest means: which layer is which file. Pure; a manifest is whatever somebody pushed.

use std::collections::BTreeMap;

use serde::Deserialize;
use substratus_plugin::{
    Digest,
    loader::{File, OciOrigin, Origin},
};

use crate::reference::{Reference, is_digest};

/// Where a layer's file goes: `ModelPack`, then `oras`.
const PATHS: [&str; 2] = ["org.cncf.model.filepath", "org.opencontainers.image.title"];
/// What `oras` says of a folder that it packed.
const UNPACK: &str = "io.deis.oras.content.unpack";
/// What `oras push` calls a file whose type nobody named, although it is no tar.
const ORAS: &str = "application/vnd.oci.image.layer.v1.tar";
/// Weights of Docker Hub's models, which have no names.
const DOCKER_GGUF: &str = "application/vnd.docker.ai.gguf.v3";
/// Longest text of a manifest that is repeated.
const MAX_SHOWN: usize = 120;

/// An OCI manifest, or an index of some.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
    /// Of an index.
    pub(crate) manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What a manifest says of a blob.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Manifest {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("its manifest is none of the known form ({error})"))
    }

    /// The files, in the order of the layers. A file that comes twice is there once, if it is the same.
    pub(crate) fn files(&self, place: &Reference) -> Result<Vec<File>, String> {
        let unnamed = self.layers.iter().filter(|layer| layer.path().is_none() && layer.media_type == DOCKER_GGUF).count();
        let (mut files, mut known, mut number): (Vec<File>, BTreeMap<String, &str>, usize) = (Vec::new(), BTreeMap::new(), 0);
        for (index, layer) in self.layers.iter().enumerate() {
            let path = match layer.path() {
                Some(path) => path.to_owned(),
                None if layer.media_type == DOCKER_GGUF => {
                    number += 1;
                    if unnamed == 1 { "model.gguf".to_owned() } else { format!("model-{number:05}-of-{unnamed:05}.gguf") }
                }
                None => return Err(layer.nameless(index)),
            };
            if layer.is_packed() {
                return Err(format!(
                    "`{}` is packed ({}); push the files as they are: `substratus push`, `modctl build --raw` or `oras push` with each file",
                    short(&path),
                    short(&layer.media_type)
                ));
            }
            check(&path)?;
            let hex = layer.digest.strip_prefix("sha256:").filter(|_| is_digest(&layer.digest));
            let hex = hex.ok_or_else(|| format!("the digest of `{}` is no sha256", short(&path)))?;
            match known.insert(path.clone(), hex) {
                None => files.push(file(place, path, layer.size, hex)),
                Some(other) if other == hex => {}
                Some(_) => return Err(format!("two of its layers are the file `{}`, and differ", short(&path))),
            }
        }
        Ok(files)
    }
}

fn file(place: &Reference, path: String, size: u64, hex: &str) -> File {
    let digest = Digest { algorithm: "sha256".into(), hex: hex.into() };
    let repository = format!("{}/{}", place.host, place.repository);
    File { path, size: Some(size), digest: Some(digest.clone()), origin: Origin::Oci(OciOrigin { repository, digest }) }
}

impl Descriptor {
    fn path(&self) -> Option<&str> {
        PATHS.iter().find_map(|name| self.annotations.get(*name)).map(|path| path.strip_prefix("./").unwrap_or(path))
    }

    /// It is not the file itself. What `oras` calls a tar where nobody said better, is.
    fn is_packed(&self) -> bool {
        let unpack = self.annotations.get(UNPACK).is_some_and(|value| value == "true");
        let kind = self.media_type.as_str();
        let of_oras = kind == ORAS && self.path().is_some();
        let packed = [".tar", "+gzip", "+zstd", ".gzip", "+tar"].iter().any(|ending| kind.ends_with(ending));
        unpack || (packed && !of_oras)
    }

    fn nameless(&self, index: usize) -> String {
        let kind = short(&self.media_type);
        if kind.contains("image.layer") || kind.contains("image.rootfs") {
            return "it is a container image, whose layers are packed; a model has its files as layers, as `substratus push` makes them".into();
        }
        format!("layer {} ({kind}) says neither {} nor {}, so it has no name", index + 1, PATHS[0], PATHS[1])
    }
}

/// The host checks paths too; what is wrong with this one is nobody's mistake but the artifact's.
fn check(path: &str) -> Result<(), String> {
    let part_is_bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if path.split('/').any(part_is_bad) || path.contains('\\') || path.chars().any(char::is_control) {
        return Err(format!(
            "one of its layers is the file `{}`, which lies outside of the model or has no proper name",
            short(path)
        ));
    }
    Ok(())
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn place() -> Reference {
        Reference { host: "r.example".into(), repository: "a/b".into(), wanted: "v1".into() }
    }

    fn layer(kind: &str, annotations: Value) -> Value {
        let digest = format!("sha256:{}", "ab".repeat(32));
        Value::from_iter([
            ("mediaType", kind.into()),
            ("digest", digest.into()),
            ("size", 7.into()),
            ("annotations", annotations),
        ])
    }

    fn files(layers: Value) -> Result<Vec<String>, String> {
        let manifest = Value::from_iter([("schemaVersion", 2.into()), ("layers", layers)]);
        let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
        Ok(manifest.files(&place())?.into_iter().map(|file| file.path).collect())
    }

    const RAW: &str = "application/vnd.cncf.model.weight.v1.raw";

    fn at(path: &str) -> Value {
        layer(RAW, json!({"org.cncf.model.filepath": path}))
    }

    #[test]
    fn layers_are_files_by_either_name() {
        let titled = |kind: &str| layer(kind, json!({"org.opencontainers.image.title": "t.bin"}));
        assert_eq!(files(json!([at("a/b.bin")])).unwrap(), ["a/b.bin"]);
        assert_eq!(files(json!([titled("application/octet-stream")])).unwrap(), ["t.bin"]);
        assert_eq!(files(json!([titled(ORAS)])).unwrap(), ["t.bin"], "as oras calls what nobody named");
        assert_eq!(files(json!([at("./x"), at("x")])).unwrap(), ["x"], "the same twice");
        assert_eq!(files(json!([layer(DOCKER_GGUF, json!({}))])).unwrap(), ["model.gguf"]);
        let two = files(json!([layer(DOCKER_GGUF, json!({})), layer(DOCKER_GGUF, json!({}))])).unwrap();
        assert_eq!(two, ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"]);
    }

    #[test]
    fn what_is_packed_is_refused_by_name() {
        let titled = json!({"org.opencontainers.image.title": "folder"});
        let unpack = json!({"org.opencontainers.image.title": "folder", "io.deis.oras.content.unpack": "true"});
        for layer in [
            layer("application/vnd.cncf.model.weight.v1.tar", json!({"org.cncf.model.filepath": "folder"})),
            layer("application/vnd.oci.image.layer.v1.tar+gzip", titled.clone()),
            layer("application/vnd.oci.image.layer.v1.tar+zstd", titled),
            layer(ORAS, unpack),
        ] {
            let error = files(json!([layer])).unwrap_err();
            assert!(error.contains("`folder` is packed"), "{error}");
        }
        let image = files(json!([layer("application/vnd.docker.image.rootfs.diff.tar.gzip", json!({}))])).unwrap_err();
        assert!(image.contains("container image"), "{image}");
        let nameless = files(json!([layer(RAW, json!({}))])).unwrap_err();
        assert!(nameless.contains("layer 1") && nameless.contains("no name"), "{nameless}");
    }

    #[test]
    fn paths_stay_inside_and_differ() {
        for path in ["../x", "/etc/passwd", "a/../../x", "a//b", "", "a\\b", "a\nb", "a/."] {
            assert!(files(json!([at(path)])).unwrap_err().contains("outside of the model"), "{path:?}");
        }
        let mut other = at("x");
        other["digest"] = format!("sha256:{}", "cd".repeat(32)).into();
        assert!(files(json!([at("x"), other])).unwrap_err().contains("differ"));
        let mut weak = at("x");
        weak["digest"] = "md5:00".into();
        assert!(files(json!([weak])).unwrap_err().contains("no sha256"));
        let mut negative = at("x");
        negative["size"] = json!(-1);
        let manifest = json!({"layers": [negative]}).to_string();
        assert!(Manifest::parse(manifest.as_bytes()).unwrap_err().contains("known form"));
    }
}

//! The `ModelPack` layout: from a list of files to the manifest and the config of an OCI artifact. Pure, and without a clock: the same
//! files and facts make the same bytes, so the same digest. Reads no file.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;

use crate::worker::failure::LoadError;

/// Media type of an OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What makes it one of a model.
pub const ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
/// Media type of its config.
pub const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
/// The annotation of a layer that says where the file goes.
pub const FILEPATH: &str = "org.cncf.model.filepath";
/// The same for tools that know nothing of models, such as `oras pull`.
pub const TITLE: &str = "org.opencontainers.image.title";
/// The annotation of the manifest with what the config has no member for.
pub const FACTS: &str = "ai.substratus.model";
/// Longest manifest that registries take, in bytes.
pub const MAX_MANIFEST: usize = 4 * 1024 * 1024;

/// What a file is to a model, as media types tell it. The files are neither packed nor compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Weights, and whatever nobody knows.
    Weight,
    /// What an engine reads beside them: configuration, tokenizer, templates.
    WeightConfig,
    /// For people.
    Doc,
    /// Programs.
    Code,
    /// Rows.
    Dataset,
}

/// Endings of names, in lower case.
const ENDINGS: [(Part, &[&str]); 4] = [
    (
        Part::WeightConfig,
        &[
            "json", "yaml", "yml", "toml", "ini", "cfg", "conf", "txt", "model", "jinja", "tiktoken", "vocab", "spm", "imatrix",
            "xml",
        ],
    ),
    (Part::Doc, &["md", "rst", "pdf", "html", "htm", "png", "jpg", "jpeg", "gif", "svg", "webp"]),
    (Part::Code, &["py", "ipynb", "sh", "js", "ts", "c", "h", "cc", "cpp", "hpp", "cu", "cuh", "rs", "go", "java", "lua", "r"]),
    (Part::Dataset, &["parquet", "arrow", "csv", "tsv", "jsonl"]),
];
/// Names of documents that have any ending or none, in lower case.
const DOCUMENTS: [&str; 8] = ["readme", "license", "licence", "notice", "changelog", "copying", "authors", "use_policy"];
/// Names that have no ending, in lower case.
const NAMES: [(Part, &[&str]); 2] = [
    (Part::Code, &["dockerfile", "makefile", "modelfile", "requirements.txt"]),
    (Part::WeightConfig, &[".gitattributes", ".gitignore"]),
];

impl Part {
    /// What the file at `path` is, by its name.
    pub fn of(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
        let (stem, ending) = name.rsplit_once('.').unwrap_or((&name, ""));
        let named = NAMES.iter().find(|(_, names)| names.contains(&name.as_str()));
        let is_document = DOCUMENTS.contains(&stem) || DOCUMENTS.contains(&name.as_str());
        match named {
            Some((part, _)) => *part,
            None if is_document => Self::Doc,
            None => ENDINGS.iter().find(|(_, endings)| endings.contains(&ending)).map_or(Self::Weight, |(part, _)| *part),
        }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Weight => "application/vnd.cncf.model.weight.v1.raw",
            Self::WeightConfig => "application/vnd.cncf.model.weight.config.v1.raw",
            Self::Doc => "application/vnd.cncf.model.doc.v1.raw",
            Self::Code => "application/vnd.cncf.model.code.v1.raw",
            Self::Dataset => "application/vnd.cncf.model.dataset.v1.raw",
        }
    }
}

/// A file of the artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Relative, checked.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file, which is the digest of its blob.
    pub sha256: [u8; 32],
}

impl Layer {
    /// As registries write it.
    pub fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(self.sha256))
    }
}

/// An artifact, as it is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The config that it names.
    pub config: Vec<u8>,
}

impl Packed {
    /// The manifest's digest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// The config's digest.
    pub fn config_digest(&self) -> String {
        digest(&self.config)
    }
}

/// The digest of some bytes, as registries write it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The artifact of these files, in the order of their paths, and of what is known of the model.
pub fn pack(mut layers: Vec<Layer>, known: &SourceStatus) -> Result<Packed, LoadError> {
    layers.sort_by(|a, b| a.path.cmp(&b.path));
    let config = config(&layers, known).to_string().into_bytes();
    let described: Vec<Value> = layers
        .iter()
        .map(|layer| {
            json!({
                "mediaType": Part::of(&layer.path).media_type(),
                "digest": layer.digest(),
                "size": layer.size,
                "annotations": {FILEPATH: layer.path, TITLE: layer.path},
            })
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": CONFIG, "digest": digest(&config), "size": config.len()},
        "layers": described,
    });
    let facts = facts(known);
    if !facts.is_empty()
        && let Some(members) = manifest.as_object_mut()
    {
        members.insert("annotations".to_owned(), json!({FACTS: Value::Object(facts).to_string()}));
    }
    let manifest = manifest.to_string().into_bytes();
    if manifest.len() > MAX_MANIFEST {
        let message = format!(
            "{} files make a manifest of {} bytes, and registries take {MAX_MANIFEST}; choose fewer files with spec.files",
            layers.len(),
            manifest.len()
        );
        return Err(LoadError::new(reason::TOO_LARGE, message));
    }
    Ok(Packed { manifest, config })
}

/// What is known of a model, without a moment and without where it came from.
fn config(layers: &[Layer], known: &SourceStatus) -> Value {
    let mut descriptor = Map::new();
    if let Some(license) = &known.license {
        descriptor.insert("licenses".to_owned(), json!([license]));
    }
    let mut config = Map::new();
    let members = [
        ("architecture", known.architecture.clone()),
        ("format", known.format.clone()),
        ("paramSize", known.parameters.and_then(param_size)),
        ("precision", known.dtype.clone()),
        ("quantization", known.quantization.clone()),
    ];
    for (name, value) in members {
        config.extend(value.map(|value| (name.to_owned(), value.into())));
    }
    let diff_ids: Vec<String> = layers.iter().map(Layer::digest).collect();
    json!({"descriptor": descriptor, "config": config, "modelfs": {"type": "layers", "diffIds": diff_ids}})
}

/// What the config cannot say, or only roughly: for whoever loads it back.
fn facts(known: &SourceStatus) -> Map<String, Value> {
    let members = [
        ("contextLength", known.context_length.map(Value::from)),
        ("entrypoint", known.entrypoint.clone().map(Value::from)),
        ("parameters", known.parameters.map(Value::from)),
    ];
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// `6.7b`: at most one digit after the point.
fn param_size(parameters: i64) -> Option<String> {
    let parameters = u64::try_from(parameters).ok()?;
    let (scale, letter) = [(1_000_000_000_000, "t"), (1_000_000_000, "b"), (1_000_000, "m"), (1_000, "k")]
        .into_iter()
        .find(|(scale, _)| parameters >= *scale)?;
    let (whole, tenth) = (parameters / scale, parameters % scale * 10 / scale);
    Some(if tenth == 0 { format!("{whole}{letter}") } else { format!("{whole}.{tenth}{letter}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(path: &str, size: u64) -> Layer {
        Layer { path: path.to_owned(), size, sha256: Sha256::digest(path).into() }
    }

    #[test]
    fn files_are_told_apart_by_their_names() {
        for (path, part) in [
            ("model-00001-of-00002.safetensors", Part::Weight),
            ("sub/m.Q4_K_M.gguf", Part::Weight),
            ("pytorch_model.bin", Part::Weight),
            ("model.onnx_data", Part::Weight),
            ("nobody-knows", Part::Weight),
            ("config.json", Part::WeightConfig),
            ("tokenizer.model", Part::WeightConfig),
            ("merges.txt", Part::WeightConfig),
            ("chat_template.jinja", Part::WeightConfig),
            (".gitattributes", Part::WeightConfig),
            ("README.md", Part::Doc),
            ("LICENSE", Part::Doc),
            ("LICENSE.txt", Part::Doc),
            ("images/a.PNG", Part::Doc),
            ("modeling_falcon.py", Part::Code),
            ("requirements.txt", Part::Code),
            ("Dockerfile", Part::Code),
            ("eval/test.parquet", Part::Dataset),
            ("rows.jsonl", Part::Dataset),
        ] {
            assert_eq!(Part::of(path), part, "{path}");
        }
    }

    #[test]
    fn the_layout_is_the_specification_s() {
        let known = SourceStatus {
            format: Some("gguf".into()),
            license: Some("apache-2.0".into()),
            architecture: Some("llama".into()),
            parameters: Some(6_738_415_616),
            dtype: Some("bf16".into()),
            context_length: Some(4096),
            entrypoint: Some("model.gguf".into()),
            revision: Some("abc".into()),
            ..SourceStatus::default()
        };
        let packed = pack(vec![layer("model.gguf", 7), layer("config.json", 2)], &known).unwrap();
        let (manifest, config): (Value, Value) =
            (serde_json::from_slice(&packed.manifest).unwrap(), serde_json::from_slice(&packed.config).unwrap());
        let of = |path: &str| digest(path.as_bytes());
        let expected = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.cncf.model.manifest.v1+json",
            "config": {"mediaType": "application/vnd.cncf.model.config.v1+json", "digest": packed.config_digest(), "size": packed.config.len()},
            "layers": [
                {"mediaType": "application/vnd.cncf.model.weight.config.v1.raw", "digest": of("config.json"), "size": 2,
                    "annotations": {"org.cncf.model.filepath": "config.json", "org.opencontainers.image.title": "config.json"}},
                {"mediaType": "application/vnd.cncf.model.weight.v1.raw", "digest": of("model.gguf"), "size": 7,
                    "annotations": {"org.cncf.model.filepath": "model.gguf", "org.opencontainers.image.title": "model.gguf"}},
            ],
            "annotations": {"ai.substratus.model": r#"{"contextLength":4096,"entrypoint":"model.gguf","parameters":6738415616}"#},
        });
        assert_eq!(manifest, expected);
        let expected = json!({
            "descriptor": {"licenses": ["apache-2.0"]},
            "config": {"architecture": "llama", "format": "gguf", "paramSize": "6.7b", "precision": "bf16"},
            "modelfs": {"type": "layers", "diffIds": [of("config.json"), of("model.gguf")]},
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn the_same_content_has_the_same_digest_wherever_it_came_from() {
        let from = |revision: &str| SourceStatus { revision: Some(revision.into()), files: 9, ..SourceStatus::default() };
        let (a, b) = (layer("a.bin", 1), layer("b.bin", 2));
        let one = pack(vec![a.clone(), b.clone()], &from("one")).unwrap();
        assert_eq!(one, pack(vec![b.clone(), a.clone()], &from("two")).unwrap());
        assert_ne!(one.digest(), pack(vec![a, layer("c.bin", 2)], &from("one")).unwrap().digest());
    }

    #[test]
    fn too_many_files_for_a_manifest_are_refused_before_a_byte() {
        let layers = (0..30_000).map(|number| layer(&format!("{number}.bin"), 1)).collect();
        let error = pack(layers, &SourceStatus::default()).unwrap_err();
        assert!(error.reason == reason::TOO_LARGE && error.message.contains("30000 files"), "{error}");
    }

    #[test]
    fn parameters_are_written_with_a_letter() {
        for (number, text) in
            [(999, None), (1_500, Some("1.5k")), (135_000_000, Some("135m")), (40_000_000_000, Some("40b")), (-1, None)]
        {
            assert_eq!(param_size(number).as_deref(), text, "{number}");
        }
    }
}

//! Parts of a spec that several kinds have.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Another object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectRef {
    /// Name of the object, in the same namespace.
    pub name: String,
}

/// What the pod asks for. Members left out get the defaults; leaving `resources` out altogether gives the cloud's own defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Whole CPU cores.
    #[serde(default = "default_cpu")]
    pub cpu: i64,
    /// Memory in GiB.
    #[serde(default = "default_gib")]
    pub memory: i64,
    /// Ephemeral storage in GiB.
    #[serde(default = "default_gib")]
    pub disk: i64,
    /// Accelerators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
}

const fn default_cpu() -> i64 {
    2
}

const fn default_gib() -> i64 {
    10
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu: default_cpu(), memory: default_gib(), disk: default_gib(), gpu: None }
    }
}

/// Accelerators of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gpu {
    /// Type such as `nvidia-l4`; which ones exist is the GPU policy's knowledge. Empty means any.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<String>,
    /// How many.
    #[serde(default)]
    pub count: i64,
}

/// A parameter: an integer or a string. Other numbers, booleans, lists and objects are written as quoted strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Param {
    /// Integer of at most 64 bits with sign.
    Integer(i64),
    /// Anything that JSON calls a number but is no such integer: kept, so that validation can say what to write instead.
    Number(serde_json::Number),
    /// Text.
    Text(String),
}

impl Param {
    /// The parameter as JSON value, as `params.json` shows it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Integer(value) => (*value).into(),
            Self::Number(value) => value.clone().into(),
            Self::Text(value) => value.clone().into(),
        }
    }

    /// The parameter as text: a string as it is, a number in decimal.
    pub fn to_text(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(value) => value.clone(),
        }
    }
}

impl From<i64> for Param {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for Param {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl JsonSchema for Param {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Param".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

/// Build the image from source. At most one of `git` and `upload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct Build {
    /// A git repository with a Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// A tarball that the command line uploads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadSource>,
}

/// A git repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct GitSource {
    /// URL to clone.
    pub url: String,
    /// Folder used as build context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Tag to check out; wins over `branch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Branch to check out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// An upload handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
#[serde(rename_all = "camelCase")]
pub struct UploadSource {
    /// MD5 of the gzipped tarball, hexadecimal.
    #[serde(rename = "md5Checksum")]
    #[schemars(length(min = 32, max = 32), regex(pattern = r"^[a-fA-F0-9]{32}$"))]
    pub md5_checksum: String,
    /// Change it to ask for a fresh signed URL.
    #[serde(rename = "requestID")]
    pub request_id: String,
}

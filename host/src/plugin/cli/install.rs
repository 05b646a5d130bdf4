//! `substratus plugin install`: the Plugin object for a plugin of a registry, pinned, with what it asks for in plain sight. Applies
//! nothing: `kubectl apply -f -` does.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};
use substratus_crds::{Grants, SecretGrant};

use super::args::{CacheArgs, OutputFormat, RegistryArgs};
use crate::plugin::Manifest;

/// `plugin install`
#[derive(Debug, Args)]
#[command(after_help = "Nothing is applied: look at the grants first, and take away what the plugin shall not have.\n\n\
    Example:\n  substratus plugin install registry.example/team/plugin:1.0.0 | kubectl apply -f -")]
pub struct Install {
    /// Plugin in a registry, by tag or digest
    reference: String,
    /// Name of the object [default: the plugin's own; of a bundled plugin: takes its place]
    #[arg(long)]
    name: Option<String>,
    /// Secret in the operator's namespace with the registry's credentials
    #[arg(long, value_name = "SECRET")]
    pull_secret: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// How to print: YAML with remarks, or JSON
    #[arg(short = 'o', long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

/// Prints the object.
pub(super) async fn install(args: &Install) -> anyhow::Result<ExitCode> {
    let plugins = args.cache.open()?;
    let auth = args.registry.auth(&args.reference)?;
    let pulled = plugins.pull(&args.reference, auth, &args.registry.plain()).await?;
    let object = object(&pulled.manifest, &pulled.reference_with_digest, args.name.as_deref(), args.pull_secret.as_deref());
    let text = match args.format {
        OutputFormat::Text => remarks(&pulled.manifest, &args.reference) + &serde_saphyr::to_string(&object)?,
        OutputFormat::Json => format!("{object:#}"),
    };
    super::args::print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// The Plugin, with every grant that the manifest asks for.
fn object(manifest: &Manifest, image: &str, name: Option<&str>, pull_secret: Option<&str>) -> Value {
    let secrets =
        manifest.secrets.iter().map(|secret| SecretGrant { name: secret.name.clone(), hosts: secret.hosts.clone() }).collect();
    let grants = Grants {
        hosts: manifest.hosts.clone(),
        secrets,
        images: manifest.images.clone(),
        scheduling: manifest.scheduling.clone(),
    };
    let mut spec = Map::from_iter([("image".to_owned(), Value::from(image))]);
    if let Some(secret) = pull_secret {
        spec.insert("pullSecret".to_owned(), secret.into());
    }
    if grants != Grants::default() {
        spec.insert("grants".to_owned(), json!(grants));
    }
    json!({
        "apiVersion": "substratus.ai/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": name.unwrap_or(&manifest.name)},
        "spec": spec,
    })
}

/// What a reader should know before they apply it. Texts of the plugin end no line.
fn remarks(manifest: &Manifest, reference: &str) -> String {
    let sentence = crate::plugin::sentence;
    let mut text =
        format!("# {} {}, a {:?}: {}\n", manifest.name, manifest.version, manifest.role, sentence(&manifest.description));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# {} as it is now; a digest does not change.", sentence(reference));
    let asks = !(manifest.hosts.is_empty()
        && manifest.secrets.is_empty()
        && manifest.images.is_empty()
        && manifest.scheduling.is_empty());
    if asks {
        text.push_str("# The grants are what it asks for; take away what it shall not have.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_manifest_asks_for_is_in_plain_sight() {
        let manifest = Manifest::from_yaml(
            r#"
            {name: hub, version: 0.1.0, role: ModelLoader, host: "0.1", description: "one\n- two", hosts: ["https://hub.example"],
            secrets: [{use: hub, env: [HUB_TOKEN], as: bearer, hosts: ["https://hub.example"]}]}"#,
        )
        .unwrap();
        let object = object(&manifest, "r.example/hub@sha256:00", None, Some("pull"));
        let spec: substratus_crds::PluginSpec = serde_json::from_value(object["spec"].clone()).unwrap();
        assert_eq!(spec.image.as_deref(), Some("r.example/hub@sha256:00"));
        assert_eq!(spec.pull_secret.as_deref(), Some("pull"));
        let grants = spec.grants.unwrap();
        assert_eq!((grants.hosts.as_slice(), grants.secrets[0].name.as_str()), (&["https://hub.example".to_owned()][..], "hub"));
        let remarks = remarks(&manifest, "r.example/hub:1");
        assert!(remarks.lines().all(|line| line.starts_with("# ")), "{remarks}");
        let whole: Value = serde_saphyr::from_str(&(remarks + &serde_saphyr::to_string(&object).unwrap())).unwrap();
        assert_eq!(whole, object);
    }

    #[test]
    fn a_plugin_that_asks_for_nothing_is_granted_nothing() {
        let manifest = Manifest::from_yaml(r#"{name: a, version: 0.1.0, role: GpuPolicy, host: "0.1"}"#).unwrap();
        let object = object(&manifest, "r.example/a@sha256:00", Some("other"), None);
        assert_eq!(object["spec"], json!({"image": "r.example/a@sha256:00"}));
        assert_eq!(object["metadata"]["name"], "other");
    }
}

//! `substratus plugin install`: the Plugin object for a plugin of a registry, pinned, with what it asks for in plain sight, and where
//! it is wanted the `PluginSource` that trusts the registry. Applies nothing: `kubectl apply -f -` does.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};
use substratus_crds::{Grants, PluginSourceSpec, SecretGrant, Unverified, Verify};

use super::args::{CacheArgs, OutputFormat, RegistryArgs};
use crate::plugin::Manifest;

/// `plugin install`
#[derive(Debug, Args)]
#[command(after_help = "Nothing is applied: look at the grants first, and take away what the plugin shall not have.\n\n\
    Example:\n  substratus plugin install registry.example/team/plugin:1.0.0 --key cosign.pub | kubectl apply -f -\n\n\
    A cluster takes an image only where a `PluginSource` fits its name. With --key or --unverified one for the image's\n\
    repository is printed too; leave both out where there is one already.")]
pub struct Install {
    /// Plugin in a registry, by tag or digest
    reference: String,
    /// Name of the object [default: the plugin's own; of a bundled plugin: takes its place]
    #[arg(long)]
    name: Option<String>,
    /// Print a `PluginSource`, too: images of this repository are taken when this public key signed them; repeatable
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Print a `PluginSource`, too: images of this repository are taken whoever made them
    #[arg(long, conflicts_with = "keys")]
    unverified: bool,
    /// Secret in the operator's namespace with the registry's credentials, for that `PluginSource`
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
    let plugin = object(&pulled.manifest, &pulled.reference_with_digest, args.name.as_deref());
    let source = source(args, &pulled.reference_with_digest)?;
    let text = match (args.format, source) {
        (OutputFormat::Text, source) => {
            let source = source.map(|source| serde_saphyr::to_string(&source)).transpose()?;
            let source = source.map_or_else(String::new, |source| format!("{}\n---\n", source.trim_end()));
            source + &remarks(&pulled.manifest, &args.reference) + &serde_saphyr::to_string(&plugin)?
        }
        (OutputFormat::Json, None) => format!("{plugin:#}"),
        (OutputFormat::Json, Some(source)) => {
            format!("{:#}", json!({"apiVersion": "v1", "kind": "List", "items": [source, plugin]}))
        }
    };
    super::args::print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// The source that trusts the repository of `image`, where one is asked for.
fn source(args: &Install, image: &str) -> anyhow::Result<Option<Value>> {
    if args.keys.is_empty() && !args.unverified {
        anyhow::ensure!(args.pull_secret.is_none(), "--pull-secret belongs to a PluginSource: give --key or --unverified, too");
        return Ok(None);
    }
    let repository = image.split_once('@').map_or(image, |(repository, _)| repository);
    let read = |file: &PathBuf| std::fs::read_to_string(file).with_context(|| format!("cannot read key {}", file.display()));
    let keys = args.keys.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let spec = PluginSourceSpec {
        prefix: repository.to_owned(),
        pull_secret: args.pull_secret.clone(),
        unverified: args.unverified.then_some(Unverified::Allow),
        verify: (!keys.is_empty()).then_some(Verify { keys }),
        ..PluginSourceSpec::default()
    };
    let name: String = repository.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    Ok(Some(json!({
        "apiVersion": "substratus.ai/v1alpha1",
        "kind": "PluginSource",
        "metadata": {"name": name},
        "spec": spec,
    })))
}

/// The Plugin, with every grant that the manifest asks for.
fn object(manifest: &Manifest, image: &str, name: Option<&str>) -> Value {
    let secrets =
        manifest.secrets.iter().map(|secret| SecretGrant { name: secret.name.clone(), hosts: secret.hosts.clone() }).collect();
    let grants = Grants {
        hosts: manifest.hosts.clone(),
        secrets,
        images: manifest.images.clone(),
        scheduling: manifest.scheduling.clone(),
    };
    let mut spec = Map::from_iter([("image".to_owned(), Value::from(image))]);
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
        let object = object(&manifest, "r.example/hub@sha256:00", None);
        let spec: substratus_crds::PluginSpec = serde_json::from_value(object["spec"].clone()).unwrap();
        assert_eq!(spec.image.as_deref(), Some("r.example/hub@sha256:00"));
        let grants = spec.grants.unwrap();
        assert_eq!((grants.hosts.as_slice(), grants.secrets[0].name.as_str()), (&["https://hub.example".to_owned()][..], "hub"));
        let remarks = remarks(&manifest, "r.example/hub:1");
        assert!(remarks.lines().all(|line| line.starts_with("# ")), "{remarks}");
        let whole: Value = serde_saphyr::from_str(&(remarks + &serde_saphyr::to_string(&object).unwrap())).unwrap();
        assert_eq!(whole, object);
    }

    #[test]
    fn a_source_trusts_the_repository_alone_and_only_as_it_was_said() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            install: Install,
        }
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("cosign.pub");
        std::fs::write(&key, "PEM").unwrap();
        let source = |more: &[&str]| {
            let line = ["x", "r.example:5000/team/hub:1"].iter().chain(more);
            source(&<Line as clap::Parser>::parse_from(line).install, "r.example:5000/team/hub@sha256:00")
        };
        assert!(source(&[]).unwrap().is_none());
        assert!(source(&["--pull-secret=pull"]).unwrap_err().to_string().contains("--key or --unverified"));
        let signed = source(&["--key", key.to_str().unwrap(), "--pull-secret=pull"]).unwrap().unwrap();
        let expected = json!({"prefix": "r.example:5000/team/hub", "pullSecret": "pull", "verify": {"keys": ["PEM"]}});
        assert_eq!((&signed["spec"], &signed["metadata"]["name"]), (&expected, &json!("r-example-5000-team-hub")));
        assert_eq!(source(&["--unverified"]).unwrap().unwrap()["spec"]["unverified"], "Allow");
    }

    #[test]
    fn a_plugin_that_asks_for_nothing_is_granted_nothing() {
        let manifest = Manifest::from_yaml(r#"{name: a, version: 0.1.0, role: GpuPolicy, host: "0.1"}"#).unwrap();
        let object = object(&manifest, "r.example/a@sha256:00", Some("other"));
        assert_eq!(object["spec"], json!({"image": "r.example/a@sha256:00"}));
        assert_eq!(object["metadata"]["name"], "other");
    }
}

//! `substratus plugin new`: writes a crate that is a plugin already, for one to change. Knows the templates, and no plugin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;
use substratus_crds::PluginRole;

use super::args::Format;
use crate::plugin::Manifest;

/// `plugin new`
#[derive(Debug, Args)]
#[command(after_help = "The crate compiles and its case passes as they are. Then:\n\n  \
    $EDITOR NAME/src/lib.rs             what it answers\n  \
    $EDITOR NAME/plugin.yaml            what it is, and what it asks for\n  \
    substratus plugin test NAME         its cases, in the real sandbox with its limits\n\n\
    Needs Rust with the target wasm32-unknown-unknown: `rustup target add wasm32-unknown-unknown`.")]
pub struct New {
    /// New folder; its last part is the plugin's name (lower-case letters, digits and '-')
    folder: PathBuf,
    /// What the plugin is for
    #[arg(long, value_enum)]
    role: Role,
    /// Folder of the crate substratus-plugin [default: plugins/sdk of the checkout that the folder is in, else this version's from Git]
    #[arg(long, env = "SUBSTRATUS_PLUGIN_SDK", value_name = "DIR")]
    sdk: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// What a plugin is for, as one types it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Says what a model on a hub consists of
    ModelLoader,
    /// Says what a data set consists of, and maps its rows
    DatasetImporter,
    /// Says which nodes have a GPU
    GpuPolicy,
    /// Says how an engine is started
    ServerAdapter,
}

/// The files of a role, beside those that all have.
struct Template {
    role: PluginRole,
    manifest: &'static str,
    source: &'static str,
    case: &'static str,
    /// A call to try first.
    call: &'static str,
}

macro_rules! template {
    ($role:ident, $folder:literal, $call:literal) => {
        Template {
            role: PluginRole::$role,
            manifest: include_str!(concat!("../../../templates/", $folder, "/plugin.yaml.in")),
            source: include_str!(concat!("../../../templates/", $folder, "/lib.rs.in")),
            case: include_str!(concat!("../../../templates/", $folder, "/case.yaml.in")),
            call: $call,
        }
    };
}

const CARGO: &str = include_str!("../../../templates/common/Cargo.toml.in");
const README: &str = include_str!("../../../templates/common/README.md.in");
const IGNORE: &str = include_str!("../../../templates/common/gitignore.in");

impl Role {
    fn template(self) -> Template {
        match self {
            Self::ModelLoader => template!(ModelLoader, "model-loader", "resolve"),
            Self::DatasetImporter => template!(DatasetImporter, "dataset-importer", "plan"),
            Self::GpuPolicy => template!(GpuPolicy, "gpu-policy", "place"),
            Self::ServerAdapter => template!(ServerAdapter, "server-adapter", "fit"),
        }
    }
}

/// Writes the crate.
pub(super) fn new(args: &New) -> anyhow::Result<ExitCode> {
    let (name, files) = files(args)?;
    // The folder itself says that nobody else is writing here.
    fs::create_dir(&args.folder).with_context(|| format!("make the folder {}", args.folder.display()))?;
    for (path, text) in &files {
        let path = args.folder.join(path);
        let folder = path.parent().context("a file lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    let folder = args.folder.display();
    let text = format!("{folder}: a new {:?}\nnext: substratus plugin test {folder}", args.role.template().role);
    let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
    args.format.print(&text, &json!({"name": name, "folder": args.folder, "files": paths}))?;
    Ok(ExitCode::SUCCESS)
}

/// The plugin's name, and its files by path.
fn files(args: &New) -> anyhow::Result<(String, Vec<(&'static str, String)>)> {
    let name = args.folder.file_name().and_then(|name| name.to_str()).context("name the new folder")?.to_owned();
    let absolute = std::path::absolute(&args.folder).context("find the folder's path")?;
    let parent = absolute.parent().context("a folder lies in another one")?;
    let sdk = sdk(args.sdk.as_deref(), parent)?;
    let template = args.role.template();
    let fill = |text: &str| {
        let role = format!("{:?}", template.role);
        text.replace("{{name}}", &name).replace("{{role}}", &role).replace("{{call}}", template.call).replace("{{sdk}}", &sdk)
    };
    let manifest = fill(template.manifest);
    // A name that is no good is told before anything is written.
    Manifest::from_yaml(&manifest).with_context(|| format!("`{name}` cannot be a plugin's name"))?;
    ensure!(name.starts_with(|c: char| c.is_ascii_lowercase()), "`{name}` cannot be a crate's name; begin it with a letter");
    let mut cargo = fill(CARGO);
    if is_workspace(parent) {
        // Profiles and the workspace are those of the folder above.
        let own = cargo.find("# Small, and the same bytes").context("the template has a part of its own")?;
        cargo.truncate(own);
    }
    let files = vec![
        ("Cargo.toml", cargo.trim_end().to_owned() + "\n"),
        (".gitignore", IGNORE.to_owned()),
        ("README.md", fill(README)),
        ("plugin.yaml", manifest),
        ("src/lib.rs", fill(template.source)),
        ("cases/first.yaml", fill(template.case)),
    ];
    Ok((name, files))
}

/// Where Cargo gets the crate `substratus-plugin`, as members of a table.
fn sdk(given: Option<&Path>, parent: &Path) -> anyhow::Result<String> {
    let near = || parent.ancestors().map(|folder| folder.join("plugins/sdk")).find(|folder| folder.join("Cargo.toml").is_file());
    let Some(folder) = given.map(Path::to_owned).or_else(near) else {
        return Ok(format!("git = {:?}, tag = \"v{}\"", env!("CARGO_PKG_REPOSITORY"), env!("CARGO_PKG_VERSION")));
    };
    let folder = folder.canonicalize().with_context(|| format!("find the folder {}", folder.display()))?;
    let Some(path) = folder.to_str() else { bail!("{} is no path that Cargo.toml can name", folder.display()) };
    Ok(format!("path = {path:?}"))
}

/// Whether the folder above is a workspace that its folders belong to.
fn is_workspace(folder: &Path) -> bool {
    fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(folder: PathBuf, role: Role, sdk: Option<PathBuf>) -> New {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            new: New,
        }
        let mut new = Line::parse_from(["new", "x", "--role", "gpu-policy"]).new;
        (new.folder, new.role, new.sdk) = (folder, role, sdk);
        new
    }

    #[test]
    fn every_role_has_files_in_which_nothing_is_left_to_fill_in() {
        let folder = tempfile::tempdir().unwrap();
        for role in Role::value_variants() {
            let (name, files) = files(&args(folder.path().join("acme-one"), *role, Some(folder.path().to_owned()))).unwrap();
            assert_eq!(name, "acme-one");
            for (path, text) in &files {
                assert!(!text.contains("{{") && text.ends_with('\n'), "{role:?}: {path}: {text}");
            }
            let manifest = files.iter().find(|(path, _)| *path == "plugin.yaml").unwrap();
            assert_eq!(Manifest::from_yaml(&manifest.1).unwrap().role, role.template().role);
        }
    }

    #[test]
    fn names_that_no_plugin_may_have_are_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["Upper", "a_b", "1st", "-a", "a b", "ä"] {
            assert!(new(&args(folder.path().join(name), Role::ModelLoader, None)).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::create_dir(folder.path().join("there")).unwrap();
        let error = new(&args(folder.path().join("there"), Role::GpuPolicy, None)).unwrap_err();
        assert!(error.to_string().starts_with("make the folder"), "{error:#}");
    }

    #[test]
    fn the_sdk_of_the_checkout_is_used_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        assert!(sdk(None, folder.path()).unwrap().starts_with("git = \"https://"));
        fs::create_dir_all(folder.path().join("plugins/sdk")).unwrap();
        fs::write(folder.path().join("plugins/sdk/Cargo.toml"), "").unwrap();
        assert!(sdk(None, &folder.path().join("a/b")).unwrap().ends_with("plugins/sdk\""));
        fs::write(folder.path().join("plugins/Cargo.toml"), "[workspace]\nmembers = [\"*\"]\n").unwrap();
        let (_, files) = files(&args(folder.path().join("plugins/gpu-mine"), Role::GpuPolicy, None)).unwrap();
        assert!(!files[0].1.contains("[workspace]") && !files[0].1.contains("[profile"), "{}", files[0].1);
    }
}

//! How an object's image or build source meets a plugin: the claims of plugins first, the container contract otherwise. Pure.

use std::sync::Arc;

use substratus_crds::PluginRole;
use substratus_crds::conditions::reason;

use super::verdict::Verdict;
use super::workload::Workload;
use crate::catalog::{Active, Catalog, ImageMatch};

/// An image that runs as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Said in the status where a plugin might have been expected.
    pub note: Option<String>,
}

impl Image {
    /// An image that nobody else was expected for.
    pub fn plain(name: &str) -> Self {
        Self { name: name.to_owned(), note: None }
    }

    /// One sentence for people.
    pub fn describe(&self) -> String {
        let why = self.note.as_deref().unwrap_or("no plugin claims it");
        format!("the image `{}` runs as a container; {why}", self.name)
    }
}

/// A plugin that answers for an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The plugin.
    pub plugin: Arc<Active>,
    /// Why this one.
    pub because: String,
}

impl Chosen {
    /// A plugin and why.
    pub fn new(plugin: &Arc<Active>, because: impl Into<String>) -> Self {
        Self { plugin: Arc::clone(plugin), because: because.into() }
    }

    /// One sentence for people; `does` is what it does.
    pub fn describe(&self, does: &str) -> String {
        format!("plugin `{}` {} {does} it: {}", self.plugin.name, self.plugin.manifest.version, self.because)
    }
}

/// Who does the work of an image or a build source.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A plugin that claims it.
    Plugin(Chosen),
    /// The image itself.
    Image(Image),
}

/// Looks at `spec.image`, then at `spec.build`; nothing where the spec names neither.
pub fn find(catalog: &Catalog, role: PluginRole, workload: &Workload<'_>, namespace: &str) -> Result<Option<Found>, Verdict> {
    match (workload.image, workload.build) {
        (Some(image), _) => Ok(Some(by_image(catalog, role, image, workload.command, namespace))),
        (None, Some(_)) => by_build(catalog, role, workload, namespace).map(Some),
        (None, None) => Ok(None),
    }
}

fn by_image(catalog: &Catalog, role: PluginRole, image: &str, command: Option<&[String]>, namespace: &str) -> Found {
    match catalog.by_image(role, image, command, namespace) {
        ImageMatch::Plugin(plugin) => Found::Plugin(Chosen::new(&plugin, format!("it stands in for the image `{image}`"))),
        ImageMatch::OtherCommand(plugin) => Found::Image(Image {
            name: image.to_owned(),
            note: Some(format!("plugin `{}` stands in for this image, but not with this command", plugin.name)),
        }),
        ImageMatch::Nobody => Found::Image(Image::plain(image)),
    }
}

fn by_build(catalog: &Catalog, role: PluginRole, workload: &Workload<'_>, namespace: &str) -> Result<Found, Verdict> {
    let git = workload.build.and_then(|build| build.git.as_ref());
    let why = match git.map(|git| (git, catalog.by_build(role, git, workload.command, namespace))) {
        Some((git, ImageMatch::Plugin(plugin))) => {
            let because = format!("it stands in for the image that {} builds", crate::catalog::build_source(git));
            return Ok(Found::Plugin(Chosen::new(&plugin, because)));
        }
        Some((_, ImageMatch::OtherCommand(plugin))) => {
            format!("plugin `{}` stands in for this build, but not with this command; ", plugin.name)
        }
        Some((_, ImageMatch::Nobody)) | None => String::new(),
    };
    Err(unbuilt(&why))
}

/// An image that nobody stands in for, and that is not built.
pub fn unbuilt(why: &str) -> Verdict {
    Verdict::new(reason::IMAGE_NOT_BUILT, format!("spec.build: {why}the image is not built yet"))
}

/// Whether no plugin stands in for what `spec.build` makes.
pub fn needs_build(catalog: &Catalog, role: PluginRole, workload: &Workload<'_>, namespace: &str) -> bool {
    let git = workload.build.and_then(|build| build.git.as_ref());
    let found = git.map(|git| catalog.by_build(role, git, workload.command, namespace));
    workload.image.is_some() || !matches!(found, Some(ImageMatch::Plugin(_)))
}

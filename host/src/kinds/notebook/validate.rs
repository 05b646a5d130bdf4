//! Which image a Notebook runs: the only place that refuses what a user wrote. Pure.

use std::collections::BTreeMap;

use super::observe::Observed;
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::route::{Image, unbuilt};
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::workload::Workload;
use crate::kinds::shared::{duration, env};

/// A Notebook that can be planned.
#[derive(Clone, Debug)]
pub struct Valid {
    /// What runs.
    pub route: Route,
    /// `spec.env`, read.
    pub env: BTreeMap<String, env::Value>,
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The user's image.
    Own(Image),
    /// The operator's choice.
    Default(String),
}

impl Route {
    /// One sentence for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Own(image) => format!("the image `{}` runs as a container", image.name),
            Self::Default(image) => format!("the spec names no image, so the operator's own choice runs: `{image}`"),
        }
    }

    /// The image.
    pub fn image(&self) -> &str {
        match self {
            Self::Own(image) => &image.name,
            Self::Default(image) => image,
        }
    }
}

/// Checks the spec and chooses the image.
pub fn validate(observed: &Observed, environment: &Environment) -> Result<Valid, Verdict> {
    let workload = Workload::from(&observed.notebook.spec);
    let env = workload.check()?;
    if let Some(text) = &observed.notebook.spec.idle_timeout
        && duration::read(text).is_none()
    {
        return Err(Verdict::invalid("spec.idleTimeout", format!("`{text}` is no time to wait; write `30m` or `1h30m`")));
    }
    let route = match (workload.image, workload.build) {
        (Some(image), _) => Route::Own(Image::plain(image)),
        (None, Some(_)) => return Err(unbuilt("")),
        (None, None) => Route::Default(environment.notebook_image.clone()),
    };
    Ok(Valid { route, env })
}

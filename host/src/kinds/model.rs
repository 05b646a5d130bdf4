//! `Model`: weights that a loader imports, or that a container loads or trains from a base model and a dataset.

use substratus_crds::{ArtifactStatus, Model, PluginRole};

use super::artifact::{Artifact, Facts, Wanted};
use super::image::conclude::Fields;
use super::shared::names;
use super::shared::workload::Workload;
use crate::reconcile::trigger::Trigger;

impl Artifact for Model {
    const FACTS: Facts = Facts {
        kind: "model",
        manager: "model-controller",
        metric: crate::metrics::Kind::Model,
        job: names::model_job,
        shards: None,
        publish: Some(names::model_publish),
        container: "model",
        account: names::MODELLER,
        role: PluginRole::ModelLoader,
        verb: "loads",
        subcommand: "load",
        reuses: true,
        retries: 0,
        example: "hf://org/name",
        trigger: Trigger::Model,
    };

    fn wanted(&self) -> Wanted<'_> {
        let spec = &self.spec;
        Wanted {
            source: &spec.source,
            plugin: &spec.plugin,
            files: &spec.files,
            workload: Workload::from(spec),
            model: spec.model.as_ref(),
            dataset: spec.dataset.as_ref(),
            retries: spec.retries,
            parallelism: None,
            publish: spec.publish.as_deref().filter(|publish| !publish.is_empty()),
            publish_secret: spec.publish_secret.as_deref().filter(|secret| !secret.is_empty()),
        }
    }

    fn image_fields(&mut self) -> Fields<'_> {
        let spec = &mut self.spec;
        Fields { image: &mut spec.image, build: &mut spec.build, pod: &mut spec.pod }
    }

    fn known(&self) -> Option<&ArtifactStatus> {
        self.status.as_ref()
    }
}

//! `Dataset`: data that an importer brings in, or that a container loads.

use substratus_crds::{ArtifactStatus, Dataset, PluginRole};

use super::artifact::{Artifact, Facts, Wanted};
use super::image::conclude::Fields;
use super::shared::names;
use super::shared::workload::Workload;
use crate::reconcile::trigger::Trigger;

impl Artifact for Dataset {
    const FACTS: Facts = Facts {
        kind: "dataset",
        manager: "dataset-controller",
        metric: crate::metrics::Kind::Dataset,
        job: names::dataset_job,
        shards: Some(names::dataset_shards),
        publish: None,
        container: "load",
        account: names::DATA_LOADER,
        role: PluginRole::DatasetImporter,
        verb: "imports",
        subcommand: "import",
        reuses: false,
        retries: 2,
        example: "hf://datasets/org/name",
        trigger: Trigger::Dataset,
    };

    fn wanted(&self) -> Wanted<'_> {
        let spec = &self.spec;
        Wanted {
            source: &spec.source,
            plugin: &spec.plugin,
            files: &spec.files,
            workload: Workload::from(spec),
            model: None,
            dataset: None,
            retries: spec.retries,
            parallelism: spec.parallelism,
            publish: None,
            publish_secret: None,
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

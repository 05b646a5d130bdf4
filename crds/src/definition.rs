//! The CustomResourceDefinitions, made from the types and finished with what derives cannot say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, ValidationRule,
};
use kube::CustomResourceExt;

use crate::{Model, Plugin, Server};

/// Longest name of a Model: its longest child is `NAME-model-params`, and no child name may pass 63 characters.
pub const MAX_MODEL_NAME: usize = 63 - "-model-params".len();
/// Longest name of a Server: its longest child is `NAME-server-params`.
pub const MAX_SERVER_NAME: usize = 63 - "-server-params".len();

/// Every CustomResourceDefinition, in order of kind.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let model = finish(Model::crd(), vec![length_rule("Model", MAX_MODEL_NAME)]);
    let server = finish(
        Server::crd(),
        vec![
            length_rule("Server", MAX_SERVER_NAME),
            on_create(
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "the name of a Server becomes the name of its Service: start with a letter and use only lower-case letters, digits and '-'",
            ),
        ],
    );
    vec![model, finish(Plugin::crd(), Vec::new()), server]
}

fn length_rule(kind: &str, max: usize) -> ValidationRule {
    on_create(
        &format!("size(self.metadata.name) <= {max}"),
        &format!("the name of a {kind} may have at most {max} characters, because its children's names are made from it and may have 63"),
    )
}

/// A rule that is checked on create only, so that objects taken over from an older operator stay editable.
fn on_create(rule: &str, message: &str) -> ValidationRule {
    ValidationRule {
        rule: format!("oldSelf.hasValue() || {rule}"),
        message: Some(message.to_owned()),
        optional_old_self: Some(true),
        ..ValidationRule::default()
    }
}

/// Makes `spec` optional (it defaults to an empty one) and adds the rules.
fn finish(mut crd: CustomResourceDefinition, rules: Vec<ValidationRule>) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else { continue };
        root.required = None;
        if !rules.is_empty() {
            root.x_kubernetes_validations = Some(rules.clone());
        }
        if let Some(spec) = property(root, "spec") {
            spec.default = Some(JSON(serde_json::json!({})));
        }
    }
    crd
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

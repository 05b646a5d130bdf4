//! A model loader that misbehaves as the parameter `do` says, one way at a time. Test material: it knows how, and nothing of who
//! stops it.

mod answers;
mod burn;
mod calls;

use substratus_plugin::{
    Failure, invalid,
    loader::{File, Guest, PlanPage, Request},
    params::Params,
};

/// Does what was asked. `cursor` matters to endless plans alone.
pub fn resolve(request: &Request, cursor: Option<&str>) -> Result<PlanPage, Failure> {
    let how = Params::new(&request.params).text("do")?.unwrap_or_default();
    if let Some(result) = burn::burn(&how) {
        return result;
    }
    if let Some(result) = calls::call(&how) {
        return result;
    }
    answers::answer(&how, cursor)
        .unwrap_or_else(|| Err(invalid("spec.params.do", format!("{how:?} is no misbehaviour that this guest knows"))))
}

struct Plugin;

impl Guest for Plugin {
    fn resolve(request: Request, cursor: Option<String>) -> Result<PlanPage, Failure> {
        resolve(&request, cursor.as_deref())
    }

    fn refresh(request: Request, path: String) -> Result<File, Failure> {
        // Another file than the one asked for.
        resolve(&request, None)?;
        Ok(answers::file(&format!("{path}.other")))
    }
}

substratus_plugin::export_model_loader!(Plugin);

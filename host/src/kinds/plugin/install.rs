//! One Plugin's way from an image name to a component that may answer, step by step; the first step that fails is named, and what
//! answered before goes on meanwhile. Decides nothing itself: the rules are next door.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use serde_json::{Map, Value};
use substratus_crds::conditions::plugin as said;
use substratus_crds::{Ceiling, Plugin, PluginRevision, PluginSource};

use super::access::access;
use super::approval::{self, Before, Waits};
use super::failure::Failure;
use super::polls;
use super::revisions::{self, Revision};
use super::source::{self, Policy, Trusted};
use crate::catalog::Active;
use crate::context::Context;
use crate::plugin::{Manifest, SignaturePolicy, Signed, describe_problems};

/// A revision that passed every step.
#[derive(Clone, Debug, PartialEq)]
pub struct Good {
    /// The revision.
    pub revision: Revision,
    /// What answers.
    pub active: Active,
    /// What is said of its verification: reason and message.
    pub verified: (&'static str, String),
}

/// How far a Plugin came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Installed {
    /// What the spec names now, as far as that is known.
    pub newest: Option<Revision>,
    /// The newest revision, where it may answer.
    pub candidate: Option<Good>,
    /// The newest revision, where it passed every step and waits.
    pub waiting: Option<(Good, Waits)>,
    /// What answered before and still may.
    pub last: Option<Good>,
    /// The step of the newest revision that failed.
    pub failed: Option<Failure>,
    /// Why what answered before may not any more.
    pub withdrawn: Option<String>,
    /// The tag is followed, so often; and why it could not be asked, where it could not.
    pub followed: Option<(Duration, Option<Failure>)>,
    /// When to try again.
    pub retry: Option<Duration>,
}

impl Installed {
    /// For metrics.
    pub fn category(&self) -> &'static str {
        let waits = self.waiting.as_ref().map_or("ok", |(_, waits)| waits.reason);
        self.failed.as_ref().map_or(waits, |failure| failure.reason)
    }

    /// Why the newest revision does not answer, in one line.
    pub fn hindrance(&self) -> Option<String> {
        let waits = self.waiting.as_ref().map(|(_, waits)| format!("{}: {}", waits.reason, waits.message));
        self.failed.as_ref().map(Failure::line).or(waits)
    }
}

/// Takes every step; what cannot be taken leaves the last good component in place.
pub async fn install(object: &Plugin, context: &Context) -> Installed {
    let way = Way { object, context, sources: context.caches.sources.state() };
    let history: &[PluginRevision] = object.status.as_ref().map_or(&[], |status| &status.revisions);
    let last = object.status.as_ref().and_then(revisions::last).map(Revision::of);
    let mut installed = way.newest(history, last.as_ref()).await;
    let poll = polls::interval(object).map(|interval| context.installed.polls.wait(&object.name_any(), interval, Instant::now()));
    let again = installed.failed.as_ref().and_then(|failure| failure.retry);
    installed.retry = [poll, again].into_iter().flatten().min();
    installed
}

/// A checked component with the configuration, the grants and the namespaces of its Plugin object.
pub fn activate(object: &Plugin, digest: String, manifest: Manifest, ceiling: Option<&Ceiling>) -> Result<Active, String> {
    let given: Map<String, Value> = object.spec.config.clone().unwrap_or_default();
    let config = manifest.config(&given).map_err(|problems| format!("spec.config: {}", describe_problems(&problems)))?;
    // A bundled plugin came with the operator and is trusted with what it asks for; any other gets what it is granted.
    let nothing = substratus_crds::Grants::default();
    let granted = match (&object.spec.grants, &object.spec.image) {
        (Some(grants), _) => Some(grants),
        (None, None) => None,
        (None, Some(_)) => Some(&nothing),
    };
    let grant = manifest.grant(granted);
    let grant = match ceiling {
        Some(ceiling) => grant.within(ceiling),
        None => grant,
    };
    let (named, namespaces) = (object.spec.grants.is_some(), object.spec.namespaces.clone());
    Ok(Active { name: object.name_any(), manifest, digest, config, grant, named, namespaces })
}

/// One pass over one Plugin.
struct Way<'a> {
    object: &'a Plugin,
    context: &'a Context,
    sources: Vec<Arc<PluginSource>>,
}

/// How strictly a revision is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Every step, before it answers.
    New,
    /// It answers already: a registry that cannot be asked is no reason to stop it.
    Known,
}

impl Way<'_> {
    async fn newest(&self, history: &[PluginRevision], last: Option<&Revision>) -> Installed {
        let mut installed = Installed::default();
        let known = self.object.spec.image.as_deref().and_then(|image| revisions::known(history, image));
        let good = match self.named(known, &mut installed).await {
            Ok(revision) => {
                installed.newest = Some(revision.clone());
                self.good(revision, Look::New).await
            }
            Err(failure) => {
                installed.newest = known.map(Revision::of);
                Err(failure)
            }
        };
        match good {
            Ok(good) => {
                installed.newest = Some(good.revision.clone());
                let is_last = last.is_some_and(|last| last.is(&good.revision));
                if let Some(last) = last.filter(|_| !is_last) {
                    self.keep(last, &mut installed).await;
                }
                let waits = if is_last { None } else { self.waits(history, &good, last) };
                match waits {
                    None => installed.candidate = Some(good),
                    Some(waits) => installed.waiting = Some((good, waits)),
                }
            }
            Err(failure) => {
                installed.failed = Some(failure);
                if let Some(last) = last {
                    self.keep(last, &mut installed).await;
                }
            }
        }
        installed
    }

    /// What answered before goes on, unless something is held against it.
    async fn keep(&self, last: &Revision, installed: &mut Installed) {
        match self.good(last.clone(), Look::Known).await {
            Ok(good) => installed.last = Some(good),
            Err(failure) => installed.withdrawn = (!failure.passing).then(|| failure.line()),
        }
    }

    fn waits(&self, history: &[PluginRevision], good: &Good, last: Option<&Revision>) -> Option<Waits> {
        let known = last.map(|last| self.context.plugins.manifest(&last.digest));
        let before = match &known {
            None => Before::Nothing,
            Some(Ok(manifest)) => Before::Manifest(manifest),
            Some(Err(_)) => Before::Unknown,
        };
        approval::needed(self.object, history, &good.revision, &good.active.manifest, before)
    }

    /// The revision that the spec names. A registry is asked for a tag that was not resolved yet, whose component was refused
    /// before the spec was edited, or that is followed and whose time has come.
    async fn named(&self, known: Option<&PluginRevision>, installed: &mut Installed) -> Result<Revision, Failure> {
        let Some(image) = self.object.spec.image.as_deref() else { return self.bundled() };
        let trusted = source::find(&self.sources, image)?;
        source::check_digest(&trusted)?;
        let (name, polls) = (self.object.name_any(), &self.context.installed.polls);
        let interval = polls::interval(self.object);
        installed.followed = interval.map(|interval| (interval, None));
        let is_due = interval.is_some_and(|interval| polls.wait(&name, interval, Instant::now()).is_zero());
        if let Some(known) = known.filter(|known| !is_due && !self.is_edited_after(known)) {
            return Ok(Revision::of(known));
        }
        polls.asked(&name, Instant::now());
        match (self.resolve(image, &trusted).await, known) {
            (Ok(revision), _) => Ok(revision),
            // What the tag named the last time is known.
            (Err(failure), Some(known)) => {
                installed.followed = interval.map(|interval| (interval, Some(failure)));
                Ok(Revision::of(known))
            }
            (Err(failure), None) => Err(failure),
        }
    }

    /// A tag that was refused may name something else by now, and whoever edits the spec wants to know.
    fn is_edited_after(&self, known: &PluginRevision) -> bool {
        let told = self.object.status.as_ref().and_then(|status| status.observed_generation);
        known.state == substratus_crds::RevisionState::Failed && told != self.object.metadata.generation
    }

    fn bundled(&self) -> Result<Revision, Failure> {
        let name = self.object.name_any();
        let found = self.context.plugins.bundled().into_iter().find(|loaded| loaded.manifest.name == name);
        found.map(|loaded| Revision { digest: loaded.digest, ..Revision::default() }).ok_or_else(|| {
            let message = format!("no bundled plugin is called `{name}`; name an OCI image in spec.image");
            Failure::new(said::RESOLVED, said::IMAGE_NOT_FOUND, message)
        })
    }

    async fn resolve(&self, image: &str, trusted: &Trusted) -> Result<Revision, Failure> {
        let access = access(trusted, self.context).await?;
        let named = access.plugins.resolve_image(&trusted.reference(), access.auth, &self.context.plain_http).await;
        let named = named.map_err(|error| Failure::of(&error))?;
        let image = Some(revisions::with_digest(image, &named.manifest));
        Ok(Revision { digest: named.component, image, ..Revision::default() })
    }

    /// Every step after the first. Nothing is pulled before it is verified.
    async fn good(&self, mut revision: Revision, look: Look) -> Result<Good, Failure> {
        let plugins = &self.context.plugins;
        let trusted = match revision.image.as_deref() {
            Some(image) => Some(source::find(&self.sources, image)?),
            None => None,
        };
        let (signed_by, verified) = match &trusted {
            Some(trusted) => self.verified(trusted, &revision, look).await?,
            None => (vec!["bundled".to_owned()], (said::OK, "it came with the operator".to_owned())),
        };
        revision.signed_by = signed_by;
        let (digest, manifest) = if let Some(trusted) = &trusted {
            self.pulled(trusted).await?
        } else {
            let manifest = plugins.manifest(&revision.digest).map_err(|error| Failure::of(&error))?;
            (revision.digest.clone(), manifest)
        };
        revision.digest.clone_from(&digest);
        revision.version = Some(manifest.version.clone());
        plugins.prepare(&digest).await.map_err(|error| Failure::of(&error))?;
        let ceiling = trusted.as_ref().and_then(|trusted| trusted.source.spec.ceiling.as_ref());
        let active = activate(self.object, digest, manifest, ceiling)
            .map_err(|message| Failure::new(said::CONFIG_VALID, said::CONFIG, message))?;
        Ok(Good { revision, active, verified })
    }

    async fn verified(
        &self,
        trusted: &Trusted,
        revision: &Revision,
        look: Look,
    ) -> Result<(Vec<String>, (&'static str, String)), Failure> {
        let source = trusted.name();
        let policy = match trusted.policy()? {
            Policy::Keys(policy) => policy,
            Policy::Nobody => {
                let message = format!("PluginSource `{source}` takes images that nobody verifies (unverified: Allow)");
                return Ok((vec!["unverified".to_owned()], (said::UNVERIFIED, message)));
            }
        };
        let of = |signed: Signed| {
            let message = format!("signed by {}, as PluginSource `{source}` wants it", signed.by.join(", "));
            (signed.by, (said::OK, message))
        };
        let manifest = revision.manifest().unwrap_or_default();
        if let Some(signed) = self.context.plugins.known_signed(manifest, &policy) {
            return Ok(of(signed));
        }
        match self.signed(trusted, &policy).await {
            Ok(signed) => Ok(of(signed)),
            Err(failure) if failure.passing && look == Look::Known => {
                Ok((revision.signed_by.clone(), (failure.reason, failure.message)))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn signed(&self, trusted: &Trusted, policy: &SignaturePolicy) -> Result<Signed, Failure> {
        let access = access(trusted, self.context).await.map_err(|failure| Failure { condition: said::VERIFIED, ..failure })?;
        let signed = access.plugins.verify(&trusted.reference(), access.auth, &self.context.plain_http, policy).await;
        signed.map_err(|error| Failure::of_verification(&error))
    }

    async fn pulled(&self, trusted: &Trusted) -> Result<(String, Manifest), Failure> {
        let (plugins, reference) = (&self.context.plugins, trusted.reference());
        if let Some(kept) = plugins.kept(&reference).map_err(|error| Failure::of(&error))? {
            return Ok((kept.digest, kept.manifest));
        }
        let access = access(trusted, self.context).await?;
        let pulled = access.plugins.pull(&reference, access.auth, &self.context.plain_http).await;
        pulled.map(|pulled| (pulled.digest, pulled.manifest)).map_err(|error| Failure::of(&error))
    }
}

//! What happens to the objects of one type: in every namespace by one watch, or in some by a watch each, as if they were one.
//! Knows nothing of what is done with an event.

use std::fmt::Debug;

use futures::stream::{self, BoxStream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// Namespaces that are looked after; none named means all.
#[derive(Clone, Debug, Default)]
pub struct Scope(Vec<String>);

type Events<T> = BoxStream<'static, (usize, watcher::Result<Event<T>>)>;

impl Scope {
    /// These namespaces, or all where there are none.
    pub const fn new(namespaces: Vec<String>) -> Self {
        Self(namespaces)
    }

    /// Where a namespaced type is looked at.
    pub fn apis<T>(&self, client: &Client) -> Vec<Api<T>>
    where
        T: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        if self.0.is_empty() {
            return vec![Api::all(client.clone())];
        }
        self.0.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    }
}

/// Hands every event to `take`, for ever.
///
/// A list that begins anew in one of several namespaces begins anew in all of them: an event says of a whole list what is gone
/// from it, and there is no such event for a part.
pub async fn follow<T>(apis: Vec<Api<T>>, config: watcher::Config, mut take: impl FnMut(Event<T>))
where
    T: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let all = || -> Events<T> {
        let each = apis
            .iter()
            .cloned()
            .enumerate()
            .map(|(at, api)| watch(api, config.clone()).default_backoff().map(move |event| (at, event)).boxed());
        stream::select_all(each).boxed()
    };
    let (mut events, mut joined) = (all(), Joined::new(apis.len()));
    while let Some((at, event)) = events.next().await {
        match event {
            Ok(Event::Init) if joined.is_listed(at) => (events, joined) = (all(), Joined::new(apis.len())),
            Ok(event) => joined.join(at, event).into_iter().for_each(&mut take),
            Err(error) => tracing::warn!(kind = %T::kind(&()), %error, "watch interrupted"),
        }
    }
}

/// The lists of several watches on their way to one.
struct Joined<T> {
    begun: bool,
    listed: Vec<bool>,
    /// Deleted while other lists were still on their way.
    gone: Vec<T>,
}

impl<T> Joined<T> {
    fn new(watches: usize) -> Self {
        Self { begun: false, listed: vec![false; watches], gone: Vec::new() }
    }

    fn is_listed(&self, at: usize) -> bool {
        self.listed.get(at).copied().unwrap_or_default()
    }

    fn join(&mut self, at: usize, event: Event<T>) -> Vec<Event<T>> {
        let whole = self.listed.iter().all(|listed| *listed);
        match event {
            Event::Init if self.begun => Vec::new(),
            Event::Init => {
                self.begun = true;
                vec![Event::Init]
            }
            Event::Apply(object) if !whole => vec![Event::InitApply(object)],
            Event::Delete(object) if !whole => {
                self.gone.push(object);
                Vec::new()
            }
            Event::InitDone => {
                if let Some(listed) = self.listed.get_mut(at) {
                    *listed = true;
                }
                if !self.listed.iter().all(|listed| *listed) {
                    return Vec::new();
                }
                let gone = std::mem::take(&mut self.gone).into_iter().map(Event::Delete);
                std::iter::once(Event::InitDone).chain(gone).collect()
            }
            other => vec![other],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as letters: `(` Init, `+n` `InitApply`, `)` `InitDone`, `n` Apply, `-n` Delete.
    fn letters(events: Vec<Event<u8>>) -> String {
        let letter = |event: Event<u8>| match event {
            Event::Init => "(".to_owned(),
            Event::InitApply(n) => format!("+{n}"),
            Event::InitDone => ")".to_owned(),
            Event::Apply(n) => n.to_string(),
            Event::Delete(n) => format!("-{n}"),
        };
        events.into_iter().map(letter).collect()
    }

    fn joined(watches: usize, events: Vec<(usize, Event<u8>)>) -> String {
        let mut joined = Joined::new(watches);
        letters(events.into_iter().flat_map(|(at, event)| joined.join(at, event)).collect())
    }

    #[test]
    fn one_watch_is_passed_on_as_it_is() {
        let events =
            vec![(0, Event::Init), (0, Event::InitApply(1)), (0, Event::InitDone), (0, Event::Apply(2)), (0, Event::Delete(1))];
        assert_eq!(joined(1, events), "(+1)2-1");
    }

    #[test]
    fn many_lists_are_one_that_is_whole_when_the_last_of_them_is() {
        let events = vec![
            (0, Event::Init),
            (1, Event::Init),
            (0, Event::InitApply(1)),
            (0, Event::InitDone),
            (0, Event::Apply(2)),
            (0, Event::Delete(1)),
            // A list that was interrupted.
            (1, Event::Init),
            (1, Event::InitApply(3)),
            (1, Event::InitDone),
            (0, Event::Delete(2)),
        ];
        assert_eq!(joined(2, events), "(+1+2+3)-1-2");
    }
}

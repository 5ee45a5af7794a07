//! The state dict in a checkpoint.

use std::collections::{HashMap, VecDeque};

use crate::source::pickle::{Pickle, Storage, Tensor, Value};
use crate::source::value::Id;
use crate::source::{MAX_TENSORS, is_counter};

/// Named tensors.
type Tensors = Vec<(String, Tensor)>;

/// A dictionary of a checkpoint.
struct Candidate<'a> {
    id: Id,
    items: &'a [(Id, Id)],
    /// Number of its named tensors.
    tensors: usize,
}

/// The dictionary or other collection that contains a collection, and its key in a dictionary.
type Parents = HashMap<Id, Option<(Id, Option<Id>)>>;

/// The tensors of the dictionary that has the most, and a message for the user if another has as many. A checkpoint has
/// the weights in an inner dictionary, under names such as `state_dict`, `model` or `net`, and perhaps others, such as
/// an optimiser's state.
///
/// # Errors
/// The reason, if there is no such dictionary or a tensor of it cannot be read.
pub(super) fn state_dict(pickle: &Pickle) -> Result<(Tensors, Vec<String>), String> {
    check_storages(pickle)?;
    let (candidates, parents) = dictionaries(pickle);
    let most = candidates.iter().map(|candidate| candidate.tensors).max();
    // The first of several with as many: averaged weights (`state_dict_ema`) usually follow the weights.
    let mut best = candidates.iter().filter(|candidate| Some(candidate.tensors) == most);
    let Some(first) = best.next() else { return Err(no_dictionary(pickle)) };
    let mut tensors = Vec::new();
    for (key, value) in first.items {
        match (text(pickle, *key), pickle.value(*value)) {
            (Some(name), Value::Tensor(tensor)) => tensors.push((name.to_owned(), tensor.clone())),
            (Some(name), Value::Opaque(class)) if name.ends_with(".weight") || name.ends_with(".bias") => {
                return Err(format!("{name} is an object of {}, not a tensor", pickle.class(*class)));
            }
            _ => {}
        }
        if tensors.len() > MAX_TENSORS {
            return Err(format!("it contains more than {MAX_TENSORS} tensors"));
        }
    }
    if tensors.is_empty() {
        return Err(no_tensors(pickle, &candidates));
    }
    let keys = |candidate: &Candidate| format!("`{}`", keys(pickle, &parents, candidate.id));
    let others: Vec<String> = best.take(3).map(keys).collect();
    let note = format!("weights of {}; not used: {}", keys(first), others.join(", "));
    Ok((tensors, if others.is_empty() { Vec::new() } else { vec![note] }))
}

/// All dictionaries in the dictionaries, lists and tuples of a checkpoint, outer ones first.
fn dictionaries(pickle: &Pickle) -> (Vec<Candidate<'_>>, Parents) {
    let mut found = Vec::new();
    let mut parents = Parents::from([(pickle.root_id(), None)]);
    let mut queue = VecDeque::from([pickle.root_id()]);
    while let Some(id) = queue.pop_front() {
        let mut visit = |inner: Id, key: Option<Id>| {
            let is_collection =
                matches!(pickle.value(inner), Value::Dict(_) | Value::List(_) | Value::Tuple(_));
            if is_collection && !parents.contains_key(&inner) {
                parents.insert(inner, Some((id, key)));
                queue.push_back(inner);
            }
        };
        match pickle.value(id) {
            Value::Dict(items) => {
                items.iter().for_each(|(key, inner)| visit(*inner, Some(*key)));
                found.push(Candidate { id, items, tensors: named_tensors(pickle, items) });
            }
            Value::List(items) | Value::Tuple(items) => items.iter().for_each(|inner| visit(*inner, None)),
            _ => {}
        }
    }
    (found, parents)
}

/// The last four keys that lead to a dictionary, such as `checkpoint.state_dict`.
fn keys(pickle: &Pickle, parents: &Parents, id: Id) -> String {
    let steps = std::iter::successors(parents[&id], |(parent, _)| parents[parent]);
    let mut keys: Vec<&str> = steps.filter_map(|(_, key)| text(pickle, key?)).take(4).collect();
    keys.reverse();
    keys.join(".")
}

/// Number of tensors with names in a dictionary, without the counters of batch normalisation and weight averaging.
fn named_tensors(pickle: &Pickle, items: &[(Id, Id)]) -> usize {
    let named = |key: Id| text(pickle, key).is_some_and(|name| !is_counter(name));
    items
        .iter()
        .filter(|(key, value)| named(*key) && matches!(pickle.value(*value), Value::Tensor(_)))
        .count()
}

/// Checks that all references to a storage agree on its type and length.
fn check_storages(pickle: &Pickle) -> Result<(), String> {
    let mut storages: HashMap<&str, &Storage> = HashMap::new();
    for storage in pickle.storages() {
        if *storages.entry(&storage.key).or_insert(storage) != storage {
            return Err(format!("storage {} has two types or lengths", storage.key));
        }
    }
    Ok(())
}

fn text(pickle: &Pickle, id: Id) -> Option<&str> {
    match pickle.value(id) {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    }
}

/// Why there is no dictionary, and what to do.
fn no_dictionary(pickle: &Pickle) -> String {
    match pickle.root() {
        Value::Opaque(class) => format!(
            "it contains a whole object of {}, which was not loaded: save model.state_dict() instead",
            pickle.class(*class)
        ),
        Value::Tensor(_) => "it contains one tensor, not a dictionary of tensors".into(),
        _ => "it is not a dictionary of tensors".into(),
    }
}

/// Why no dictionary has tensors, and what to do.
fn no_tensors(pickle: &Pickle, candidates: &[Candidate]) -> String {
    let mut items = candidates.iter().flat_map(|candidate| candidate.items);
    let object = items.find_map(|(key, value)| match (text(pickle, *key), pickle.value(*value)) {
        (Some(name @ ("model" | "net" | "network" | "module" | "ema")), Value::Opaque(class)) => {
            Some(format!("{name} is a whole object of {}", pickle.class(*class)))
        }
        _ => None,
    });
    match object {
        Some(object) => format!("{object}, which was not loaded: save model.state_dict() instead"),
        None => "it contains no tensors".into(),
    }
}

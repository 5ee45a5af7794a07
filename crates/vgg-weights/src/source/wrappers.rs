//! Modules that wrap a network in a checkpoint, such as `DataParallel`: their names precede the names of its tensors.

/// The wrapper of a network.
pub(super) enum Wrapper {
    /// torchvision's and timm's names follow this prefix, which may be empty. Tensors without it are not the network's.
    Prefix(String),
    /// Names of other libraries: prefixes of `DataParallel`, `torch.compile` and Lightning are removed.
    Known,
}

/// Names of modules that wrap a network or a part of it.
const KNOWN: [&str; 4] = ["module.", "_orig_mod.", "model.", "net."];

impl Wrapper {
    /// The wrapper of the first network whose tensors have torchvision's names, such as `features.0.weight`.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Wrapper {
        let mut names = names.map(without_inner_wrappers);
        match names.find_map(|name| before_features(&name).map(str::to_owned)) {
            Some(prefix) => Wrapper::Prefix(prefix),
            None => Wrapper::Known,
        }
    }

    /// Name of a tensor inside the wrapper; `None` if it is outside.
    pub(super) fn inside(&self, name: &str) -> Option<String> {
        let name = without_inner_wrappers(name);
        match self {
            Wrapper::Prefix(prefix) => name.strip_prefix(prefix.as_str()).map(str::to_owned),
            Wrapper::Known => {
                let mut rest = name.as_str();
                while let Some(shorter) = KNOWN.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
                    rest = shorter;
                }
                Some(rest.to_owned())
            }
        }
    }

    /// A message for the user on the tensors outside the wrapper.
    pub(super) fn note(&self, ignored: &[String]) -> String {
        let Wrapper::Prefix(prefix) = self else { return String::new() };
        let prefix = prefix.trim_end_matches('.');
        let count = ignored.len();
        let noun = if count == 1 { "tensor" } else { "tensors" };
        let names = ignored[..count.min(3)].join(", ");
        let more = if count > 3 { ", .." } else { "" };
        format!("network in `{prefix}`; ignored {count} other {noun}: {names}{more}")
    }
}

/// A name without wrappers of parts of the network, as in `features.module.0.weight`.
fn without_inner_wrappers(name: &str) -> String {
    name.replace(".module.", ".").replace("._orig_mod.", ".")
}

/// What precedes `features.N.weight` in a name.
fn before_features(name: &str) -> Option<&str> {
    let (layer, _) = name.rsplit_once(".weight").filter(|(_, rest)| rest.is_empty())?;
    let (features, number) = layer.rsplit_once('.')?;
    number.parse::<u32>().ok()?;
    let prefix = features.strip_suffix("features")?;
    (prefix.is_empty() || prefix.ends_with('.')).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_before_features_is_the_wrapper() {
        for (name, plain) in [
            ("features.0.weight", "features.0.weight"),
            ("module.features.0.weight", "features.0.weight"),
            ("module._orig_mod.features.0.weight", "features.0.weight"),
            ("model.features.module.0.weight", "features.0.weight"),
            ("backbone.features.28.weight", "features.28.weight"),
            ("ema.module.features.0.weight", "features.0.weight"),
            ("base_model.vgg.features.0.weight", "features.0.weight"),
            // Not the name of torchvision's module.
            ("hidden_features.0.weight", "hidden_features.0.weight"),
            ("_orig_mod.module.net.conv1_1.weight", "conv1_1.weight"),
        ] {
            assert_eq!(Wrapper::of([name].into_iter()).inside(name).as_deref(), Some(plain));
        }
    }

    #[test]
    fn tensors_outside_the_wrapper_are_ignored() {
        let names = [
            "loss.weight",
            "student.features.0.weight",
            "student.features.0.bias",
            "teacher.features.0.weight",
        ];
        let wrapper = Wrapper::of(names.into_iter());
        let inside: Vec<Option<String>> = names.iter().map(|name| wrapper.inside(name)).collect();
        assert_eq!(inside, [None, Some("features.0.weight".into()), Some("features.0.bias".into()), None]);
        let ignored = [names[0].to_owned(), names[3].to_owned()];
        let note = wrapper.note(&ignored);
        assert_eq!(
            note,
            "network in `student`; ignored 2 other tensors: loss.weight, teacher.features.0.weight"
        );
        let note = wrapper.note(&[ignored.clone(), ignored].concat());
        assert!(note.contains("ignored 4 other tensors") && note.ends_with(", .."), "{note}");
    }
}

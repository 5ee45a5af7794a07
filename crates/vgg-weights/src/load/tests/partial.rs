//! Tests of `load` with files that lack layers, and with invalid files.

use super::*;

/// A native file without `fc7.weight` and without fc8.
fn partial(folder: &Folder) -> PathBuf {
    let mut file = arrays();
    file.retain(|array| array.name != "fc7.weight" && !array.name.starts_with("fc8"));
    folder.safetensors(&file, &metadata(Pixels::CaffeRgb).to_strings().unwrap())
}

#[test]
fn partial_files_are_described_but_not_loaded() {
    let folder = Folder::new();
    let path = partial(&folder);
    let Error::Tensors { differences, .. } = refused(&path) else { panic!() };
    // fc7.bias is present, but not reported by itself.
    assert_eq!(differences, ["fc7 is missing", "fc8 is missing"]);
    assert_eq!(read_metadata(&path).unwrap(), metadata(Pixels::CaffeRgb));
    assert_eq!(describe(&path).unwrap(), (metadata(Pixels::CaffeRgb), vec![]));
    let mut file = renamed(arrays(), TORCHVISION);
    file.retain(|array| !array.name.starts_with("classifier"));
    let path = folder.safetensors(&file, &none());
    let notes = describe(&path).unwrap().1;
    assert_eq!(notes[2..], ["layers not in the file: fc6, fc7, fc8"]);
}

fn zeros(spec: NetworkSpec) -> Network {
    Network::new(spec, &Device::cpu(1).unwrap()).unwrap()
}

/// Names of the layers with a value that is not zero.
fn copied(network: &Network) -> Vec<String> {
    let weights = network.state_dict().into_iter().filter(|array| array.values.iter().any(|v| *v != 0.0));
    let mut names: Vec<String> =
        weights.map(|array| array.name.split_once('.').unwrap().0.to_owned()).collect();
    names.dedup();
    names
}

#[test]
fn matching_layers_of_a_partial_file_are_loaded() {
    let folder = Folder::new();
    let path = partial(&folder);
    let mut network = zeros(NetworkSpec { head: [6, 4], ..spec() });
    let report = load_layers(&path, &LayerSelection::AllMatching, &mut network).unwrap();
    assert_eq!(report.loaded, NATIVE[..9]);
    assert_eq!(report.not_loaded, ["fc7", "fc8"]);
    assert_eq!(copied(&network), NATIVE[..9]);
    assert_eq!(network.state_dict()[..18], arrays()[..18]);
    // B has layers between those of A.
    let mut network = zeros(NetworkSpec { config: Config::B, ..spec() });
    let map = LayerSelection::Layers(vec!["conv2_1".into(), "fc6".into()]);
    let report = load_layers(&path, &map, &mut network).unwrap();
    assert_eq!(report.loaded, ["conv2_1", "fc6"]);
    assert_eq!(report.not_loaded.len(), 11);
    assert_eq!(copied(&network), ["conv2_1", "fc6"]);
}

#[test]
fn absent_layers_are_named() {
    let folder = Folder::new();
    let path = partial(&folder);
    let mut network = zeros(spec());
    let mut absent = |map: LayerSelection| match load_layers(&path, &map, &mut network) {
        Err(Error::Absent { path: named, layers }) if named == path => layers,
        other => panic!("{other:?}"),
    };
    assert_eq!(absent(LayerSelection::Paper), ["fc7", "fc8"]);
    let names = ["fc8", "conv1_1", "fc7"].map(str::to_owned).to_vec();
    assert_eq!(absent(LayerSelection::Layers(names)), ["fc8", "fc7"]);
    let unknown = load_layers(&path, &LayerSelection::Layers(vec!["conv9_9".into()]), &mut network);
    assert!(matches!(unknown, Err(Error::Network(vgg_layers::Error::UnknownLayer { .. }))));
    assert!(copied(&network).is_empty());
}

#[test]
fn non_finite_values_are_rejected_by_name() {
    let folder = Folder::new();
    for (tensor, value) in
        [("conv5_2.weight", f32::INFINITY), ("fc6.weight", f32::NAN), ("fc8.bias", f32::NEG_INFINITY)]
    {
        let mut file = arrays();
        find(&mut file, tensor).values[1] = value;
        let path = folder.safetensors(&renamed(file, TORCHVISION), &none());
        let error = refused(&path);
        assert!(matches!(&error, Error::NotFinite { path: p, tensor: t } if *p == path && t == tensor));
    }
}

#[test]
fn unrecognised_tensor_names_are_rejected() {
    let folder = Folder::new();
    let other = [NamedTensor { name: "layer1.0.weight".into(), shape: vec![2], values: vec![0.5; 2] }];
    let path = folder.safetensors(&other, &metadata(Pixels::CaffeRgb).to_strings().unwrap());
    let unknown = "its tensor names are not those of a VGG network in any supported library";
    let message = refused(&path).to_string();
    assert!(message.ends_with(unknown), "{message}");
    // A safetensors file without metadata might be native, so the missing metadata are reported first.
    let path = folder.safetensors(&other, &none());
    assert!(matches!(refused(&path), Error::Metadata { key: "classes", .. }));
    let path = folder.npz(&other);
    assert!(refused(&path).to_string().ends_with(unknown));
}

#[test]
fn native_files_have_no_notes() {
    let folder = Folder::new();
    let mut network = zeros(spec());
    arrays().iter().for_each(|array| network.load_tensor(array).unwrap());
    save(&folder.path(), &network, &metadata(Pixels::CaffeRgb)).unwrap();
    let loaded = open(&folder.path(), None);
    assert_eq!((loaded.library, loaded.notes), (Library::Native, vec![]));
    assert_eq!(loaded.network.state_dict(), arrays());
    assert_eq!(loaded.metadata, metadata(Pixels::CaffeRgb));
}
